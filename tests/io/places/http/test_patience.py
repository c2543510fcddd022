"""Patience: waits that a server orders, back-off with full jitter, and the deadline."""

from __future__ import annotations

import email.utils
import time

import pytest

from colabkit.io.places.http.patience import Patience, ordered_wait_seconds
from colabkit.io.places.http.ranges import Unreachable
from tests.io.places.http.serving import DATA, client, in_turn, link_to, message_of, serving


def test_deadline_ends_tries_that_bring_nothing():
    with serving(lambda r: r.answer(503)) as server:
        reader = client(deadline_seconds=0.6, cap_seconds=0.05)
        began = time.monotonic()
        with pytest.raises(Unreachable) as caught:
            reader.read(link_to(server), 0, 10, "s3://bucket/näme")
        assert 0.5 < time.monotonic() - began < 2
        text = message_of(caught.value)
        assert "s3://bucket/näme" in text and "status 503" in text and f"{len(server.requests)} tries" in text
        assert "SECRET" not in text


def test_deadline_starts_anew_with_every_byte():
    def react(request):
        time.sleep(0.3)
        request.serve(cut=60_000)

    with serving(react) as server:
        assert client(deadline_seconds=0.5).read(link_to(server), 0, 300_000, "x") == DATA  # takes 1.5 s in all


def test_retry_after_is_waited_out():
    dates = lambda r: r.answer(503, Retry_After=email.utils.formatdate(time.time() + 1.5, usegmt=True))  # noqa: E731
    for refuse in (
        lambda r: r.answer(429, Retry_After="1"),
        dates,
        lambda r: r.answer(429, RateLimit='"resolvers";r=0;t=1'),
    ):
        with serving(in_turn(refuse, lambda r: r.serve())) as server:
            began = time.monotonic()
            reader = client()
            assert reader.read(link_to(server), 0, 10, "x") == DATA[:10]
            assert 0.4 < time.monotonic() - began < 2.2 if refuse is dates else 1 <= time.monotonic() - began < 1.6
            assert reader.counts["throttled"] == 1


def test_order_to_wait_longer_than_the_deadline_fails_at_once():
    with serving(lambda r: r.answer(429, Retry_After="3600")) as server:
        began = time.monotonic()
        with pytest.raises(Unreachable, match="asks to wait 3600 s"):
            client().read(link_to(server), 0, 10, "x")
        assert time.monotonic() - began < 1 and len(server.requests) == 1


def test_ordered_waits_are_understood():
    now = email.utils.formatdate(1e9, usegmt=True)
    later = email.utils.formatdate(1e9 + 90, usegmt=True)
    for headers, seconds in (
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": later, "Date": now}, 90),
        ({"Retry-After": now}, 0),
        ({"RateLimit": '"api";r=0;t=55'}, 55),
        ({"Retry-After": "soon"}, None),
        ({"RateLimit": '"api";r=7;t=55'}, None),
        ({"Retry-After": "-3"}, None),
        ({}, None),
    ):
        assert ordered_wait_seconds(headers) == seconds


def test_jitter_is_full_and_bounded(monkeypatch):
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    for _ in range(400):
        patience = Patience(1e9, base_seconds=0.1, cap_seconds=3.0)
        for _ in range(8):
            patience.wait("status 500", "x")
    for k in range(8):
        pauses, longest = slept[k::8], min(3.0, 0.1 * 2**k)
        assert max(pauses) <= longest and max(pauses) > 0.8 * longest and min(pauses) < 0.2 * longest
        assert 0.4 * longest < sum(pauses) / len(pauses) < 0.6 * longest
    slept.clear()
    patience.progressed()
    patience.wait("cut", "x")
    assert slept == []  # taken up again at once
    patience.wait("cut", "x", ordered_seconds=30.0)
    assert 30 <= slept.pop() <= 33
