"""Sidecars of codes come back as they were, and what is none is told."""

from __future__ import annotations

import numpy as np
import pytest

from colabkit.core.errors import ChangedError, DataError
from colabkit.pipelines.dataset.store.codes import Row, codes_of, read_sidecar, write_sidecar
from tests.pipelines.dataset.store.small_rows import FACTS, rows


def test_a_sidecar_comes_back_and_its_bytes_do_not_depend_on_the_order():
    content = write_sidecar(rows(), FACTS)
    assert content == write_sidecar(rows()[::-1], FACTS)
    table, facts = read_sidecar(content)
    assert facts == FACTS and table["key"].to_pylist() == [f"k{i:03d}" for i in range(5)]
    for i, row in enumerate(rows()):
        assert np.array_equal(codes_of(table, i), row.codes)
    assert table["num_frames"].to_pylist() == [3, 4, 5, 6, 7] and table["seconds"][0].as_py() == 0.06
    assert (
        table["text"][0].as_py() == "نص" and table["crc32"][0].as_py() == 2**32 - 1 and table["length"][0].as_py() == -1
    )
    assert [str(table.schema.field(n).type) for n in ("codes", "num_frames", "num_samples", "offset")] == [
        "list<element: uint16>",
        "int32",
        "int64",
        "int64",
    ]


def test_codes_are_stored_frame_after_frame():
    one = Row(key="a", codes=np.array([[1, 2, 3], [10, 20, 30]], np.uint16), num_samples=960, rate_hz=16_000)
    table, _ = read_sidecar(write_sidecar([one], FACTS))
    assert table["codes"][0].as_py() == [1, 10, 2, 20, 3, 30]


def test_an_empty_sidecar_and_no_sidecar():
    table, _ = read_sidecar(write_sidecar([], FACTS))
    assert table.num_rows == 0
    with pytest.raises(DataError, match="These are no codes"):
        read_sidecar(b"x" * 100)
    with pytest.raises(ChangedError, match="another version of colabkit"):
        read_sidecar(write_sidecar([], FACTS | {"version": 99}))
