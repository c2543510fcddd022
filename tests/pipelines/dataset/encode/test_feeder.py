"""Pieces go to whoever may work on them, and of a piece what the quota can hold."""

from __future__ import annotations

import threading
import time

from colabkit.pipelines.dataset.encode.job import Sharing
from tests.pipelines.dataset.encode.small_codec import SmallCodec, fill, make_wave, npz_bytes
from tests.pipelines.dataset.encode.small_store import Place, same


def test_workers_share_the_pieces_by_claims(tmp_path):
    places = [Place(tmp_path / str(i)) for i in range(3)]
    for other in places[1:]:
        other.store, other.source = places[0].store, places[0].source
    expected = fill(places[0].source, 150)
    codecs = [SmallCodec(seconds_per_second=0.02) for _ in places]
    results = [None] * 3

    def work(i):
        results[i] = places[i].encode(codecs[i], sharing=Sharing(claims=True, worker=f"w{i}", poll_seconds=0.1))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    for thread in threads:
        thread.join(60)
    assert all(result is not None for result in results), [p.said for p in places]
    assert same(places[0].codes(), expected)
    assert sum(n for codec in codecs for _, n in codec.encoded) == 150
    assert sum(bool(codec.encoded) for codec in codecs) >= 2
    assert max(n for name, n in places[0].store.puts.items() if "codes/manifest/" in name) == 1
    assert all(result.num_pieces_done == result.num_pieces for result in results)


def test_one_larger_than_the_quota_is_left_aside(place):
    expected = fill(place.source, 60)
    place.source.put("channel0/large.npz", npz_bytes(make_wave(1, 2_000_000)))
    done = place.encode(quota_bytes=4 << 20)
    assert done.num_left_aside == 1 and "larger than the disk quota" in place.problems["channel0/large"]
    assert same(place.codes(), expected) and done.most_bytes_used <= 4 << 20
