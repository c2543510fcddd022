"""Values that must cross neither a fork nor a pickle, such as connections and locks: made anew in each process."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerProcess(Generic[T]):
    """One value a process, made at its first use there; only `make` is pickled."""

    def __init__(self, make: Callable[[], T]):
        self._make = make
        self._made: dict[int, T] = {}  # process id -> value; no lock here, since a fork could copy it locked

    def get(self) -> T:
        pid = os.getpid()
        try:
            return self._made[pid]
        except KeyError:
            for parent in list(self._made):  # drop what was inherited; its sockets close here, not in the parent
                self._made.pop(parent, None)
            return self._made.setdefault(pid, self._make())

    def made(self) -> T | None:
        """Return this process's value if one was made."""
        return self._made.get(os.getpid())

    def drop(self) -> T | None:
        """Forget this process's value and return it, if one was made."""
        return self._made.pop(os.getpid(), None)

    def __reduce__(self):
        return PerProcess, (self._make,)
