"""The plan is a function of the listing and the settings, is written once, and grows without touching what is done."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from colabkit.core.errors import ChangedError, DataError, UsageError
from colabkit.pipelines.dataset.encode import pieces
from colabkit.pipelines.dataset.store.items import Items, choose_items
from tests.pipelines.dataset.encode.memory_objects import MemoryObjects


def items(names, size: int = 100, version: str = "1") -> Items:
    names = sorted(names)
    return Items.whole(names, [size] * len(names), [version] * len(names))


def names(channel: str, number: int) -> list[str]:
    return [f"{channel}/{i:04d}.npz" for i in range(number)]


@pytest.mark.parametrize("seed", range(20))
def test_pieces_hold_all_in_order_and_no_more_than_their_bytes(seed):
    rng = np.random.default_rng(seed)
    lengths, most = rng.integers(1, 300, 200), int(rng.choice([1, 100, 299, 5000, 10**9]))
    bounds = pieces.cut(lengths, most)
    assert bounds[-1] == 200 and list(bounds) == sorted(set(bounds))
    for start, stop in zip((0, *bounds), bounds, strict=False):
        assert stop - start == 1 or lengths[start:stop].sum() <= most
        assert stop == 200 or lengths[start : stop + 1].sum() > most or stop - start == 1 and lengths[start] > most


def test_it_comes_back_as_it_was_put():
    store = MemoryObjects()
    made = pieces.make_plan(items(names("a", 50)), store, {"codec": "x"}, 1000)
    again = pieces.make_plan(items(names("a", 50)), store, {"codec": "x"}, 1000)
    assert [p.id for p in made.pieces] == [p.id for p in again.pieces] and len(made.pieces) == 5
    assert list(made.items.places()) == list(again.items.places()) and made.digest == again.digest
    assert store.puts == {"codes/plan/00000.parquet": 1}
    assert [made.inputs_hash(p, "x") for p in made.pieces] == [again.inputs_hash(p, "x") for p in again.pieces]
    assert (
        made.inputs_hash(made.pieces[0], "y")
        != made.inputs_hash(made.pieces[0], "x")
        != made.inputs_hash(made.pieces[1], "x")
    )


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
    assert all(ids == [p.id for p in last.pieces][: len(ids)] for ids in found)
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
    every = Items.whole(
        [f"channel{i // 218_767}/{i:07d}.npz" for i in range(number)],
        rng.integers(5e4, 6.2e5, number),
        [f"{v:032x}" for v in rng.integers(0, 2**62, number).tolist()],
    )
    store, began = MemoryObjects(), time.monotonic()
    made = pieces.make_plan(every, store, {}, 256 << 20)
    assert 800 < len(made.pieces) < 900 and len(store.content["codes/plan/00000.parquet"][0]) < 32 << 20
    assert len(pieces.make_plan(every, store, {}, 256 << 20).pieces) == len(made.pieces)
    assert time.monotonic() - began < 30  # 3 s on two quiet cores


def test_channels_are_folders_or_how_names_begin():
    every = items(
        ["Atheer/1.npz", "Atheer_2.npz", "Atheer-3.npz", "AtheerTV/4.npz", "AtheerTV_5.npz", "other/Atheer_6.npz"]
    )
    assert choose_items(every, ("Atheer",), None, "").objects == ["Atheer-3.npz", "Atheer/1.npz", "Atheer_2.npz"]
    assert choose_items(every, ("AtheerTV", "Atheer"), 4, "").objects == [
        "Atheer-3.npz",
        "Atheer/1.npz",
        "AtheerTV/4.npz",
        "AtheerTV_5.npz",
    ]
    with pytest.raises(UsageError, match="one of Atheer, AtheerTV, other"):
        choose_items(every, ("Ather",), None, "")
