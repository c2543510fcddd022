"""Segments come whole and once, neighbours by one read; what is broken or changed is told and left aside."""

from __future__ import annotations

import io
import threading
import zlib

import numpy as np

from colabkit.pipelines.dataset.encode.fetch import Fetcher
from colabkit.pipelines.dataset.encode.spool import Spool
from colabkit.pipelines.dataset.store.items import Items
from tests.pipelines.dataset.encode.memory_objects import MemoryObjects
from tests.pipelines.dataset.encode.small_codec import SmallCodec, codes_for, fill, make_wave, npz_bytes, read_small
from tests.pipelines.dataset.encode.small_store import begun, same


def test_broken_segments_are_told_and_left_aside_and_the_others_go_on(place):
    expected = fill(place.source, 60)
    place.source.put("channel0/broken.npz", b"PK no zip")
    pickled = io.BytesIO()
    np.savez(pickled, audio=np.array([{"a": 1}], dtype=object), sr=16_000)
    place.source.put("channel0/pickled.npz", pickled.getvalue())
    place.source.put("channel0/empty.npz", npz_bytes(np.zeros(0, np.float32)))
    done = place.encode()
    assert done.is_finished and done.num_left_aside == 3 and done.num_encoded == 60
    assert set(place.problems) == {"channel0/broken", "channel0/empty", "channel0/pickled"}
    assert same(place.codes(), expected) and place.manifest()["num_left_aside"] == 3
    place.problems.clear()
    assert place.encode().num_left_aside == 0 and not place.problems


def test_a_changed_object_is_told_and_encoded_as_it_is_at_the_next_run(place):
    expected = fill(place.source, 50)
    key = sorted(expected)[20]
    wave = make_wave(999, 7000)
    put = threading.Event()

    def before(method, name):
        if method == "get" and name.startswith("segments/channel") and not put.is_set():
            put.set()
            place.source.put(f"{key}.npz", npz_bytes(wave))

    place.store.hook(before)
    done = place.encode(num_downloads=1)
    assert done.num_changed == 1 and "changed since" in place.problems[key]
    codes = place.codes()
    assert key not in codes and len(codes) == 49
    again = place.encode()
    assert again.num_encoded == 1 and again.num_changed == 0
    assert same(place.codes(), expected | {key: codes_for(wave)})
    assert place.encode().num_encoded == 0 and place.manifest()["num_changed"] == 0


def test_what_was_fetched_ahead_is_not_fetched_again(place):
    expected, reads, codec = begun(place)
    torn = min((place.scratch / "spool").iterdir())
    torn.write_bytes(torn.read_bytes()[:-100])
    (place.scratch / "spool" / f"{'0' * 32}.part").write_bytes(b"of nobody")
    assert place.encode(codec).is_finished and same(place.codes(), expected)
    assert sum(n for _, n in codec.encoded) == 120 and not list((place.scratch / "spool").iterdir())
    again = [name for name, count in reads.items() if name.endswith(".npz") and count > 1]
    assert len(again) == 1, again  # the torn one


def fetcher_of(lengths: list[int], tmp_path, *, gaps: int = 512, most_cost: int = 1 << 30) -> Fetcher:
    """Return a fetcher of random items that lie one after another in one object, with checksums."""
    contents, content, offsets = [np.random.default_rng(i).bytes(n) for i, n in enumerate(lengths)], b"", []
    for part in contents:
        offsets.append(len(content))
        content += part + b"\0" * gaps
    store = MemoryObjects()
    version = store.put("a.tar", content)
    number = len(lengths)
    items = Items(
        keys=[f"k{i}" for i in range(number)],
        objects=["a.tar"] * number,
        versions=[version] * number,
        columns=[""] * number,
        offset=np.array(offsets),
        length=np.array(lengths),
        is_whole=np.zeros(number, bool),
        crc32=np.array([zlib.crc32(part) for part in contents]),
        num_samples=np.full(number, 3200),
        rate_hz=np.full(number, 16_000),
    )
    return Fetcher(store, items, Spool(tmp_path / "spool"), SmallCodec(), read_small, most_cost=most_cost)


def test_neighbours_in_a_shard_are_one_read_within_reason(tmp_path):
    fetcher = fetcher_of([1000] * 6, tmp_path)
    [order] = fetcher.orders(range(6))
    assert order.numbers == list(range(6)) and order.cost == 6 * fetcher.spool.cost(1000)
    assert [o.numbers for o in fetcher.orders([0, 1, 4, 3])] == [[0, 1, 4], [3]], "never backwards"
    assert [o.numbers for o in fetcher_of([1000] * 3, tmp_path, gaps=70_000).orders(range(3))] == [[0], [1], [2]]
    assert [o.numbers for o in fetcher_of([1000] * 3, tmp_path, most_cost=8192).orders(range(3))] == [[0, 1], [2]]
    assert [o.numbers for o in fetcher_of([5 << 20] * 2, tmp_path).orders(range(2))] == [[0], [1]]
    found = fetcher.fetch(order)
    assert [(one.number, one.num_frames, one.seconds, one.reason) for one in found] == [
        (i, 10, 0.2, "") for i in range(6)
    ]
    assert fetcher.source.counts["get"] == 1 and fetcher.num_bytes == 6 * 1000 + 5 * 512
    assert [fetcher.spool.take(fetcher.name_of(i)) for i in range(6)] == [
        np.random.default_rng(i).bytes(1000) for i in range(6)
    ]


def test_rotten_bytes_are_read_twice_and_then_left_aside(tmp_path):
    fetcher = fetcher_of([1000] * 3, tmp_path)
    content, version = fetcher.source.content["a.tar"]
    fetcher.source.content["a.tar"] = content[:1600] + bytes([content[1600] ^ 1]) + content[1601:], version
    found = fetcher.fetch(next(iter(fetcher.orders(range(3)))))
    assert [bool(one.reason) for one in found] == [False, True, False] and "another checksum" in found[1].reason
    assert fetcher.source.counts["get"] == 2 and fetcher.spool.take(fetcher.name_of(1)) is None


def test_a_wave_at_another_rate_has_the_length_it_was_planned_with(tmp_path):
    fetcher, wave = fetcher_of([1], tmp_path), make_wave(3, 24_001)
    fetcher.spool.put(fetcher.name_of(0), npz_bytes(wave, rate_hz=24_000, speaker="s", text="said"))
    made = fetcher.prepare(0)
    assert made.wave.shape == (16_001,) and made.wave.dtype == np.float32
    assert made.known["num_samples"] == 24_001 and made.known["rate_hz"] == 24_000
    assert (made.known["speaker"], made.known["text"], made.known["metadata"]) == ("s", "said", '{"from": "test"}')
