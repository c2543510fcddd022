"""All threads at once: the first codes come early, a stop or a fault ends all, and the next run goes on."""

from __future__ import annotations

import pytest

from colabkit.core.errors import UsageError
from tests.pipelines.dataset.encode.small_codec import SmallCodec, fill
from tests.pipelines.dataset.encode.small_store import begun, same


def test_the_first_is_out_at_once(place):
    fill(place.source, 200)
    done = place.encode(SmallCodec(seconds_per_second=0.01))
    assert done.seconds_to_first < 1.0


def test_a_stop_is_in_good_order_and_goes_on(place):
    expected = fill(place.source, 80)
    codec = SmallCodec(seconds_per_second=0.05)
    stop = place.encode(codec, stop=lambda: len(codec.encoded) > 10)
    assert stop.stopped and not stop.is_finished and 0 < stop.num_encoded < 80
    done = place.encode(codec)
    assert done.is_finished and same(place.codes(), expected)
    assert sum(n for _, n in codec.encoded) == 80


def test_an_error_of_the_store_ends_it_and_it_goes_on(place):
    expected = fill(place.source, 60)
    failing = {"on": True}

    def before(method, name):
        if method == "put" and name.startswith("codes/manifest") and failing["on"] and name.endswith("00002.json"):
            raise UsageError("The keys have expired", fix="give new ones")

    place.store.hook(before)
    codec = SmallCodec()
    with pytest.raises(UsageError, match="keys have expired"):
        place.encode(codec)
    failing["on"] = False
    assert place.encode(codec).is_finished and same(place.codes(), expected)
    assert sum(n for _, n in codec.encoded) <= 60 + 12


def test_what_was_fetched_ahead_is_let_go_where_the_quota_is_smaller_now(place):
    expected, _, codec = begun(place)
    done = place.encode(codec, quota_bytes=4 << 20)
    assert done.is_finished and same(place.codes(), expected) and done.most_bytes_used <= 4 << 20
    assert sum(n for _, n in codec.encoded) == 120
