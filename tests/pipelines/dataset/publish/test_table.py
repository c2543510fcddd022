"""The table of what is published: from sidecars onto disk once, rows and codes by number, listings without codes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from colabkit.core.errors import DataError, StateError
from colabkit.io.places import Folder
from colabkit.pipelines.dataset.publish.table import open_rows
from tests.pipelines.dataset.publish.sets import CountingObjects, make_codes, make_segment, make_store


def test_sidecars_are_read_once_a_machine(tmp_path):
    store = CountingObjects(make_store(tmp_path / "store", 50, num_codebooks=2))
    rows = open_rows(None, store, tmp_path)
    size = sum(p.stat().st_size for p in (tmp_path / "store" / "codes").glob("*.parquet"))
    assert sum(store.read_bytes.values()) == size and len(rows) == 50 and rows.codec["num_codebooks"] == 2
    again = open_rows(None, store, tmp_path)
    assert sum(store.read_bytes.values()) == size and again.table.equals(rows.table)
    make_store(tmp_path / "store", 60, num_codebooks=2)
    assert len(open_rows(None, store, tmp_path)) == 60 and len(list(tmp_path.glob("codes-*.arrow"))) == 1


def test_rows_and_codes_by_number(tmp_path):
    rows = open_rows(None, Folder(make_store(tmp_path / "store", 50, num_codebooks=2)), tmp_path)
    numbers = np.random.default_rng(0).permutation(50)[:31]
    keys = rows.table["key"].to_pylist()
    for wanted in (numbers, np.sort(numbers), numbers[:1], numbers[:0]):
        assert rows.take(wanted)["key"].to_pylist() == [keys[i] for i in wanted]
    by_key = {make_segment(i).key: i for i in range(50)}
    for number in numbers.tolist():
        i = by_key[keys[number]]
        codes = make_codes(i, len(make_segment(i).wave), 2)
        assert rows.codes(number).tolist() == codes.T.reshape(-1).tolist()


def test_without_codes_the_listing_or_the_index_speaks(tmp_path):
    loose = open_rows(Folder(make_store(tmp_path / "a", 5, codes=False) / "segments"), None, tmp_path)
    assert loose.codec == {} and sorted(loose.table["key"].to_pylist()) == sorted(make_segment(i).key for i in range(5))
    assert set(loose.table["num_samples"].to_pylist()) == {0} and len(loose.take(np.array([4, 0]))) == 2
    shards = open_rows(Folder(make_store(tmp_path / "b", 5, codes=False, layout="tar") / "segments"), None, tmp_path)
    found = {row["key"]: row for row in shards.table.to_pylist()}
    for i in range(5):
        segment, row = make_segment(i), found[make_segment(i).key]
        assert (row["speaker"], row["channel"], row["text"]) == (segment.speaker, segment.channel, segment.text)
        assert row["num_samples"] == len(segment.wave) and row["seconds"] == segment.seconds and row["length"] > 0


def test_what_is_damaged_or_missing_is_told(tmp_path):
    store = make_store(tmp_path / "store", 20)
    rows = open_rows(None, Folder(store), tmp_path)
    assert len(rows) == 20
    [table] = tmp_path.glob("codes-*.arrow")
    table.write_bytes(table.read_bytes()[:1000])
    with pytest.raises(StateError, match="damaged") as caught:
        open_rows(None, Folder(store), tmp_path)
    assert str(table) in caught.value.fix
    table.unlink()
    sidecar = next((store / "codes").glob("*.parquet"))
    sidecar.write_bytes(sidecar.read_bytes()[:-1])
    with pytest.raises(DataError, match="not what was committed"):
        open_rows(None, Folder(store), tmp_path)
    assert not list(tmp_path.glob("codes-*")) and not list(tmp_path.glob(".colabkit*"))
    manifest = json.loads((store / "codes" / "MANIFEST.json").read_text()) | {"pieces": []}
    (store / "codes" / "MANIFEST.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="nothing to publish"):
        open_rows(None, Folder(store), tmp_path)
    with pytest.raises(DataError):
        open_rows(None, None, tmp_path)
