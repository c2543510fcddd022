"""The shard writer: exact bytes, cut where asked, readable by any tar reader, with the index that a scan would give."""

from __future__ import annotations

import io
import json
import os
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile

from colabkit.core.errors import ColabkitError, DataError, UsageError
from colabkit.io.samples import Samples
from colabkit.io.samples.build import build_index
from colabkit.io.samples.index import FILE_NAME, SampleIndex
from colabkit.io.samples.shards import ShardWriter, flac_bytes, pcm_bytes
from colabkit.io.samples.source import find_source
from tests.told import Told

KEYS = [
    "anna-1",
    "with.dots.1",
    "deep/er/Zoë",
    "日本語/話者-1",
    "x" * 150,
    "é" * 120,
    " space ",
    "a",
    "a.json",
    "a.flac",
    "a.b",
]


def wave_of(number: int, seconds: float = 0.1) -> np.ndarray:
    return np.random.default_rng(number).integers(-9_000, 9_000, int(16_000 * seconds)).astype(np.int16)


def write(folder: Path, keys=KEYS, *, seconds: float = 0.1, **how) -> SampleIndex:
    with ShardWriter(folder, **how) as writer:
        for number, key in enumerate(keys):
            columns = {"speaker": f"s{number % 3}", "text": f"«{key}»"}
            writer.add(key, flac_bytes(wave_of(number, seconds), 16_000), ".flac", columns)
    return writer.index


def shards_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tar"))}


def scanned(folder: Path, parts: Path) -> SampleIndex:
    told = Told()
    index = build_index(find_source(str(folder)), parts, teller=told)
    assert told.problems == {}
    return index


def test_the_same_samples_give_the_same_bytes(tmp_path):
    first, second = (write(tmp_path / name, shard_bytes=20_000) for name in "ab")
    assert shards_of(tmp_path / "a") == shards_of(tmp_path / "b") and len(shards_of(tmp_path / "a")) > 2
    assert first.fingerprint == second.fingerprint
    saved = SampleIndex.load(tmp_path / "a" / FILE_NAME)
    assert saved.fingerprint == first.fingerprint and saved.address == ""  # the folder may be copied anywhere
    assert first.address == os.fspath((tmp_path / "a").resolve())


def test_the_index_points_at_the_audio_itself(tmp_path):
    index, shards = write(tmp_path, shard_bytes=20_000), shards_of(tmp_path)
    assert index.keys.to_list() == KEYS and [s.name for s in index.shards] == list(shards)
    for i in range(len(index)):
        at, size = int(index.arrays["offset"][i]), int(index.arrays["length"][i])
        content = shards[index.shards[index.arrays["shard"][i]].name][at : at + size]
        assert content == flac_bytes(wave_of(i), 16_000) and zlib.crc32(content) == index.arrays["crc32"][i]
        assert index.arrays["frames"][i] == len(wave_of(i)) and index.arrays["rate_hz"][i] == 16_000
    for shard in index.shards:
        assert shard.size == len(shards[shard.name]) and shard.version == f"crc32-{zlib.crc32(shards[shard.name]):08x}"


def test_the_index_for_free_is_the_one_a_scan_would_give(tmp_path):
    index = write(tmp_path / "in", shard_bytes=20_000)
    (tmp_path / "in" / FILE_NAME).unlink()
    again = scanned(tmp_path / "in", tmp_path / "parts")
    assert again.keys.to_list() == KEYS and again.columns.keys() == index.columns.keys()
    assert again.column("text") == index.column("text") and again.fingerprint == index.fingerprint
    assert all(np.array_equal(again.arrays[name], index.arrays[name]) for name in index.arrays)


def test_samples_come_back_bit_for_bit(tmp_path):
    samples = Samples(write(tmp_path, shard_bytes=20_000))
    for i in range(len(KEYS)):
        assert np.array_equal(np.round(samples.read_wave(i) * 32_768).astype(np.int16), wave_of(i))


def test_python_and_webdataset_see_what_was_written(tmp_path):
    """WebDataset groups files by what stands before the first dot of the name: keys without dots come out whole."""
    write(tmp_path, shard_bytes=20_000)
    seen = {}
    for path in sorted(tmp_path.glob("*.tar")):
        with tarfile.open(path, encoding="utf-8") as archive:
            seen |= {member.name: archive.extractfile(member).read() for member in archive}
    assert list(seen) == [key + suffix for key in KEYS for suffix in (".flac", ".json")]
    for number, key in enumerate(KEYS):
        assert json.loads(seen[key + ".json"]) == {"speaker": f"s{number % 3}", "text": f"«{key}»"}
        assert np.array_equal(soundfile.read(io.BytesIO(seen[key + ".flac"]), dtype="int16")[0], wave_of(number))


def test_the_webdataset_reader_of_datasets_sees_what_was_written(tmp_path):
    from datasets.packaged_modules.webdataset.webdataset import WebDataset

    keys = ["anna-1", "deep/er/Zoë", "日本語/話者-1", "bob-1"]
    write(tmp_path, keys)
    with tarfile.open(tmp_path / "00000.tar") as archive:
        pairs = ((member.name, archive.extractfile(member)) for member in archive)
        rows = list(WebDataset._get_pipeline_from_tar("00000.tar", pairs))
    assert [row["__key__"] for row in rows] == keys
    assert [row["json"]["text"] for row in rows] == [f"«{key}»" for key in keys]
    assert all(row["flac"] == flac_bytes(wave_of(i), 16_000) for i, row in enumerate(rows))


@pytest.mark.parametrize("shard_bytes", [1, 10_000, 30_000, 1 << 30])
def test_shards_hold_as_much_as_asked_and_a_sample_is_never_cut(tmp_path, shard_bytes):
    index = write(tmp_path, [f"k{i}" for i in range(30)], shard_bytes=shard_bytes)
    sizes = [s.size for s in index.shards]
    counts = np.bincount(index.arrays["shard"], minlength=len(sizes))
    assert counts.sum() == 30 and counts.min() >= 1 and (np.diff(index.arrays["shard"]) >= 0).all()
    assert all(size <= shard_bytes for size, count in zip(sizes, counts, strict=True) if count > 1)
    assert len(sizes) == {1: 30, 1 << 30: 1}.get(shard_bytes, len(sizes))
    if 1 < shard_bytes < 1 << 30:
        assert min(sizes[:-1]) > shard_bytes / 2


def test_a_sample_of_exactly_a_whole_number_of_blocks(tmp_path):
    contents = [flac_bytes(wave_of(n), 16_000) for n in range(3)]
    contents = [c + bytes(-len(c) % 512 + extra) for c, extra in zip(contents, (0, 1, 511), strict=True)]
    with ShardWriter(tmp_path) as writer:
        for n, content in enumerate(contents):
            writer.add(f"k{n}", content, ".flac", {})
    assert [Samples(writer.index).read_bytes(n) for n in range(3)] == contents
    assert writer.index.columns == {}
    with tarfile.open(tmp_path / "00000.tar") as archive:
        assert archive.getnames() == [f"k{n}{suffix}" for n in range(3) for suffix in (".flac", ".json")]


def test_keys_are_used_once_and_are_never_empty(tmp_path):
    audio = flac_bytes(wave_of(0), 16_000)
    with ShardWriter(tmp_path) as writer:
        writer.add("a", audio, ".flac", {})
        for key in ("a", ""):
            with pytest.raises(UsageError) as caught:
                writer.add(key, audio, ".wav", {})
            assert caught.value.fix
        writer.add("b", audio, ".flac", {})
    assert writer.index.keys.to_list() == ["a", "b"]


def test_what_is_no_audio_is_refused_and_leaves_no_trace(tmp_path):
    with ShardWriter(tmp_path / "a") as writer:
        for content in (b"", b"no audio", flac_bytes(wave_of(0), 16_000)[:20]):
            with pytest.raises(DataError):
                writer.add("broken", content, ".flac", {})
        writer.add("broken", flac_bytes(wave_of(0), 16_000), ".flac", {})
    with ShardWriter(tmp_path / "b") as other:
        other.add("broken", flac_bytes(wave_of(0), 16_000), ".flac", {})
    assert (
        shards_of(tmp_path / "a") == shards_of(tmp_path / "b") and writer.index.fingerprint == other.index.fingerprint
    )


class Boom(Exception):
    """What a test raises in the middle."""


def test_an_error_before_the_end_leaves_no_index_and_no_torn_shard(tmp_path):
    with pytest.raises(Boom), ShardWriter(tmp_path, shard_bytes=20_000) as writer:
        for number in range(20):
            writer.add(f"k{number}", flac_bytes(wave_of(number), 16_000), ".flac", {})
        raise Boom
    assert not (tmp_path / FILE_NAME).exists() and writer.index is None
    for content in shards_of(tmp_path).values():
        tarfile.open(fileobj=io.BytesIO(content)).getmembers()
    assert write(tmp_path / "other", shard_bytes=20_000).fingerprint == write(tmp_path, shard_bytes=20_000).fingerprint


def test_killed_anywhere_the_index_is_there_whole_or_not_at_all(tmp_path, killer, no_fsync):
    """Also over an older index, which must not vouch for newer shards."""
    write(tmp_path / "whole", shard_bytes=20_000)
    wanted = shards_of(tmp_path / "whole")
    for after in range(100):
        folder = tmp_path / f"killed-{after}"
        if after % 2:
            write(folder, KEYS[::-1], shard_bytes=20_000)
        with killer(folder, after) as record:
            write(folder, shard_bytes=20_000)
        left = shards_of(folder)
        if (folder / FILE_NAME).exists():
            index = SampleIndex.load(folder / FILE_NAME)
            assert [s.version for s in index.shards] == [f"crc32-{zlib.crc32(left[s.name]):08x}" for s in index.shards]
        if not record["dead"]:
            break
    assert after > 6 and shards_of(folder) == wanted and (folder / FILE_NAME).exists()


def test_no_samples_are_an_empty_index(tmp_path):
    with ShardWriter(tmp_path) as writer:
        pass
    assert len(SampleIndex.load(tmp_path / FILE_NAME)) == 0 and shards_of(tmp_path) == {} and writer.index.shards == ()


def test_closing_twice_changes_nothing(tmp_path):
    with ShardWriter(tmp_path) as writer:
        writer.add("a", flac_bytes(wave_of(0), 16_000), ".flac", {})
        first = writer.close()
    assert first.fingerprint == writer.index.fingerprint and len(shards_of(tmp_path)) == 1


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises((ColabkitError, OSError)):
        write(tmp_path / "file" / "inside")


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64])
def test_flac_is_exact_at_16_bit_and_clips_what_is_louder(dtype):
    wave = wave_of(1)
    given = wave if dtype == np.int16 else (wave / 32_768).astype(dtype)
    back, rate_hz = soundfile.read(io.BytesIO(flac_bytes(given, 8_000)), dtype="int16")
    assert np.array_equal(back, wave) and rate_hz == 8_000
    if dtype != np.int16:
        loud, _ = soundfile.read(io.BytesIO(flac_bytes(np.array([-3, -1, 0, 1, 3], dtype), 8_000)), dtype="int16")
        assert loud.tolist() == [-32_768, -32_768, 0, 32_767, 32_767]


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_pcm_is_exact_at_16_bit_and_clips_what_is_louder(dtype):
    wave = wave_of(1)
    content = pcm_bytes(wave if dtype == np.int16 else (wave / 32_768).astype(dtype), 22_050)
    back, rate_hz = soundfile.read(io.BytesIO(content), dtype="int16")
    assert np.array_equal(back, wave) and rate_hz == 22_050 and len(content) == 44 + 2 * len(wave)
    loud, _ = soundfile.read(io.BytesIO(pcm_bytes(np.array([-3.0, 3.0]), 8_000)), dtype="int16")
    assert loud.tolist() == [-32_768, 32_767]


def test_pcm_in_shards_comes_back_bit_for_bit(tmp_path):
    with ShardWriter(tmp_path, shard_bytes=20_000) as writer:
        for number, key in enumerate(KEYS):
            writer.add(
                key, pcm_bytes(wave_of(number), 16_000), ".wav", {"channel": "قناة", "start_seconds": str(number)}
            )
    samples = Samples(writer.index)
    assert all(
        np.array_equal(np.round(samples.read_wave(i) * 32_768).astype(np.int16), wave_of(i)) for i in range(len(KEYS))
    )
    assert scanned_again(tmp_path).column("start_seconds") == [str(n) for n in range(len(KEYS))]


def scanned_again(folder: Path) -> SampleIndex:
    return SampleIndex.load(folder / FILE_NAME)


@pytest.mark.parametrize("shard_bytes", [1, 10_000, 20_000])
def test_a_writer_goes_on_after_the_shards_of_another(tmp_path, shard_bytes):
    """At every sample: what the first wrote is kept, the second writes the rest, and all is as if written at once."""
    wanted = write(tmp_path / "whole", shard_bytes=shard_bytes)
    samples = [
        (key, flac_bytes(wave_of(n), 16_000), {"speaker": f"s{n % 3}", "text": f"«{key}»"})
        for n, key in enumerate(KEYS)
    ]
    for stop in range(len(KEYS) + 1):
        folder, begun, done = tmp_path / f"stop-{stop}", [], 0
        first = ShardWriter(folder, shard_bytes=shard_bytes)
        for number in range(stop):
            shards = len(first.shards)
            first.add(samples[number][0], samples[number][1], ".flac", samples[number][2])
            if len(first.shards) > shards:
                part = first.finished(shards)
                begun.append(SampleIndex.from_bytes(part.to_bytes(), "part"))
                done = number
        with ShardWriter(folder, shard_bytes=shard_bytes, begun=begun) as second:
            for key, audio, columns in samples[done:]:
                second.add(key, audio, ".flac", columns)
        assert shards_of(folder) == shards_of(tmp_path / "whole") and second.index.fingerprint == wanted.fingerprint
        assert scanned_again(folder).keys.to_list() == KEYS


def test_going_on_wants_the_shards_whole_and_knows_their_keys(tmp_path):
    index = write(tmp_path, shard_bytes=10_000)
    parts = [index.take(index.arrays["shard"] == 0)]
    begun = [SampleIndex("", index.shards[:1], parts[0].keys, parts[0].arrays, parts[0].columns)]
    with ShardWriter(tmp_path, shard_bytes=10_000, begun=begun) as writer:
        with pytest.raises(UsageError):
            writer.add(KEYS[0], flac_bytes(wave_of(0), 16_000), ".flac", {})
    assert len(shards_of(tmp_path)) == 1 and len(writer.index) == len(begun[0])
    for spoil in (lambda p: p.write_bytes(p.read_bytes()[:-1]), Path.unlink):
        spoil(tmp_path / "00000.tar")
        with pytest.raises(DataError) as caught:
            ShardWriter(tmp_path, begun=begun)
        assert "00000.tar" in str(caught.value) and caught.value.fix
