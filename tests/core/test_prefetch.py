"""Tests of colabkit.core.prefetch: order, bounds, errors at their turn, dying workers, and ends that are prompt."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pytest

from colabkit.core.errors import BrokenSampleError, StateError, UsageError
from colabkit.core.prefetch import JOIN_SECONDS, prefetch

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def nothing_is_left(monkeypatch):
    """Worker processes find this module, and no thread or process outlives a test."""
    monkeypatch.syspath_prepend(ROOT)
    yield
    end = time.monotonic() + 3
    while (workers() or multiprocessing.active_children()) and time.monotonic() < end:
        time.sleep(0.01)
    assert not workers() and not multiprocessing.active_children()


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch-")]


def after_a_while(k: int) -> tuple[int, int]:
    """Take a random time, so that later items are done before earlier ones."""
    time.sleep(random.Random(k).random() * 0.004)
    return k, os.getpid()


@dataclass(frozen=True)
class Dying:
    """Kills its own process at some items: at the first try, or at each."""

    folder: str
    at: tuple[int, ...]
    always: bool = False

    def __call__(self, k: int) -> int:
        mark = Path(self.folder, str(k))
        if k in self.at and (self.always or not mark.exists()):
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return k


def sometimes(k: int):
    """Return, or raise, things that are hard to send."""
    if k == 2:
        raise BrokenSampleError("Cannot read", got="ä", where="shard 3", fix="none")
    if k == 3:
        raise KeyError("gone")
    if k == 4:
        return threading.Lock()
    if k == 5:
        raise Unsendable(threading.Lock())
    if k == 6:
        raise SystemExit(3)
    return k


class Unsendable(Exception):
    """An error that does not pickle."""


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_order_under_random_delays(kind):
    made = list(prefetch(after_a_while, 3, 203, workers=3, kind=kind, ahead=7))
    assert [k for k, _ in made] == list(range(3, 203))
    pids = {pid for _, pid in made}
    assert pids == {os.getpid()} if kind == "threads" else len(pids) == 3 and os.getpid() not in pids


@pytest.mark.parametrize("workers", [0, 1, 2, 9])
def test_the_same_whatever_the_workers(workers):
    assert list(prefetch(lambda k: k * k, 5, 30, workers=workers)) == [k * k for k in range(5, 30)]
    assert list(prefetch(lambda k: k, 5, 5, workers=workers)) == []
    assert list(prefetch(lambda k: k, 9, 5, workers=workers)) == []
    with closing(prefetch(lambda k: k, 10**12, workers=workers)) as endless:
        assert list(islice(endless, 50)) == list(range(10**12, 10**12 + 50))


def test_without_workers_nothing_is_made_ahead():
    made = []
    items = prefetch(made.append, 0, workers=0)
    assert made == []
    next(items)
    next(items)
    assert made == [0, 1]


def test_nothing_starts_before_the_first_is_asked_for():
    made = []
    items = prefetch(made.append, 0, workers=2)
    time.sleep(0.02)
    assert made == [] and not workers()
    items.close()


class Held:
    """A value whose life is counted."""

    def __init__(self, size: int):
        self.size = size


class Meter:
    """Makes values, and watches how many items and bytes wait or are being made."""

    def __init__(self, sizes):
        self.sizes, self.lock, self.begun, self.given = sizes, threading.Lock(), [], 0
        self.most_items = self.most_bytes = self.most_alive = 0
        self.alive: weakref.WeakSet[Held] = weakref.WeakSet()

    def make(self, k: int) -> Held:
        with self.lock:
            self.begun.append(k)
            waiting = [n for n in self.begun if n >= self.given]
            held = sum(self.sizes(n) for n in waiting)
            self.most_items = max(self.most_items, len(waiting))
            if len(waiting) > 1:  # one is always made, whatever its size
                self.most_bytes = max(self.most_bytes, held)
        time.sleep(random.Random(k).random() * 0.002)
        value = Held(self.sizes(k))
        with self.lock:
            self.alive.add(value)
            self.most_alive = max(self.most_alive, sum(v.size for v in self.alive))
        return value


@pytest.mark.parametrize(("num_workers", "ahead"), [(1, 1), (1, 4), (3, 2), (3, 5), (8, 3), (2, None)])
def test_ahead_is_kept(num_workers, ahead):
    meter = Meter(lambda k: 1)
    for k, _ in enumerate(prefetch(meter.make, 0, 120, workers=num_workers, ahead=ahead)):
        meter.given = k + 1
        if k % 10 == 0:
            time.sleep(0.01)  # the consumer is slow, the workers run ahead as far as they may
    # One may begin between the hand-over and our note of it.
    bound = ahead or 2 * num_workers
    assert bound <= meter.most_items <= bound + 1


@pytest.mark.parametrize("num_workers", [1, 2, 6])
def test_bytes_are_kept(num_workers):
    """What is alive: items that wait or are being made, and the one or two in the consumer's hands."""
    sizes = [10, 30, 20, 90, 5, 60, 150, 10, 10, 40]  # 150 is beyond the bound: made alone
    meter = Meter(lambda k: sizes[k % len(sizes)])
    given = 0
    for k, value in enumerate(
        prefetch(meter.make, 0, 150, workers=num_workers, ahead=50, max_bytes=100, num_bytes=meter.sizes)
    ):
        assert value.size == meter.sizes(k)
        meter.given, given = k + 1, given + 1
        if k % 7 == 0:
            time.sleep(0.004)
    assert given == 150
    assert meter.most_bytes <= 100 + 150  # as above: what was handed over but not yet noted
    assert meter.most_alive <= 100 + 150 + 150


def test_bytes_let_nothing_beside_an_item_that_is_too_large():
    begun, release = [], threading.Event()

    def make(k):
        begun.append(k)
        release.wait(5)
        return k

    items = prefetch(make, 0, 6, workers=4, ahead=6, max_bytes=10, num_bytes=lambda k: 100)
    waiting = threading.Timer(0.1, release.set)
    waiting.start()
    next(items)
    assert begun[0] == 0 and len(begun) <= 2
    release.set()
    assert list(items) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("num_workers", [1, 3])
def test_a_value_is_the_callers_alone(num_workers):
    """While the next is waited for, nothing but the consumer holds the last one."""
    values, alive = [], []

    def make(k):
        time.sleep(0.01)  # by now the consumer has dropped what it had, and waits
        alive.append(sum(ref() is not None for ref in values))
        value = Held(k)
        values.append(weakref.ref(value))
        return value

    items = prefetch(make, 0, 30, workers=num_workers, ahead=1)
    for _ in range(30):
        next(items)
    assert alive.count(0) > 25  # a busy machine may let the consumer oversleep now and then


@pytest.mark.parametrize("kind", ["threads", "processes"])
@pytest.mark.parametrize(("at", "error", "says"), [(2, BrokenSampleError, "got 'ä'"), (3, KeyError, "gone")])
def test_errors_come_at_their_turn(kind, at, error, says):
    got = []
    with pytest.raises(error, match=says):
        for value in prefetch(sometimes if at == 2 else only_key_error, 0, workers=2, kind=kind, ahead=6):
            got.append(value)
            time.sleep(0.01)  # the error is long made, and waits
    assert got == list(range(at))


def only_key_error(k: int) -> int:
    return sometimes(3) if k == 3 else k


@pytest.mark.parametrize(("at", "says"), [(4, "Cannot send item 4"), (5, "Cannot send item 5")])
def test_what_does_not_pickle_is_named(at, says):
    items = prefetch(sometimes, at, workers=1, kind="processes", ahead=1)
    with pytest.raises(UsageError, match=says) as caught:
        next(items)
    assert "use threads" in str(caught.value)


def test_work_that_does_not_pickle_is_named():
    with pytest.raises(UsageError, match="Cannot hand the work to another process") as caught:
        next(prefetch(lambda k: k, 0, workers=2, kind="processes"))
    assert "threads" in caught.value.fix


def test_a_size_that_fails_is_raised_at_its_turn():
    got = []
    with pytest.raises(ZeroDivisionError):
        for value in prefetch(lambda k: k, 0, workers=2, ahead=8, max_bytes=100, num_bytes=lambda k: 1 // (5 - k)):
            got.append(value)
    assert got == [0, 1, 2, 3, 4]


def test_killed_processes_are_replaced_and_nothing_is_lost(tmp_path):
    make = Dying(str(tmp_path), at=(0, 7, 8, 30))
    assert list(prefetch(make, 0, 40, workers=2, kind="processes")) == list(range(40))
    assert sorted(int(mark.name) for mark in tmp_path.iterdir()) == [0, 7, 8, 30]


def test_processes_killed_from_outside_are_replaced():
    got, killed = [], set()
    for k, pid in prefetch(after_a_while, 0, 60, workers=2, kind="processes"):
        got.append(k)
        if k in (10, 25, 40):  # busy or idle, as it comes
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
    assert got == list(range(60))
    assert len(killed) == 3


def test_dying_at_the_same_item_ends_the_loop(tmp_path):
    got = []
    with pytest.raises(StateError, match="died again and again") as caught:
        for value in prefetch(Dying(str(tmp_path), at=(3,), always=True), 0, workers=1, kind="processes"):
            got.append(value)
    assert got == [0, 1, 2]
    assert "exit code -9 at item 3" in str(caught.value)
    assert "memory" in str(caught.value)


def test_a_worker_that_leaves_is_a_death():
    with pytest.raises(StateError, match="exit code 3 at item 6"):
        next(prefetch(sometimes, 6, workers=1, kind="processes"))


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_closing_early_is_prompt(kind):
    items = prefetch(after_a_while, 0, workers=3, kind=kind, ahead=30)
    next(items)
    began = time.monotonic()
    items.close()
    assert time.monotonic() - began < JOIN_SECONDS
    assert not workers() and not multiprocessing.active_children()


def test_closing_waits_once_for_all_slow_reads():
    hold = threading.Event()
    items = prefetch(lambda k: 0 if k == 0 else hold.wait(10), 0, workers=6, ahead=12)
    next(items)
    time.sleep(0.05)
    began = time.monotonic()
    items.close()
    assert 0.9 * JOIN_SECONDS < time.monotonic() - began < 2 * JOIN_SECONDS
    hold.set()


def test_an_iterator_that_is_dropped_ends_its_workers():
    items = prefetch(after_a_while, 0, workers=2)
    next(items)
    del items
    assert not workers()


@pytest.mark.parametrize(("num_workers", "kind"), [(-1, "threads"), (2, "thread")])
def test_settings_that_cannot_be(num_workers, kind):
    with pytest.raises(UsageError, match="0 or more, threads or processes"):
        prefetch(int, 0, workers=num_workers, kind=kind)


def test_leaving_the_interpreter_in_the_middle_is_silent_and_prompt(tmp_path):
    """Processes that end with the interpreter are not replaced."""
    (tmp_path / "reading.py").write_text(
        "import time\ndef read(k):\n    time.sleep(0.01 if k < 4 else 30)\n    return k\n"
    )
    (tmp_path / "leaving.py").write_text(
        textwrap.dedent("""
        import sys
        from colabkit.core.prefetch import prefetch
        from reading import read
        if __name__ == "__main__":
            items = prefetch(read, 0, workers=2, kind="processes", ahead=20)
            for k in items:
                if k == 3:
                    sys.exit(5)
    """)
    )
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "leaving.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (5, "", "")
    assert time.monotonic() - began < 15
