"""Samples held in memory for a while, in a window that moves along a stream: each is read once and used many times."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import closing
from typing import Any

from colabkit.training.stream.stream import Loaded, Stream

Read = Callable[[str, int], Any]


class RollingWindow:
    """What is at hand at use number i: a pure function of the stream and i, so nothing but the position needs keeping.

    The stream's items come in chapters of `chapter_items`. Uses [0, uses_per_chapter) see chapters 0 to held - 1, the
    next ones chapters 1 to held, and so on, while the coming chapter is read by `workers`. Uses should come about in
    order; going back reads again.
    """

    def __init__(
        self, stream: Stream, read: Read, *, chapter_items: int, held: int, uses_per_chapter: int, workers: int
    ):
        self.stream, self.read, self.workers = stream, read, workers
        self.chapter_items, self.held, self.uses_per_chapter = chapter_items, held, uses_per_chapter
        self._items: deque[Loaded] = deque()
        self._first = 0  # the item that is first in memory
        self._feed = None
        self._lock = threading.Lock()

    def period(self, use: int) -> int:
        """Return the number of the window that a use sees."""
        return use // self.uses_per_chapter

    def at(self, use: int) -> list[Loaded]:
        """Return the items in memory for a use, after reading what is missing. Raises what reading raises."""
        with self._lock:
            first = self.period(use) * self.chapter_items
            last = first + self.held * self.chapter_items
            if self._feed is None or not self._first <= first <= self._first + len(self._items):
                self._restart(first)
            while self._first < first:
                self._items.popleft()
                self._first += 1
            while self._first + len(self._items) < last:
                try:
                    loaded = next(self._feed)
                except BaseException:
                    self.close()  # a feed that raised is at its end; the next use begins another
                    raise
                self._items.append(loaded)
                self.stream.quarantine(loaded)
            return [self._items[i] for i in range(last - first)]

    def _restart(self, first: int) -> None:
        self.close()
        self._first = self.stream.position = first
        self._feed = self.stream.load(self.read, workers=self.workers, ahead=max(self.chapter_items, self.workers))

    def state(self, use: int) -> dict:
        """Return the stream's state when all uses before `use` are done."""
        with self._lock:
            self.stream.position = self.period(use) * self.chapter_items
            return self.stream.state()

    def load_state(self, state: dict) -> None:
        """Take over what was quarantined.

        Raises: ChangedError when the state belongs to other data or another order.
        """
        with self._lock:
            self.close()
            self.stream.load_state(state)

    def close(self) -> None:
        """End the reading ahead."""
        if self._feed is not None:
            with closing(self._feed):
                self._feed = None
        self._items.clear()
