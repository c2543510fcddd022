"""Make things ahead of their use in threads or processes: in order, within a memory bound, and nothing lost with a worker."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, Literal

from colabkit.core.errors import StateError

JOIN_SECONDS = 1.0  # how long closing waits for work in hand; a read from a slow network may take longer, and is left behind
_DEATHS_ALLOWED = 2  # of worker processes over one and the same item

Kind = Literal["threads", "processes"]


def prefetch(make: Callable[[int], Any], first: int, stop: int | None = None, *, workers: int = 2, kind: Kind = "threads",
             ahead: int | None = None, max_bytes: float | None = None,
             num_bytes: Callable[[int], float] | None = None) -> Iterator[Any]:
    """Yield make(first), make(first + 1), ... before `stop`, made by `workers` at once; 0 makes each when it is asked for.

    At most `ahead` items (twice the workers unless given) wait or are being made, and of those `num_bytes(k)` together stay
    within `max_bytes`, except that one is always made. What was made and not used leaves no trace. An error in make(k) is
    raised when k's turn comes. With processes, `make` and what it returns must pickle, and one that dies is replaced.
    Close the generator to end the workers. Raises: StateError when a worker process dies again and again.
    """
    if workers == 0:
        return _inline(make, first, stop)
    team = _Team(make, first, stop, workers, kind, ahead or 2 * workers, max_bytes, num_bytes)
    return team.results()


def _inline(make: Callable[[int], Any], first: int, stop: int | None) -> Iterator[Any]:
    while stop is None or first < stop:
        yield make(first)
        first += 1


class _Team:
    """Worker threads that share one queue of numbers; with processes, each thread drives one process."""

    def __init__(self, make, first, stop, workers, kind, ahead, max_bytes, num_bytes):
        self.make, self.stop, self.kind, self.ahead = make, stop, kind, max(ahead, 1)
        self.max_bytes = float("inf") if max_bytes is None else max_bytes
        self.num_bytes = num_bytes or (lambda k: 0)
        self.taken, self.given = first, first  # next number to make, next to hand out
        self.bytes_held = 0.0
        self.ready: dict[int, tuple[Any, BaseException | None]] = {}
        self.closed = False
        self.changed = threading.Condition()
        self.threads = [threading.Thread(target=self._work, daemon=True, name=f"prefetch-{i}") for i in range(workers)]

    def results(self) -> Iterator[Any]:
        for thread in self.threads:
            thread.start()
        try:
            while self.stop is None or self.given < self.stop:
                with self.changed:
                    self.changed.wait_for(lambda: self.given in self.ready)
                    value, error = self.ready.pop(self.given)
                    self.bytes_held -= self.num_bytes(self.given)
                    self.given += 1
                    self.changed.notify_all()
                if error is not None:
                    raise error
                yield value
                value = None  # the caller's alone, or it would be held while the next is waited for
        finally:
            with self.changed:
                self.closed = True
                self.ready.clear()
                self.changed.notify_all()
            for thread in self.threads:
                thread.join(JOIN_SECONDS)

    def _may_take(self) -> bool:
        if self.closed or (self.stop is not None and self.taken >= self.stop):
            return True  # to leave
        if self.taken == self.given:
            return True
        return self.taken < self.given + self.ahead and self.bytes_held + self.num_bytes(self.taken) <= self.max_bytes

    def _work(self) -> None:
        maker = _Process(self.make) if self.kind == "processes" else _Direct(self.make)
        with closing(maker):
            while True:
                with self.changed:
                    self.changed.wait_for(self._may_take)
                    if self.closed or (self.stop is not None and self.taken >= self.stop):
                        return
                    number, self.taken = self.taken, self.taken + 1
                    self.bytes_held += self.num_bytes(number)
                try:
                    made = maker(number), None
                except BaseException as error:  # handed to the consumer, who raises it
                    made = None, error
                with self.changed:
                    if self.closed:
                        return
                    self.ready[number] = made
                    self.changed.notify_all()


class _Direct:
    def __init__(self, make: Callable[[int], Any]):
        self.make = make

    def __call__(self, number: int) -> Any:
        return self.make(number)

    def close(self) -> None:
        """Nothing to close."""


class _Process:
    """One worker process, started at its first use and replaced when it dies."""

    def __init__(self, make: Callable[[int], Any]):
        self.make, self.process, self.connection = make, None, None

    def __call__(self, number: int) -> Any:
        for _ in range(_DEATHS_ALLOWED):
            try:
                if self.process is None:
                    self._start()
                self.connection.send(number)
                value, error = self.connection.recv()
            except (EOFError, OSError):
                code = self._stop()
                continue
            if error is not None:
                raise error
            return value
        raise StateError("A worker process died again and again", got=f"exit code {code} at item {number}",
                         expected="a result; -9 is what the system does when memory runs out",
                         where="prefetch", fix="use fewer workers, or threads instead of processes")

    def _start(self) -> None:
        # Spawned, not forked: a fork of a process with threads may hang on a lock that one of them holds.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, self.make), daemon=True)
        self.process.start()
        theirs.close()  # so that its end is noticed

    def _stop(self) -> int | None:
        if self.process is None:
            return None
        self.connection.close()
        self.process.join(JOIN_SECONDS)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        code, self.process = self.process.exitcode, None
        return code

    def close(self) -> None:
        self._stop()


def _serve(connection, make: Callable[[int], Any]) -> None:
    """Answer numbers with what they make, until the other side is gone."""
    while True:
        try:
            number = connection.recv()
        except (EOFError, OSError, KeyboardInterrupt):
            return
        try:
            answer = make(number), None
        except Exception as error:
            answer = None, error
        try:
            connection.send(answer)
        except (BrokenPipeError, ConnectionResetError):
            return
        except Exception as error:  # what does not pickle
            connection.send((None, RuntimeError(f"item {number}: {answer[1] or type(answer[0])} cannot be sent: {error}")))
