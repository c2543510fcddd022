"""The step: pairs and rows of a store's codes side by side, made as its section of the settings says, and told."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from colabkit.core.errors import DataError, StateError
from colabkit.io.places import Folder
from colabkit.pipelines.dataset.config import PairsConfig
from colabkit.pipelines.dataset.pairs.step import write_rows
from tests.pipelines.dataset.publish.sets import make_codes, make_segment, make_store

NUM_SEGMENTS = 48  # of 12 speakers, in two channels


@pytest.fixture
def store(tmp_path):
    return Folder(make_store(tmp_path / "store", NUM_SEGMENTS))


def read(run, name: str) -> dict[str, dict]:
    tables = [pq.read_table(path) for path in (run.output / name).glob("*.parquet")]
    return {row["__key__"]: row for table in tables for row in table.to_pylist()}


def test_pairs_and_rows_hold_the_codes_of_the_store(store, run):
    config = PairsConfig(phonemes=False, shortest_reference_seconds=0.1)
    made = write_rows(config, store, run)
    pairs, rows = read(run, "pairs"), read(run, "rows")
    assert made["pairs"]["num_rows"] == len(pairs) == NUM_SEGMENTS == made["rows"]["num_rows"] == len(rows)
    assert made["pairs"]["num_tokens"] > made["rows"]["num_tokens"] and not made["rows"]["left_out"]
    for i in range(NUM_SEGMENTS):
        segment = make_segment(i)
        codes = make_codes(i, len(segment.wave), 1)[0]
        np.testing.assert_array_equal(rows[segment.key]["codes"], codes)
        assert (rows[segment.key]["text"], rows[segment.key]["speaker"]) == (segment.text, segment.speaker)
    for key, row in pairs.items():
        target, reference = key.split("+")
        assert row["reference_key"] == reference and row["codes"] == rows[reference]["codes"] + rows[target]["codes"]
        assert rows[reference]["speaker"] == rows[target]["speaker"] == row["speaker"]
    assert [line.partition(":")[0] for line in run.said] == ["  pairs", "  rows"]


def test_the_settings_decide_and_what_is_left_out_is_told(store, run):
    limits = {"phonemes": False, "shortest_reference_seconds": 0.1, "longest_reference_seconds": 0.3}
    made = write_rows(PairsConfig(**limits, most_tokens=110, pairs_per_segment=2, seed=1), store, run)
    seconds = {s.key: s.seconds for s in map(make_segment, range(NUM_SEGMENTS))}
    pairs = read(run, "pairs")
    assert pairs and all(0.1 <= seconds[row["reference_key"]] <= 0.3 for row in pairs.values())
    assert all(row["num_tokens"] <= 110 for name in ("pairs", "rows") for row in read(run, name).values())
    assert made["pairs"]["left_out"] and all(reason in run.said[0] for reason in made["pairs"]["left_out"])


def test_the_seed_decides_which_references(store, run):
    chosen = []
    for seed in (1, 2, 1):
        write_rows(PairsConfig(phonemes=False, shortest_reference_seconds=0.1, seed=seed), store, run)
        chosen.append(sorted(read(run, "pairs")))
    assert chosen[0] == chosen[2] != chosen[1]


def test_with_the_same_channel_or_none_left(tmp_path, run):
    """Speakers of the small store speak in one channel each: nothing changes, and a single segment has no pair."""
    config = PairsConfig(phonemes=False, shortest_reference_seconds=0.1, same_channel=True)
    many = Folder(make_store(tmp_path / "many", NUM_SEGMENTS))
    assert write_rows(config, many, run)["pairs"]["num_rows"] == NUM_SEGMENTS
    one = Folder(make_store(tmp_path / "one", 1))
    with pytest.raises(DataError, match="No row is left") as caught:
        write_rows(config, one, run)
    assert "the only segment of its speaker" in str(caught.value)


def test_a_store_without_codes_is_told(tmp_path, run):
    store = Folder(make_store(tmp_path / "store", 2, codes=False))
    with pytest.raises(StateError, match="codes are not all there"):
        write_rows(PairsConfig(), store, run)
