"""Work in threads: more workers while they bring more, failures counted, what is fatal ends it."""

from __future__ import annotations

import threading
import time

import pytest

from colabkit.core.errors import DataError, UsageError
from colabkit.io.places.http.patience import Unreachable
from colabkit.io.transfer import workers
from colabkit.io.transfer.workers import raise_failures, work_through


def through(count, act, **more):
    return work_through(count, lambda place: f"piece {place}", act, title="work", unit="pieces", **more)


def test_each_piece_once():
    seen = []
    done = through(500, lambda place: seen.append(place) or place)
    assert sorted(seen) == list(range(500)) and done.num_done == 500 and done.num_bytes == sum(range(500))
    assert through(0, None).num_done == 0


def test_more_workers_where_they_bring_more(monkeypatch):
    monkeypatch.setattr(workers, "_STEP_SECONDS", 0.2)
    monkeypatch.setattr(workers, "_LOOK_SECONDS", 0.02)

    def wait(place):
        time.sleep(0.02)
        return 1

    waiting = through(3000, wait)
    assert waiting.workers >= 32 and waiting.seconds < 3000 * 0.02 / 8
    gate = threading.Lock()

    def one_at_a_time(place):
        with gate:
            time.sleep(0.002)
        return 1

    bound = through(600, one_at_a_time)
    assert bound.workers == 8 and "more brought nothing" in bound.reason
    assert through(50, wait, workers=3).workers == 3


def test_failures_are_counted_and_told(capsys):
    def act(place):
        if place % 10 == 0:
            raise DataError("It is broken", got=place, fix="mend it")
        return 1

    done = through(100, act)
    assert done.num_done == 90 and len(done.failures) == 10
    assert capsys.readouterr().out.count("failed: piece") == 5
    with pytest.raises(DataError, match="10 of 100 could not be done: It is broken: ") as caught:
        raise_failures(done.failures, "done", "here", done.num_done)
    assert "mend it" in caught.value.fix and "and 7 more" in str(caught.value)
    raise_failures([], "done", "here", 5)


@pytest.mark.parametrize("error", [UsageError("No right", fix="x"), KeyError("a fault of ours")])
def test_what_is_fatal_ends_it(error):
    seen = []

    def act(place):
        seen.append(place)
        if place == 20:
            raise error
        time.sleep(0.001)
        return 1

    with pytest.raises(type(error)):
        through(10_000, act)
    assert len(seen) < 200


def test_a_store_that_is_gone_is_not_asked_for_every_piece():
    seen = []

    def act(place):
        seen.append(place)
        raise Unreachable("gone", fix="x")

    with pytest.raises(Unreachable):
        through(10_000, act)
    assert len(seen) < 100
