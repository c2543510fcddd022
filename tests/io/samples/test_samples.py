"""Single samples through an index: exact, of any format, checked; a byte that flips once is forgiven, twice is told."""

from __future__ import annotations

import io
import os
import pickle
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from colabkit.core.errors import BrokenSampleError, DataError, UsageError
from colabkit.io.audio import read_audio
from colabkit.io.places import Folder, Pinned
from colabkit.io.places.cache import Cached
from colabkit.io.samples import Samples, open_samples
from colabkit.io.samples.build import build_index
from colabkit.io.samples.index import Entry, SampleIndex, Shard
from colabkit.io.samples.shards import ShardWriter
from colabkit.io.samples.source import find_source
from tests.told import Told

KINDS = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "ogg": ("OGG", "VORBIS"),
}


def audio(
    kind: str = "flac", *, seconds: float = 0.5, rate_hz: int = 16_000, channels: int = 1, seed: int = 0
) -> bytes:
    rng, buffer = np.random.default_rng(seed), io.BytesIO()
    wave = np.cumsum(rng.standard_normal((int(seconds * rate_hz), channels)), axis=0)
    container, subtype = KINDS[kind]
    soundfile.write(buffer, 0.5 * wave / np.abs(wave).max(), rate_hz, format=container, subtype=subtype)
    return buffer.getvalue()


class Wrapped:
    """A folder as a store that keeps what was read, and changes contents or raises as it is told."""

    def __init__(self, folder, change=None):
        self.store, self.change, self.reads = Pinned(Folder(folder)), change, []
        self.address = self.store.address

    def read(self, name, start=0, stop=None):
        self.reads.append((name, start, stop))
        content = self.store.read(name, start, stop)
        return self.change(len(self.reads), content) if self.change else content

    def list(self):
        return self.store.list()

    def close(self):
        self.store.close()


def flipped(content: bytes, place: int | None = None) -> bytes:
    place = len(content) // 2 if place is None else place
    return content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :]


def tar(folder: Path, audios: dict[str, bytes]) -> SampleIndex:
    with ShardWriter(folder) as writer:
        for name, content in audios.items():
            writer.add(*os.path.splitext(name)[:1], content, os.path.splitext(name)[1], {})
    return writer.index


def parquet(folder: Path, audios: list[bytes], **how) -> SampleIndex:
    rows = pa.array(
        [{"bytes": a, "path": "x"} for a in audios], pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    )
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table({"audio": rows}), folder / "0.parquet", **how)
    told = Told()
    index = build_index(find_source(str(folder)), folder / ".parts", teller=told)
    assert told.problems == {} and len(index) == len(audios)
    return index


@pytest.mark.parametrize("kind", KINDS)
def test_waves_are_what_decoding_the_file_gives(kind, tmp_path):
    audios = [
        audio(kind, seed=i, rate_hz=rate, channels=channels, seconds=0.3 + 0.1 * i)
        for i, (rate, channels) in enumerate([(16_000, 1), (44_100, 2), (8_000, 1)])
    ]
    for samples in (
        Samples(tar(tmp_path / "tar", {f"{i}.{kind}": a for i, a in enumerate(audios)})),
        Samples(parquet(tmp_path / "parquet", audios, compression="zstd")),
    ):
        for i, content in enumerate(audios):
            assert samples.read_bytes(i) == content
            for rate_hz in (16_000, 24_000):
                assert np.array_equal(samples.read_wave(i, rate_hz=rate_hz), read_audio(content, rate_hz=rate_hz))


@pytest.mark.parametrize("codec", ["none", "snappy", "zstd", "gzip", "lz4", "brotli"])
def test_every_compression_of_parquet_reads_back(codec, tmp_path):
    audios = [audio(seed=i) for i in range(4)] + [audio("wav", seed=9, seconds=5.0)]
    samples = Samples(parquet(tmp_path, audios, compression=codec, row_group_size=3))
    assert [samples.read_bytes(i) for i in (4, 1, 3, 0, 2, 4)] == [audios[i] for i in (4, 1, 3, 0, 2, 4)]


def test_only_the_samples_own_bytes_are_read(tmp_path):
    index = tar(tmp_path, {f"{i}.wav": audio("wav", seed=i) for i in range(5)})
    store = Wrapped(tmp_path)
    Samples(index, store).read_wave(3)
    start = int(index.arrays["offset"][3])
    assert store.reads == [("00000.tar", start, start + len(audio("wav", seed=3)))]


def test_a_wrong_checksum_is_read_once_more_and_then_told(tmp_path):
    index = tar(tmp_path, {"Zoë.flac": audio(), "b.flac": audio(seed=1)})
    store = Wrapped(tmp_path, lambda count, content: flipped(content))
    for read in (Samples(index, store).read_bytes, Samples(index, store).read_wave):
        store.reads.clear()
        with pytest.raises(BrokenSampleError) as caught:
            read(0)
        assert len(store.reads) == 2 and "Zoë in 00000.tar of " in caught.value.where and caught.value.fix
        assert caught.value.expected in str(caught.value) and f"{zlib.crc32(audio()):08x}" in caught.value.expected


@pytest.mark.parametrize(
    "make",
    [
        lambda f: tar(f, {"a.flac": audio()}),
        lambda f: parquet(f, [audio()], compression="none"),
        lambda f: parquet(f, [audio()], compression="snappy"),
        lambda f: parquet(f, [audio()], compression="zstd"),
        lambda f: parquet(f, [audio()], compression="lz4"),
    ],
    ids=["tar", "plain", "snappy", "zstd", "lz4"],
)
@pytest.mark.parametrize("place", [0, 3, None, -1])
def test_a_byte_that_turns_over_once_is_forgiven_whatever_it_hits(tmp_path, make, place):
    """In a compressed page it may keep the page from coming out at all: that is no other fault."""
    index = make(tmp_path)
    once = Wrapped(
        tmp_path, lambda count, content: flipped(content, place and place % len(content)) if count == 1 else content
    )
    assert Samples(index, once).read_bytes(0) == audio()
    always = Wrapped(tmp_path, lambda count, content: flipped(content, place and place % len(content)))
    try:
        assert Samples(index, always).read_bytes(0) == audio()  # it was a byte before the sample's first
    except BrokenSampleError as error:
        assert "in 0" in error.where and error.fix and len(always.reads) == 2


def test_a_cached_range_that_is_wrong_is_fetched_anew(tmp_path):
    index = tar(tmp_path / "data", {"a.flac": audio()})
    far = Wrapped(tmp_path / "data", lambda count, content: flipped(content) if count == 1 else content)
    samples = Samples(index, Cached(far, tmp_path / "cache", 1 << 20))
    assert samples.read_bytes(0) == audio() == samples.read_bytes(0) and len(far.reads) == 2


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_source_that_does_not_answer_is_no_broken_sample(tmp_path, compression):
    index = parquet(tmp_path, [audio()], compression=compression)

    def fail(count, content):
        raise DataError("the network is down", fix="wait")

    for read in (Samples(index, Wrapped(tmp_path, fail)).read_bytes, Samples(index, Wrapped(tmp_path, fail)).read_wave):
        with pytest.raises(DataError, match="the network is down") as caught:
            read(0)
        assert not isinstance(caught.value, BrokenSampleError)


def test_audio_that_does_not_decode_is_a_broken_sample_with_its_name(tmp_path):
    content = b"RIFF" + bytes(400)
    (tmp_path / "x.wav").write_bytes(content)
    entry = Entry(
        key="x.wav",
        shard=0,
        offset=0,
        length=len(content),
        frames=100,
        rate_hz=16_000,
        crc32=zlib.crc32(content),
        columns={},
    )
    samples = Samples(SampleIndex.of(str(tmp_path), [Shard("x.wav", len(content), "")], [entry]))
    with pytest.raises(BrokenSampleError) as caught:
        samples.read_wave(0)
    assert caught.value.where == f"x.wav in x.wav of {tmp_path}" and caught.value.fix
    with pytest.raises(UsageError):
        samples.read_wave(0, rate_hz=0)


def test_many_threads_read_at_once(tmp_path):
    samples = Samples(parquet(tmp_path, [audio(seed=i, seconds=0.1) for i in range(20)], compression="snappy"))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(samples.read_bytes, list(range(20)) * 5))
    assert found == [audio(seed=i, seconds=0.1) for i in range(20)] * 5


def test_samples_go_to_other_processes(tmp_path):
    samples = Samples(tar(tmp_path, {"a.flac": audio(), "b.flac": audio(seed=1)}))
    samples.read_wave(0)
    again = pickle.loads(pickle.dumps(samples))
    assert (
        np.array_equal(again.read_wave(1), samples.read_wave(1))
        and again.index.fingerprint == samples.index.fingerprint
    )
    error = pickle.loads(pickle.dumps(BrokenSampleError("x", where=samples.name_of(0), fix="y")))
    assert error.where == samples.name_of(0)


def test_a_folder_needs_no_cache_and_a_missing_one_is_told(tmp_path):
    index = tar(tmp_path / "data", {"a.flac": audio()})
    samples = open_samples(index, tmp_path / "cache", 1.0)
    assert samples.read_bytes(0) == audio() and samples.store.is_folder and not (tmp_path / "cache").exists()
    index.address = str(tmp_path / "moved")
    with pytest.raises(UsageError):
        open_samples(index, tmp_path / "cache", 0.0)


def test_a_shard_that_vanished_or_shrank_is_told_and_stops(tmp_path):
    index = tar(tmp_path, {"a.flac": audio(), "b.flac": audio(seed=1)})
    (tmp_path / "00000.tar").write_bytes((tmp_path / "00000.tar").read_bytes()[:3_000])
    for _ in range(2):
        with pytest.raises(DataError) as caught:
            Samples(index).read_wave(1)
        assert "00000.tar" in str(caught.value.where) and not isinstance(caught.value, BrokenSampleError)
        (tmp_path / "00000.tar").unlink(missing_ok=True)
