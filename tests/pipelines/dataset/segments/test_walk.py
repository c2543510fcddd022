"""All segments of a place in order: loose files, shards; broken ones told; few reads."""

from __future__ import annotations

import numpy as np
import pytest

from colabkit.core.errors import DataError
from colabkit.io.places import Folder
from colabkit.io.samples.index import FILE_NAME
from colabkit.io.samples.shards import ShardWriter, flac_bytes, pcm_bytes
from colabkit.pipelines.dataset.segments import walk
from colabkit.pipelines.dataset.segments.npz import write_npz
from colabkit.pipelines.dataset.segments.segment import Segment
from colabkit.pipelines.dataset.segments.walk import look, segment_rows
from tests.pipelines.dataset.segments.archives import pickled, savez, wave_of

KEYS = ["a/1", "a/2.5", "日本/話者", "قناة/١", "z"]


def loose(folder, keys=KEYS):
    for number, key in enumerate(keys):
        path = folder / f"{key}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(write_npz(Segment(key=key, wave=wave_of(number), rate_hz=24_000, text=f"«{key}»")))


def shards(folder, encode=flac_bytes, suffix=".flac", keys=KEYS, **how):
    with ShardWriter(folder, **how) as writer:
        for number, key in enumerate(keys):
            writer.add(
                key, encode(wave_of(number), 24_000), suffix, {"text": f"«{key}»", "speaker": "s", "x": str(number)}
            )


class Counted(Folder):
    """A folder that counts what is read."""

    def __init__(self, folder):
        super().__init__(folder)
        self.gets = []

    def get(self, name, start=0, stop=None, *, version=""):
        self.gets.append(name)
        return super().get(name, start, stop, version=version)


@pytest.mark.parametrize("workers", [0, 3])
def test_loose_files_come_in_the_order_of_their_names(tmp_path, workers):
    loose(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    found = list(segment_rows(tmp_path, workers=workers))
    assert [s.key for s in found] == sorted(KEYS) and all(s.text == f"«{s.key}»" for s in found)
    assert np.array_equal(found[0].wave, wave_of(0))


@pytest.mark.parametrize(("encode", "suffix"), [(flac_bytes, ".flac"), (pcm_bytes, ".wav")])
@pytest.mark.parametrize("group_bytes", [1, 8_000, 1 << 20])
def test_shards_come_in_the_order_of_the_index(tmp_path, monkeypatch, encode, suffix, group_bytes):
    shards(tmp_path, encode, suffix, shard_bytes=15_000)
    monkeypatch.setattr(walk, "_GROUP_BYTES", group_bytes)
    objects = Counted(tmp_path)
    found = list(segment_rows(objects))
    assert [s.key for s in found] == KEYS and [s.metadata["x"] for s in found] == list("01234")
    assert all(np.abs(s.wave - wave_of(i)).max() < 2e-5 and s.speaker == "s" for i, s in enumerate(found))
    assert len(objects.gets) - 1 == {1: 5, 1 << 20: len(list(tmp_path.glob("*.tar")))}.get(
        group_bytes, len(objects.gets) - 1
    )


def test_broken_ones_are_told_or_raised(tmp_path):
    loose(tmp_path)
    (tmp_path / "b.npz").write_bytes(pickled())
    (tmp_path / "c.npz").write_bytes(b"")
    (tmp_path / "d.npz").write_bytes(savez(audio=wave_of()))
    told = {}
    assert [s.key for s in segment_rows(tmp_path, problem=told.__setitem__)] == sorted(KEYS)
    assert set(told) == {"b.npz", "c.npz", "d.npz"} and "pickled" in told["b.npz"]
    with pytest.raises(DataError, match="pickled"):
        list(segment_rows(tmp_path))
    told.clear()
    assert "d" in [s.key for s in segment_rows(tmp_path, problem=told.__setitem__, default_rate_hz=8_000)]


def test_a_flipped_bit_in_a_shard_is_told(tmp_path):
    shards(tmp_path)
    path = tmp_path / "00000.tar"
    content = bytearray(path.read_bytes())
    content[2_000] ^= 1
    path.write_bytes(content)
    told = {}
    assert len(list(segment_rows(tmp_path, problem=told.__setitem__))) == 4 and "checksum" in str(told)


def test_a_cut_shard_and_shards_without_an_index_are_told(tmp_path):
    shards(tmp_path)
    path = tmp_path / "00000.tar"
    whole = path.read_bytes()
    path.write_bytes(whole[:-512])
    with pytest.raises(DataError, match="not what the index"):
        list(segment_rows(tmp_path))
    path.write_bytes(whole)
    (tmp_path / FILE_NAME).unlink()
    with pytest.raises(DataError, match="without their index"):
        list(segment_rows(tmp_path))
    path.unlink()
    with pytest.raises(DataError, match="no segments"):
        list(segment_rows(tmp_path))


def test_leaving_in_the_middle_ends_the_reading(tmp_path):
    loose(tmp_path, [f"{n:03d}" for n in range(100)])
    objects = Counted(tmp_path)
    found = segment_rows(objects, workers=2)
    assert next(found).key == "000"
    found.close()
    assert len(objects.gets) < 30
    assert look(objects)[0] is None
