"""Threads that work together: the first error stops them all and is raised where the work was asked for."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYetError
from typing import Any, TypeVar

_LOOK_SECONDS = 0.2  # how often whoever waits looks whether all is over
T = TypeVar("T")


class HaltedError(Exception):
    """The crew stops: leave what you do."""


class Crew:
    """Threads and pools that end together. Use as a context manager; leaving it ends them."""

    def __init__(self) -> None:
        self.halted = threading.Event()
        self.error: BaseException | None = None
        self._threads: list[threading.Thread] = []
        self._pools: list[ThreadPoolExecutor] = []
        self._on_halt: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.halt()
        for pool in self._pools:
            pool.shutdown(wait=True, cancel_futures=True)
        for thread in self._threads:
            thread.join()

    def when_halted(self, act: Callable[[], None]) -> None:
        """Call this when all is to end."""
        self._on_halt.append(act)

    def halt(self, error: BaseException | None = None) -> None:
        """End all, for a reason or because the work is done."""
        with self._lock:
            if self.error is None and error is not None:
                self.error = error
        self.halted.set()
        for act in self._on_halt:
            act()

    def check(self) -> None:
        """Raise what ended the crew."""
        if self.error is not None:
            raise self.error

    def start(self, name: str, act: Callable[[], None]) -> None:
        """Run a function in a thread of its own."""
        thread = threading.Thread(target=self._guarded, args=(act,), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def pool(self, name: str, workers: int) -> ThreadPoolExecutor:
        """Return a pool that ends with the crew."""
        made = ThreadPoolExecutor(workers, thread_name_prefix=name)
        self._pools.append(made)
        return made

    def submit(self, pool: ThreadPoolExecutor, act: Callable[..., Any], *arguments: Any) -> None:
        """Let a pool do something whose error ends all."""
        try:
            pool.submit(self._guarded, act, *arguments)
        except RuntimeError:  # the pool is shut down: so is all
            if not self.halted.is_set():
                raise

    def future(self, pool: ThreadPoolExecutor, act: Callable[..., T], *arguments: Any) -> Future[T]:
        """Let a pool make something that is waited for. Raises: HaltedError."""
        try:
            return pool.submit(act, *arguments)
        except RuntimeError:
            if not self.halted.is_set():
                raise
            raise HaltedError from None

    def put(self, to: queue.Queue, value: Any) -> None:
        """Put something into a bounded queue. Raises: HaltedError."""
        while not self.halted.is_set():
            with contextlib.suppress(queue.Full):
                return to.put(value, timeout=_LOOK_SECONDS)
        raise HaltedError

    def get(self, source: queue.Queue) -> Any:
        """Return the next of a queue. Raises: HaltedError."""
        while not self.halted.is_set():
            with contextlib.suppress(queue.Empty):
                return source.get(timeout=_LOOK_SECONDS)
        raise HaltedError

    def result(self, future: Future[T], meanwhile: Callable[[], None] = lambda: None) -> T:
        """Return what a future holds; `meanwhile` is called now and then while it is waited for.

        Raises: HaltedError.
        """
        while not self.halted.is_set():
            try:
                return future.result(timeout=_LOOK_SECONDS)
            except NotYetError:
                if future.done():  # it was raised by the work itself
                    raise
                meanwhile()
        raise HaltedError

    def _guarded(self, act: Callable[..., Any], *arguments: Any) -> None:
        try:
            act(*arguments)
        except HaltedError:
            pass
        except BaseException as error:  # handed to whoever asked for the work, who raises it
            self.halt(error)
