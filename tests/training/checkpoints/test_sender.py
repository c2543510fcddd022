"""The thread that brings generations to a medium: in order, the newest first, said once, and no fault kept silent."""

from __future__ import annotations

import errno
import threading
import time
from pathlib import Path

import pytest

from colabkit.training.checkpoints.sender import Job, Publisher


class Place:
    """Takes jobs, or raises the faults it is given first; `gate` holds the sending up."""

    def __init__(self):
        self.taken, self.faults, self.gate, self.confirmed = [], [], threading.Event(), True
        self.gate.set()
        self.busy = threading.Event()

    def send(self, job):
        self.busy.set()
        self.gate.wait(10)
        if self.faults:
            raise self.faults.pop(0)
        self.taken.append(job.step)


def job(step, best=False):
    return Job(step, best, Path("/here") / str(step))


@pytest.fixture
def place():
    return Place()


@pytest.fixture
def sending(place):
    """Return a publisher to the place, whose lines are in `said`."""
    said = []
    publisher = Publisher(
        place.send, lambda: place.confirmed, medium_name="the shelf", say=said.append, retry_seconds=(0.001, 0.002)
    )
    publisher.said = said
    yield publisher
    place.gate.set()
    publisher.close()


def test_all_is_there_when_flush_says_so(place, sending):
    for step in range(4):
        sending.offer(job(step))
        assert sending.flush(10) and sending.folders() == set()
    assert place.taken == [0, 1, 2, 3] and sending.said == []


def test_of_what_waits_the_newest_and_the_newest_best_matter(place, sending):
    place.gate.clear()
    sending.offer(job(1))
    assert place.busy.wait(10), "the first is on its way while the others come"
    for step, best in ((2, True), (3, True), (4, False), (5, False)):
        sending.offer(job(step, best))
    assert {folder.name for folder in sending.folders()} == {"1", "3", "5"}, "what must stay on this machine"
    place.gate.set()
    assert sending.flush(10) and place.taken == [1, 3, 5]
    sending.offer(job(6, best=True))
    assert sending.flush(10) and place.taken[-1] == 6


def test_a_medium_that_is_away_is_told_once_and_once_when_it_is_back(place, sending):
    place.faults = [OSError(errno.EIO, "not now")] * 5
    sending.offer(job(3))
    assert sending.flush(10) and place.taken == [3]
    away, back = sending.said
    assert "WARNING the shelf does not take the checkpoint of step 3 (not now)" in away and "/here" in away
    assert "the shelf answers again" in back and back.endswith("1 had stayed on this machine")


@pytest.mark.parametrize("fault", [OSError(errno.EACCES, "no"), ValueError("a fault of the program")])
def test_what_no_waiting_mends_is_raised_once_to_who_asks_next(place, sending, fault):
    place.faults = [fault]
    sending.offer(job(1))
    with pytest.raises(type(fault)):
        sending.flush(10)
    sending.offer(job(2))
    assert sending.flush(10) and place.taken == [2], "the next one is sent as if nothing had been"


def test_flush_waits_for_what_is_not_confirmed_and_no_longer_than_it_may(place, sending):
    place.confirmed = False
    sending.offer(job(1))
    began = time.monotonic()
    assert not sending.flush(0.1) and time.monotonic() - began < 5
    place.confirmed = True
    assert sending.flush(10)


def test_closed_it_sends_nothing_more(place, sending):
    place.gate.clear()
    sending.offer(job(1))
    assert place.busy.wait(10)
    sending.offer(job(2))
    sending.close()
    place.gate.set()
    time.sleep(0.05)
    assert place.taken == [1]
