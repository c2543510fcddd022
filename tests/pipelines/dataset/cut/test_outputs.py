"""What is written: loose files and shards; packed again after a stop at any item; changed input is told."""

from __future__ import annotations

import numpy as np
import pytest

from colabkit.core.errors import ChangedError, DataError
from colabkit.io.samples.index import FILE_NAME, SampleIndex
from colabkit.pipelines.dataset.cut.outputs import WORK, NpzFolder, ShardFolder, index_columns
from colabkit.pipelines.dataset.segments.segment import Segment
from colabkit.pipelines.dataset.segments.walk import segment_rows
from tests.pipelines.dataset.segments.archives import wave_of

SETTINGS = {"a": 1, "b": None}
NAMES = ["one", "two", "none", "three", "four"]
SIZES = {"one": 3, "two": 1, "none": 0, "three": 7, "four": 2}


def segments_of(name: str) -> list[Segment]:
    return [
        Segment(
            key=f"{name}/{i}",
            wave=wave_of(hash_of(name) + i),
            rate_hz=24_000,
            speaker=f"s{i}",
            channel=name,
            text=f"«{name}» {i}",
            metadata={"source": name},
        )
        for i in range(SIZES[name])
    ]


def hash_of(name: str) -> int:
    return sum(name.encode()) * 100


def cut_into(output, names=NAMES, *, stop_after: int | None = None) -> list[str]:
    """Do what a build does; returns the recordings that had to be cut."""
    done = []
    for number, name in enumerate(names):
        if number == stop_after:
            return done
        if output.kept(name) is None:
            spool = output.spool(name)
            for segment in segments_of(name):
                spool.add(segment)
            spool.close({"name": name})
            done.append(name)
        assert output.kept(name).record == {"name": name}
        output.take(name)
    output.finish()
    return done


def contents(folder) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and WORK not in p.parts
    }


@pytest.mark.parametrize("kind", ["flac", "pcm"])
@pytest.mark.parametrize("shard_bytes", [1, 12_000, 25_000, 1 << 30])
def test_shards_hold_all_segments_in_order(tmp_path, kind, shard_bytes):
    assert cut_into(ShardFolder(tmp_path, SETTINGS, kind=kind, shard_bytes=shard_bytes)) == NAMES
    wanted = [s for name in NAMES for s in segments_of(name)]
    found = list(segment_rows(tmp_path))
    assert [s.key for s in found] == [s.key for s in wanted]
    for a, b in zip(found, wanted, strict=True):
        assert np.abs(a.wave - b.wave).max() < 2e-5
        assert (a.rate_hz, a.speaker, a.channel, a.text, a.metadata) == (
            b.rate_hz,
            b.speaker,
            b.channel,
            b.text,
            b.metadata,
        )
    names = {p.suffix for p in tmp_path.iterdir() if p.is_file()}
    assert names == {".tar", ".safetensors"}


@pytest.mark.parametrize("shard_bytes", [1, 12_000, 25_000])
@pytest.mark.parametrize("stop_after", range(len(NAMES)))
def test_stopped_after_any_recording_the_shards_are_the_same(tmp_path, shard_bytes, stop_after):
    def output(name):
        return ShardFolder(tmp_path / name, SETTINGS, shard_bytes=shard_bytes)

    cut_into(output("whole"))
    assert cut_into(output("parts"), stop_after=stop_after) == NAMES[:stop_after]
    assert cut_into(output("parts")) == NAMES[stop_after:]
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_little_more_than_a_shard_is_on_the_disk_twice(tmp_path):
    output = ShardFolder(tmp_path, SETTINGS, kind="pcm", shard_bytes=15_000)
    for name in NAMES:
        spool = output.spool(name)
        for segment in segments_of(name):
            spool.add(segment)
        spool.close({"name": name})
        output.take(name)
        left = sum(p.stat().st_size for p in (tmp_path / WORK / "spool").rglob("*.tar"))
        assert left < 15_000 + 2 * 10 * 10_000 / 2 and len(list((tmp_path / WORK / "spool").iterdir())) <= 4
    output.finish()
    assert len(SampleIndex.load(tmp_path / FILE_NAME)) == sum(SIZES.values())


def test_other_recordings_than_before_are_told(tmp_path):
    cut_into(ShardFolder(tmp_path, SETTINGS, shard_bytes=1), stop_after=4)
    for names in (NAMES[::-1], NAMES[1:], ["zero", *NAMES]):
        SIZES["zero"] = 1
        with pytest.raises(ChangedError) as caught:
            cut_into(ShardFolder(tmp_path, SETTINGS, shard_bytes=1), names)
        assert "folder" in caught.value.fix
    with pytest.raises(ChangedError, match="missing"):
        cut_into(ShardFolder(tmp_path, SETTINGS, shard_bytes=1), NAMES[:2])
    cut_into(ShardFolder(tmp_path, SETTINGS, shard_bytes=1))
    assert len(SampleIndex.load(tmp_path / FILE_NAME)) == sum(SIZES[name] for name in NAMES)


@pytest.mark.parametrize("make", [ShardFolder, NpzFolder])
def test_other_settings_are_told(tmp_path, make):
    cut_into(make(tmp_path, SETTINGS), stop_after=1)
    with pytest.raises(ChangedError, match="a=2") as caught:
        make(tmp_path, {"a": 2, "b": None})
    assert "a=1" in str(caught.value)
    make(tmp_path, SETTINGS)


def test_a_shard_that_vanished_is_told(tmp_path):
    cut_into(ShardFolder(tmp_path, SETTINGS, shard_bytes=1), stop_after=4)
    (tmp_path / "00001.tar").unlink()
    with pytest.raises(DataError, match="Cannot go on"):
        ShardFolder(tmp_path, SETTINGS, shard_bytes=1)


@pytest.mark.parametrize("make", [ShardFolder, NpzFolder])
def test_what_a_kill_left_unfinished_is_swept_away(tmp_path, make):
    cut_into(make(tmp_path, SETTINGS), stop_after=2)
    (tmp_path / "one").mkdir(exist_ok=True)
    left = [
        tmp_path / ".colabkit-00001.tar-99-abc.tmp",
        tmp_path / "one" / ".colabkit-x.npz-99-abc.tmp",
        tmp_path / WORK / "records" / ".colabkit-x.json-9-a.tmp",
    ]
    for path in left:
        path.write_bytes(b"x" * 1000)
    make(tmp_path, SETTINGS)
    assert not any(path.exists() for path in left)


def test_a_record_cut_off_by_a_crash_is_no_record(tmp_path):
    output = NpzFolder(tmp_path, SETTINGS)
    cut_into(output, stop_after=2)
    output.records.path("one").write_text('{"name": "o')
    assert cut_into(NpzFolder(tmp_path, SETTINGS)) == ["one", *NAMES[2:]]


def test_loose_files(tmp_path):
    cut_into(NpzFolder(tmp_path / "a", SETTINGS))
    assert set(contents(tmp_path / "a")) == {f"{s.key}.npz" for name in NAMES for s in segments_of(name)}
    found = {s.key: s for s in segment_rows(tmp_path / "a")}
    assert all(np.array_equal(found[s.key].wave, s.wave) for name in NAMES for s in segments_of(name))
    cut_into(NpzFolder(tmp_path / "b", SETTINGS), stop_after=2)
    assert cut_into(NpzFolder(tmp_path / "b", SETTINGS)) == NAMES[2:]
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    cut_into(NpzFolder(tmp_path / "c", SETTINGS, dtype="int16"))
    assert sum(map(len, contents(tmp_path / "c").values())) < 0.6 * sum(map(len, contents(tmp_path / "a").values()))


@pytest.mark.parametrize("key", ["../out", "/etc/x", "a/../../b", "a\0b"])
def test_names_that_lead_out_are_refused(tmp_path, key):
    spool = NpzFolder(tmp_path / "in", SETTINGS).spool("x")
    with pytest.raises(DataError):
        spool.add(Segment(key=key, wave=wave_of(), rate_hz=24_000))
    assert {p.name for p in tmp_path.iterdir()} == {"in"}


def test_columns_of_an_index():
    segment = Segment(
        key="a", wave=wave_of(), rate_hz=1, speaker="s", metadata={"x": "1", "empty": "", "speaker": "old"}
    )
    assert index_columns(segment) == {"x": "1", "speaker": "s"}
