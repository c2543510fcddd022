"""The plan is a function of the listing and the settings, is written once, and grows without touching what is done."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from colabkit.core.errors import ChangedError, DataError, UsageError
from colabkit.io.samples.index import FILE_NAME
from colabkit.io.samples.shards import ShardWriter, flac_bytes
from colabkit.io.transfer.manifest import make_manifest, write_manifest
from colabkit.pipelines.dataset.encode import pieces
from colabkit.pipelines.dataset.store.items import Items, choose_items, read_source
from tests.pipelines.dataset.encode.memory_objects import MemoryObjects
from tests.pipelines.dataset.encode.small_codec import make_wave


def items(names, size: int = 100, version: str = "1") -> Items:
    names = sorted(names)
    return Items.whole(names, [size] * len(names), [version] * len(names))


def names(channel: str, number: int) -> list[str]:
    return [f"{channel}/{i:04d}.npz" for i in range(number)]


def nothing(item: str, reason: str) -> None:
    raise AssertionError((item, reason))


@pytest.mark.parametrize("seed", range(20))
def test_pieces_hold_all_in_order_and_no_more_than_their_bytes(seed):
    rng = np.random.default_rng(seed)
    lengths, most = rng.integers(1, 300, 200), int(rng.choice([1, 100, 299, 5000, 10**9]))
    bounds = pieces.cut(lengths, most)
    assert bounds[-1] == 200 and list(bounds) == sorted(set(bounds))
    for start, stop in zip((0, *bounds), bounds, strict=False):
        assert stop - start == 1 or lengths[start:stop].sum() <= most
        assert stop == 200 or lengths[start: stop + 1].sum() > most or stop - start == 1 and lengths[start] > most


def test_it_comes_back_as_it_was_put():
    store = MemoryObjects()
    made = pieces.make_plan(items(names("a", 50)), store, {"codec": "x"}, 1000)
    again = pieces.make_plan(items(names("a", 50)), store, {"codec": "x"}, 1000)
    assert [p.id for p in made.pieces] == [p.id for p in again.pieces] and len(made.pieces) == 5
    assert list(made.items.places()) == list(again.items.places()) and made.digest == again.digest
    assert store.puts == {"codes/plan/00000.parquet": 1}
    assert [made.inputs_hash(p, "x") for p in made.pieces] == [again.inputs_hash(p, "x") for p in again.pieces]
    assert made.inputs_hash(made.pieces[0], "y") != made.inputs_hash(made.pieces[0], "x") != made.inputs_hash(made.pieces[1], "x")


def test_what_comes_later_is_a_generation_of_its_own():
    store = MemoryObjects()
    first = pieces.make_plan(items(names("a", 20)), store, {}, 1000)
    both = pieces.make_plan(items(names("a", 20) + names("A", 15)), store, {}, 500)
    assert [p.id for p in both.pieces] == ["00000-00000", "00000-00001", "00001-00000", "00001-00001", "00001-00002"]
    assert both.items.keys[:20] == first.items.keys and both.digest == first.digest
    assert both.inputs_hash(both.pieces[0], "x") == first.inputs_hash(first.pieces[0], "x")
    changed = pieces.make_plan(items(names("a", 20)[:3], version="2"), store, {}, 500)
    assert changed.items.keys[35:] == ["a/0000", "a/0001", "a/0002"]
    assert [p.id for p in both.pieces_of(items(names("A", 1)))] == ["00001-00000"]


def test_many_workers_plan_the_same():
    store, found = MemoryObjects(), []
    start = threading.Barrier(8)

    def work(i):
        start.wait()
        found.append([p.id for p in pieces.make_plan(items(names("a", 50 + 10 * (i % 2))), store, {}, 1000).pieces])
    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    last = pieces.make_plan(items(names("a", 60)), store, {}, 1000)
    assert sorted(last.items.keys) == sorted(items(names("a", 60)).keys)
    assert all(ids == [p.id for p in last.pieces][:len(ids)] for ids in found)
    assert all(count == 1 for count in store.puts.values()) and len(store.puts) <= 2


def test_other_settings_and_damage_are_told():
    store = MemoryObjects()
    pieces.make_plan(items(names("a", 5)), store, {"codec": "x"}, 1000)
    with pytest.raises(ChangedError, match="codec='x'"):
        pieces.make_plan(items(names("a", 5)), store, {"codec": "y"}, 1000)
    content, version = store.content["codes/plan/00000.parquet"]
    store.content["codes/plan/00000.parquet"] = content[:-50], version
    with pytest.raises(DataError, match="plan in the store is damaged"):
        pieces.make_plan(items(names("a", 5)), store, {"codec": "x"}, 1000)


def test_a_real_sized_plan_takes_seconds():
    number = 656_300
    rng = np.random.default_rng(0)
    every = Items.whole([f"channel{i // 218_767}/{i:07d}.npz" for i in range(number)], rng.integers(5e4, 6.2e5, number),
                        [f"{v:032x}" for v in rng.integers(0, 2**62, number).tolist()])
    store, began = MemoryObjects(), time.monotonic()
    made = pieces.make_plan(every, store, {}, 256 << 20)
    assert 800 < len(made.pieces) < 900 and len(store.content["codes/plan/00000.parquet"][0]) < 32 << 20
    assert len(pieces.make_plan(every, store, {}, 256 << 20).pieces) == len(made.pieces)
    assert time.monotonic() - began < 30  # 3 s on two quiet cores


def test_a_source_is_listed_or_told_by_its_upload_or_by_its_shards(tmp_path):
    store = MemoryObjects()
    for name in ("b/2.npz", "a/1.npz", "notes.txt", "a/0.wav"):
        store.put(name, name.encode())
    found, mark = read_source(store, problem=nothing)
    assert found.keys == ["a/0", "a/1", "b/2"] and mark == "" and found.is_whole.all() and (found.crc32 == -1).all()
    rows = [("b/2.npz", 7, "v1", 5), ("a/1.npz", 7, "v2", 6)]
    write_manifest(store, None, make_manifest([r[0] for r in rows], [r[1] for r in rows], [0, 0], [r[3] for r in rows],
                                              [r[2] for r in rows]))
    store.counts.clear()
    found, mark = read_source(store, problem=nothing)
    assert found.objects == ["a/1.npz", "b/2.npz"] and found.crc32.tolist() == [6, 5] and mark and sum(store.counts.values()) == 1
    assert read_source(store, listed=True, problem=nothing)[0].keys == ["a/0", "a/1", "b/2"]

    with ShardWriter(tmp_path, shard_bytes=20_000) as writer:
        for i in range(10):
            writer.add(f"seg-{i}", flac_bytes(make_wave(i, 4000), 16_000), ".flac", {"channel": f"c{i % 2}", "speaker": "s"})
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


def test_channels_are_folders_or_how_names_begin():
    every = items(["Atheer/1.npz", "Atheer_2.npz", "Atheer-3.npz", "AtheerTV/4.npz", "AtheerTV_5.npz", "other/Atheer_6.npz"])
    assert choose_items(every, ("Atheer",), None, "").objects == ["Atheer-3.npz", "Atheer/1.npz", "Atheer_2.npz"]
    assert choose_items(every, ("AtheerTV", "Atheer"), 4, "").objects == [
        "Atheer-3.npz", "Atheer/1.npz", "AtheerTV/4.npz", "AtheerTV_5.npz"]
    with pytest.raises(UsageError, match="one of Atheer, AtheerTV, other"):
        choose_items(every, ("Ather",), None, "")
