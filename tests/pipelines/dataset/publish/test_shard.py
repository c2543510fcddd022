"""One shard: audio files as they are or as FLAC, codes in shape, faults left out, the same bytes again, a full disk."""

from __future__ import annotations

import errno
import hashlib
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from colabkit.core.errors import StateError
from colabkit.io.places import Folder
from colabkit.io.samples.shards import flac_bytes, pcm_bytes
from colabkit.pipelines.dataset.publish import shard
from colabkit.pipelines.dataset.publish.layout import PublishSettings, make_plan
from colabkit.pipelines.dataset.publish.shard import make_shard
from colabkit.pipelines.dataset.publish.table import Rows, open_rows
from tests.pipelines.dataset.publish.sets import FACTS, decode, make_segment, make_store
from tests.told import Told


def make(place, rows, segments, settings, **how):
    told, plan = Told(**how), make_plan(rows, settings)
    made = make_shard(place, plan.shards[0], rows, segments, plan, settings, told)
    return made, told.left_aside, plan


@pytest.mark.parametrize("audio_format, kinds", [("flac", {".flac"}), ("as_is", {".flac", ".wav"})])
def test_audio_files_stay_or_become_flac(tmp_path, audio_format, kinds):
    wave = make_segment(0).wave
    (tmp_path / "a.flac").write_bytes(flac_bytes(wave, 16_000))
    (tmp_path / "b.wav").write_bytes(pcm_bytes(wave, 16_000))
    settings = PublishSettings(split_by="none", audio_format=audio_format)
    made, problems, _ = make(
        tmp_path / "x.parquet", open_rows(Folder(tmp_path), None, tmp_path), Folder(tmp_path), settings
    )
    rows = pq.read_table(tmp_path / "x.parquet").to_pylist()
    assert not problems and made.num_rows == 2
    assert {row["audio"]["path"].partition(".")[2] for row in rows} == {kind[1:] for kind in kinds}
    assert rows[0]["audio"]["bytes"] == (tmp_path / "a.flac").read_bytes()  # never encoded again
    if audio_format == "as_is":
        assert rows[1]["audio"]["bytes"] == (tmp_path / "b.wav").read_bytes()
    else:
        assert np.array_equal(decode(rows[1]["audio"]["bytes"]), decode((tmp_path / "b.wav").read_bytes()))
    assert all(row["rate_hz"] == 16_000 and row["seconds"] == pytest.approx(len(wave) / 16_000) for row in rows)


def test_the_same_plan_gives_the_same_bytes_in_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(shard, "ROW_GROUP_BYTES", 40_000)
    store = make_store(tmp_path / "store", 30, layout="tar", num_codebooks=3)
    rows, segments = open_rows(None, Folder(store), tmp_path), Folder(store / "segments")
    sums = []
    for number in range(2):
        made, _, plan = make(tmp_path / f"{number}.parquet", rows, segments, PublishSettings(split_by="none"))
        sums.append(hashlib.sha256((tmp_path / f"{number}.parquet").read_bytes()).hexdigest())
    file = pq.ParquetFile(tmp_path / "0.parquet")
    assert sums[0] == sums[1] and file.num_row_groups > 5 and made.num_rows == 30
    assert (tmp_path / "0.parquet").stat().st_size <= plan.shards[0].most_bytes
    assert all(len(codes) == 3 for codes in file.read()["codes"].to_pylist())


def test_codes_that_are_cut_and_rates_that_differ_are_left_out(tmp_path):
    store = make_store(tmp_path / "store", 6)
    rows = open_rows(None, Folder(store), tmp_path)
    table = rows.table.combine_chunks()
    frames, rates = table["num_frames"].to_numpy().copy(), table["rate_hz"].to_numpy().copy()
    frames[1] += 1
    rates[2] = 24_000
    table = table.set_column(table.column_names.index("num_frames"), "num_frames", pa.array(frames))
    table = table.set_column(table.column_names.index("rate_hz"), "rate_hz", pa.array(rates))
    made, problems, _ = make(
        tmp_path / "x.parquet", Rows(table, FACTS), Folder(store / "segments"), PublishSettings(split_by="none")
    )
    assert made.num_rows == 4 and made.left_out == {"its codes are not whole": 1, "its rate is not what was encoded": 1}
    assert len(problems) == 2 and "16000 Hz" in str(problems)


def test_a_shard_of_nothing_is_still_a_file_that_loads(tmp_path):
    store = make_store(tmp_path / "store", 3)
    for path in (store / "segments").rglob("*.npz"):
        path.unlink()
    made, _, _ = make(
        tmp_path / "x.parquet",
        open_rows(None, Folder(store), tmp_path),
        Folder(store / "segments"),
        PublishSettings(split_by="none"),
    )
    assert (
        made.num_rows == 0 and sum(made.left_out.values()) == 3 and pq.read_table(tmp_path / "x.parquet").num_rows == 0
    )


def test_no_audio_a_stop_and_a_full_disk(tmp_path, monkeypatch):
    store = make_store(tmp_path / "store", 6)
    rows, segments = open_rows(None, Folder(store), tmp_path), Folder(store / "segments")
    settings = PublishSettings(split_by="none")
    with pytest.raises(StateError, match="no audio"):
        make(tmp_path / "x.parquet", rows, None, settings)
    assert make(tmp_path / "x.parquet", rows, segments, settings, stop=lambda: True)[0] is None
    made, _, _ = make(tmp_path / "y.parquet", rows, None, replace(settings, with_audio=False))
    table = pq.read_table(tmp_path / "y.parquet")
    assert made.num_rows == 6 and "audio" not in table.column_names and np.asarray(table["codes"][0].as_py()).ndim == 1

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(StateError, match="full"):
        make(tmp_path / "x.parquet", rows, segments, settings)
