"""Many small pieces of network work at once: as many threads as bring something, failures counted, the rest goes on."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from colabkit.core.disk import in_units
from colabkit.core.errors import ColabkitError, DataError, UsageError
from colabkit.core.progress import Progress
from colabkit.core.teller import Teller
from colabkit.io.places.http.patience import Unreachable

FIRST_WORKERS = 8
MOST_WORKERS = 64
_STEP_SECONDS = 1.5
_WORTH = 1.08  # more workers stay when they bring so much more
_BUSY = 0.7  # of the processors that we may use: then more workers only get in each other's way
_TOLD_FAILURES = 5
_LOOK_SECONDS = 0.25


@dataclass
class Worked:
    """What came of the work. `failures` are (name, error); `workers` threads were at work at the end, for `reason`."""

    num_done: int = 0
    num_bytes: int = 0
    seconds: float = 0.0
    workers: int = 0
    reason: str = ""
    failures: list[tuple[str, ColabkitError]] = field(default_factory=list)


class _Pool:
    """The threads and what they share."""

    def __init__(self, names: Callable[[int], str], count: int, act: Callable[[int], int]):
        self.name_of, self.count, self.act = names, count, act
        self.places = iter(range(count))  # its next() is one step of the interpreter: no two threads get the same
        self.done: list[int] = []  # bytes of what is done; append is one step too
        self.failures: list[tuple[str, ColabkitError]] = []
        self.fatal: BaseException | None = None
        self.in_a_row, self.stops = 0, False
        self.started = time.monotonic()
        self.threads: list[threading.Thread] = []
        self.workers = 0  # so many of the threads shall work

    def add(self, number: int) -> None:
        self.workers += number
        while len(self.threads) < self.workers:
            thread = threading.Thread(
                target=self._run, args=(len(self.threads),), daemon=True, name="colabkit transfer"
            )
            self.threads.append(thread)
            thread.start()

    def _run(self, number: int) -> None:
        while number < self.workers and not self.stops and (place := next(self.places, None)) is not None:
            try:
                self.done.append(self.act(place))
                self.in_a_row = 0
            except UsageError as error:  # keys, rights, the bucket: it would be the same for all
                self._end(error)
            except ColabkitError as error:
                self.failures.append((self.name_of(place), error))
                self.in_a_row += 1
                if isinstance(error, Unreachable) and self.in_a_row > self.workers:
                    self._end(error)
            except BaseException as error:
                self._end(error)

    def _end(self, error: BaseException) -> None:
        self.fatal = self.fatal or error
        self.stops = True


def work_through(
    count: int,
    name_of: Callable[[int], str],
    act: Callable[[int], int],
    *,
    title: str,
    unit: str,
    workers: int | None = None,
    teller: Teller = Teller(),
) -> Worked:
    """Call `act(place)` for each place below `count` in threads; it returns how many bytes it moved.

    Without a number of workers there are 8 at first, and more as long as they bring 8% more in a second. Errors of
    single pieces are collected; UsageError ends the work and is raised, as is everything that is no error of ours.
    """
    pool = _Pool(name_of, count, act)
    chooser = None if workers else _Chooser(pool)
    pool.add(min(count, workers or FIRST_WORKERS))
    try:
        with teller.progress(count, title, unit=unit) as progress:
            shown = _Shown(pool, progress, teller)
            while any(thread.is_alive() for thread in pool.threads):
                pool.threads[0].join(_LOOK_SECONDS)
                shown.look()
                if chooser and not pool.stops:
                    chooser.look(len(pool.done))
            shown.look()
    except BaseException:
        pool.stops = True  # interrupted by hand: what is on its way ends, nothing new begins
        raise
    if pool.fatal is not None:
        raise pool.fatal
    reason = "as asked" if workers else chooser.reason
    return Worked(len(pool.done), sum(pool.done), time.monotonic() - pool.started, pool.workers, reason, pool.failures)


class _Shown:
    """What was shown of the work so far."""

    def __init__(self, pool: _Pool, progress: Progress, teller: Teller):
        self._pool, self._progress, self._teller = pool, progress, teller
        self._done = self._bytes = self._failures = 0

    def look(self) -> None:
        pool, now = self._pool, len(self._pool.done)
        self._bytes += sum(pool.done[self._done : now])
        for name, error in pool.failures[self._failures : _TOLD_FAILURES]:
            self._teller.say(f"failed: {name}: {str(error).splitlines()[0]}")
        self._failures = len(pool.failures)
        speed = self._bytes / max(time.monotonic() - pool.started, 1e-9)
        failed = {"failed": self._failures} if self._failures else {}
        self._progress.update(now - self._done, speed=f"{in_units(speed)}/s", **failed)
        self._done = now


class _Chooser:
    """Adds workers while they bring more."""

    def __init__(self, pool: _Pool):
        self._pool, self._speed, self._since, self._done, self._used = (
            pool,
            0.0,
            time.monotonic(),
            0,
            time.process_time(),
        )
        self._cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._settled, self._before = False, 0
        self.reason = "the work was done before more were tried"

    def look(self, done: int) -> None:
        elapsed = time.monotonic() - self._since
        if elapsed < _STEP_SECONDS or self._settled:
            return
        speed, workers = (done - self._done) / elapsed, self._pool.workers
        busy = (time.process_time() - self._used) / elapsed / self._cores
        self._settled = True
        if self._speed and speed < self._speed * _WORTH:
            self._pool.workers = self._before  # those above end with the piece that they are at
            self.reason = (
                f"more brought nothing: {speed:.0f} a second with {workers}, {self._speed:.0f} with {self._before}"
            )
        elif busy > _BUSY:
            self.reason = f"they keep {busy:.0%} of {self._cores} processors busy"
        elif workers >= MOST_WORKERS:
            self.reason = f"more than {MOST_WORKERS} are not tried"
        else:
            self._settled, self._before, more = False, workers, min(workers, MOST_WORKERS - workers)
            self._speed, self._since, self._done, self._used = speed, time.monotonic(), done, time.process_time()
            self._pool.add(more)
            self.reason = f"{workers + more} were tried last"


def raise_failures(failures: list[tuple[str, ColabkitError]], doing: str, where: str, num_done: int) -> None:
    """Raise DataError that lists what failed, if something did."""
    if not failures:
        return
    kinds: dict[str, list[str]] = {}
    for name, error in failures:
        kinds.setdefault(error.what, []).append(name)
    lines = "; ".join(
        f"{what}: {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
        for what, names in list(kinds.items())[:5]
    )
    raise DataError(
        f"{len(failures)} of {len(failures) + num_done} could not be {doing}: {lines}",
        where=where,
        fix=f"{failures[0][1].fix}; then run the same command again: what is done is not done again",
    )
