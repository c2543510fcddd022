"""Items to encode: segments as columns, from the listing of a source, its upload manifest and its shard indexes."""

from __future__ import annotations

import pytest

from colabkit.core.errors import ChangedError, DataError
from colabkit.io.samples.index import FILE_NAME
from colabkit.io.samples.shards import ShardWriter, flac_bytes
from colabkit.io.transfer.manifest import make_manifest, write_manifest
from colabkit.pipelines.dataset.store.items import choose_items, read_source
from tests.pipelines.dataset.encode.memory_objects import MemoryObjects
from tests.pipelines.dataset.encode.small_codec import make_wave


def nothing(item: str, reason: str) -> None:
    raise AssertionError((item, reason))


def test_a_source_is_listed_or_told_by_its_upload_or_by_its_shards(tmp_path):
    store = MemoryObjects()
    for name in ("b/2.npz", "a/1.npz", "notes.txt", "a/0.wav"):
        store.put(name, name.encode())
    found, mark = read_source(store, problem=nothing)
    assert found.keys == ["a/0", "a/1", "b/2"] and mark == "" and found.is_whole.all() and (found.crc32 == -1).all()
    rows = [("b/2.npz", 7, "v1", 5), ("a/1.npz", 7, "v2", 6)]
    write_manifest(
        store,
        None,
        make_manifest([r[0] for r in rows], [r[1] for r in rows], [0, 0], [r[3] for r in rows], [r[2] for r in rows]),
    )
    store.counts.clear()
    found, mark = read_source(store, problem=nothing)
    assert (
        found.objects == ["a/1.npz", "b/2.npz"]
        and found.crc32.tolist() == [6, 5]
        and mark
        and sum(store.counts.values()) == 1
    )
    assert read_source(store, listed=True, problem=nothing)[0].keys == ["a/0", "a/1", "b/2"]

    with ShardWriter(tmp_path, shard_bytes=20_000) as writer:
        for i in range(10):
            writer.add(
                f"seg-{i}", flac_bytes(make_wave(i, 4000), 16_000), ".flac", {"channel": f"c{i % 2}", "speaker": "s"}
            )
    shards = MemoryObjects()
    for path in tmp_path.iterdir():
        shards.put(f"more/{path.name}", path.read_bytes())
    found, _ = read_source(shards, problem=nothing)
    assert found.keys == [f"more/seg-{i}" for i in range(10)] and found.seconds == pytest.approx(2.5)
    assert len(set(found.objects)) > 2 and not found.is_whole.any() and '"channel": "c0"' in found.columns[0]
    assert len(choose_items(found, ("c1",), 3, "")) == 3
    shards.put("more/00001.tar", b"cut")
    with pytest.raises(ChangedError, match="index of the shards does not fit"):
        read_source(shards, problem=nothing)
    del shards.content[f"more/{FILE_NAME}"]
    with pytest.raises(DataError, match="nothing to encode"):
        read_source(shards, problem=nothing)


def test_two_segments_of_one_name_are_told():
    store, told = MemoryObjects(), {}
    store.put("a.npz", b"")
    store.put("a.wav", b"")
    found, _ = read_source(store, problem=told.__setitem__)
    assert found.objects == ["a.npz"] and list(told) == ["a.wav (a)"]
