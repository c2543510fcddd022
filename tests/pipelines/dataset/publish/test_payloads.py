"""Bytes of segments: in order, neighbours together, each byte once, faults told of the rows they touch."""

from __future__ import annotations

import zlib

import numpy as np
import pyarrow as pa
import pytest

from colabkit.core.errors import UsageError
from colabkit.pipelines.dataset.publish.payloads import read_payloads
from tests.pipelines.dataset.publish.sets import CountingObjects


def make_table(objects: list[tuple], crc32: list[int]) -> pa.Table:
    names, offsets, lengths = zip(*objects, strict=True)
    return pa.table(
        {"object": names, "version": [""] * len(names), "offset": offsets, "length": lengths, "crc32": crc32}
    )


def test_neighbours_are_read_together_and_whole_objects_whole(tmp_path):
    data = np.random.default_rng(0).bytes(4_000_000)
    (tmp_path / "a.tar").write_bytes(data)
    (tmp_path / "b.npz").write_bytes(data[:1000])
    places = [("a.tar", start, 50_000) for start in range(0, 3_000_000, 52_000)]  # gaps of 2,000 bytes, as in a tar
    far = ("a.tar", 3_900_000, 100)
    table = make_table([*places, far, ("b.npz", 0, -1)], [zlib.crc32(data[s : s + n]) for _, s, n in places] + [-1, -1])
    objects, calls = CountingObjects(tmp_path), []
    get = objects.get
    objects.get = lambda *args, **kwargs: calls.append(args) or get(*args, **kwargs)
    found = list(read_payloads(objects, table))
    assert [p.row for p in found] == list(range(len(found))) and not any(p.fault for p in found)
    assert [bytes(p.content) for p in found] == [data[s : s + n] for _, s, n in [*places, far]] + [data[:1000]]
    assert len(calls) == 3 and objects.read_bytes["a.tar"] <= 1.04 * (sum(n for _, _, n in places) + 100)


def test_faults_touch_the_rows_they_are_of(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"x" * 1000)
    table = make_table(
        [("a.tar", 0, 100), ("a.tar", 100, 100), ("gone.npz", 0, -1), ("a.tar", 950, 100)],
        [zlib.crc32(b"x" * 100), 5, -1, -1],
    )
    faults = [p.fault for p in read_payloads(CountingObjects(tmp_path), table)]
    assert faults[0] == "" and "checksum" in faults[1] and faults[2] and faults[3]


def test_another_version_is_told_and_a_missing_right_raised(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"x" * 1000)
    objects = CountingObjects(tmp_path)
    version = objects.find("a.tar").version
    table = make_table([("a.tar", 0, 100)], [-1])
    ok = table.set_column(1, "version", pa.array([version]))
    other = table.set_column(1, "version", pa.array(["1000-1"]))
    assert [p.fault for p in read_payloads(objects, ok)] == [""]
    assert "changed" in next(read_payloads(objects, other)).fault

    def refuse(*args, **kwargs):
        raise UsageError("No right to read", fix="ask for it")

    objects.get = refuse
    with pytest.raises(UsageError):
        list(read_payloads(objects, table))
