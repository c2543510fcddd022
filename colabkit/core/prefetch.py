"""Things made ahead of their use in threads or processes: in order, within a memory bound, none lost with a worker."""

from __future__ import annotations

import atexit
import multiprocessing.util  # its own exit function must be registered before ours, to run after it
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from pickle import PicklingError
from typing import Any, Literal, get_args

from colabkit.core.errors import StateError, UsageError

# how long closing waits for work in hand; a read from a slow network may take longer, and is left behind
JOIN_SECONDS = 1.0
_DEATHS_ALLOWED = 2  # of worker processes over one and the same item

Kind = Literal["threads", "processes"]


def prefetch(
    make: Callable[[int], Any],
    first: int,
    stop: int | None = None,
    *,
    workers: int = 2,
    kind: Kind = "threads",
    ahead: int | None = None,
    max_bytes: float | None = None,
    num_bytes: Callable[[int], float] | None = None,
) -> Iterator[Any]:
    """Yield make(first), make(first + 1), ... before `stop`, made by `workers` at once; 0 makes each when asked for.

    At most `ahead` items (twice the workers unless given) wait or are being made, and of those `num_bytes(k)` together
    stay within `max_bytes`, except that one is always made. What was made and not used leaves no trace. An error in
    make(k) is raised when k's turn comes. With processes, `make` and what it returns must pickle, and one that dies is
    replaced. Close the generator to end the workers. Raises: StateError when a worker process dies again and again;
    UsageError for settings that cannot be, or a `make` that does not pickle.
    """
    if workers < 0 or kind not in get_args(Kind):
        raise UsageError(
            "Cannot make things ahead",
            got=f"{workers} workers, {kind}",
            expected="0 or more, threads or processes",
            fix="correct the number of workers and their kind",
        )
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

    def __init__(
        self,
        make: Callable[[int], Any],
        first: int,
        stop: int | None,
        workers: int,
        kind: str,
        ahead: int,
        max_bytes: float | None,
        num_bytes: Callable[[int], float] | None,
    ):
        self.make, self.stop, self.kind, self.ahead = make, stop, kind, max(ahead, 1)
        self.max_bytes = float("inf") if max_bytes is None else max_bytes
        self.num_bytes = num_bytes or (lambda k: 0)
        self.taken, self.given = first, first  # next number to make, next to hand out
        self.bytes_held = 0.0
        self.sizes: dict[int, tuple[float, Exception | None]] = {}  # asked for once each
        self.ready: dict[int, tuple[Any, BaseException | None]] = {}
        self.closed = False
        self.changed = threading.Condition()
        self.threads = [threading.Thread(target=self._work, daemon=True, name=f"prefetch-{i}") for i in range(workers)]

    def results(self) -> Iterator[Any]:
        _teams.add(self)
        for thread in self.threads:
            thread.start()
        try:
            while self.stop is None or self.given < self.stop:
                with self.changed:
                    self.changed.wait_for(lambda: self.given in self.ready)
                    value, error = self.ready.pop(self.given)
                    self.bytes_held -= self.sizes.pop(self.given)[0]
                    self.given += 1
                    self.changed.notify_all()
                if error is not None:
                    raise error
                yield value
                value = None  # the caller's alone, or it would be held while the next is waited for
        finally:
            self.close()
            patience = time.monotonic() + JOIN_SECONDS
            for thread in self.threads:
                thread.join(max(0.0, patience - time.monotonic()))

    def close(self) -> None:
        """Let the threads leave, each after the work it has in hand."""
        with self.changed:
            self.closed = True
            self.ready.clear()
            self.changed.notify_all()

    def _may_take(self) -> bool:
        if self.closed or (self.stop is not None and self.taken >= self.stop):
            return True  # to leave
        if self.taken == self.given:
            return True
        return self.taken < self.given + self.ahead and self.bytes_held + self._size(self.taken)[0] <= self.max_bytes

    def _size(self, number: int) -> tuple[float, Exception | None]:
        if number not in self.sizes:
            try:
                self.sizes[number] = self.num_bytes(number), None
            except Exception as error:  # raised when its turn comes, not here where nobody waits for it
                self.sizes[number] = 0.0, error
        return self.sizes[number]

    def _work(self) -> None:
        maker = closing(_Process(self)) if self.kind == "processes" else nullcontext(self.make)
        with maker as make:
            while True:
                with self.changed:
                    self.changed.wait_for(self._may_take)
                    if self.closed or (self.stop is not None and self.taken >= self.stop):
                        return
                    number, self.taken = self.taken, self.taken + 1
                    size, error = self._size(number)
                    self.bytes_held += size
                try:
                    made = (None, error) if error else (make(number), None)
                except BaseException as error:  # handed to the consumer, who raises it
                    made = None, error
                with self.changed:
                    if self.closed:
                        return
                    self.ready[number] = made
                    made = None  # or it would be held until the next is made
                    self.changed.notify_all()


_teams: weakref.WeakSet[_Team] = weakref.WeakSet()


@atexit.register
def _close_teams() -> None:
    """Keep the processes that the interpreter ends at its exit from being replaced."""
    for team in list(_teams):
        team.close()


class _Process:
    """One worker process, started at its first use and replaced when it dies."""

    def __init__(self, team: _Team):
        self.team, self.process, self.connection = team, None, None

    def __call__(self, number: int) -> Any:
        for _ in range(_DEATHS_ALLOWED):
            try:
                if self.process is None:
                    self._start()
                self.connection.send(number)
                value, error = self.connection.recv()
            except (EOFError, OSError):
                code = self.close()
                if self.team.closed:
                    break
                continue
            if error is not None:
                raise error
            return value
        raise StateError(
            "A worker process died again and again",
            got=f"exit code {code} at item {number}",
            expected="a result; -9 is what the system does when memory runs out",
            where="prefetch",
            fix="use fewer workers, or threads instead of processes",
        )

    def _start(self) -> None:
        # Spawned, not forked: a fork of a process with threads may hang on a lock that one of them holds.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self.team.make), daemon=True)
        try:
            process.start()
        except (PicklingError, AttributeError, TypeError) as error:
            raise UsageError(
                f"Cannot hand the work to another process: {error}",
                expected="functions and values that pickle",
                fix="move them to the top level of a module, or use threads",
            ) from error
        finally:
            theirs.close()  # so that its end is noticed
        self.process, self.connection = process, ours

    def close(self) -> int | None:
        """End the process; returns its exit code, None where none was at work."""
        if self.process is None:
            return None
        self.connection.close()
        self.process.join(JOIN_SECONDS)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        code, self.process = self.process.exitcode, None
        return code


def _serve(connection: Any, make: Callable[[int], Any]) -> None:
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
            connection.send(
                (
                    None,
                    UsageError(
                        f"Cannot send item {number} from a worker process: {error}",
                        got=str(answer[1] or type(answer[0])),
                        expected="what pickles",
                        fix="return arrays and plain values, or use threads",
                    ),
                )
            )
        answer = None  # or it would be held until the next is made
