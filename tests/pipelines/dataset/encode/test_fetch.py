"""Segments come whole and once, neighbours by one read; what is broken or changed is told and left aside."""

from __future__ import annotations

import io
import threading

import numpy as np

from tests.pipelines.dataset.encode.small_codec import codes_for, fill, make_wave, npz_bytes
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
