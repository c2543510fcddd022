"""Byte credits: what may lie on the disk at once, handed out before anything is written there."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping

from colabkit.core.disk import in_units
from colabkit.core.errors import StateError


class Credits:
    """Bytes that may be used at once. One thread acquires, in the order of the work; any thread releases.

    What is adopted of an earlier run counts as used until it is acquired or, where room is wanted, let go through
    `evict`, the last first. `overhead` is what lies beside and nobody releases, such as a journal that grew.
    """

    def __init__(self, capacity: int, *, evict: Callable[[int], None] = lambda item: None):
        self.capacity, self.used, self.most_used, self.overhead = capacity, 0, 0, 0
        self._evict, self._adopted = evict, {}
        self._changed = threading.Condition()
        self._halted = False

    @property
    def free(self) -> int:
        return self.capacity - self.overhead - self.used

    def adopt(self, item: int, num_bytes: int) -> bool:
        """Count what an earlier run has left; False when there is no room for it."""
        with self._changed:
            if num_bytes > self.free:
                return False
            self._adopted[item] = num_bytes
            self._use(num_bytes)
            return True

    def acquire(self, costs: Mapping[int, int]) -> bool:
        """Wait for the room of some items; False when halted. What is adopted of them is theirs already.

        Raises: StateError when nothing that others hold could ever make enough room.
        """
        with self._changed:
            ours = sum(self._adopted.pop(item, 0) for item in costs)
            wanted = sum(costs.values()) - ours
            while wanted > self.free and not self._halted:
                if self._adopted:
                    item = max(self._adopted)
                    self._evict(item)
                    self.used -= self._adopted.pop(item)
                elif self.used <= ours:
                    raise self._too_small(wanted + ours)
                else:
                    self._changed.wait()
            if not self._halted:
                self._use(wanted)
            return not self._halted

    def release(self, num_bytes: int) -> None:
        """Give bytes back."""
        with self._changed:
            self.used -= num_bytes
            self._changed.notify_all()

    def charge(self, overhead: int) -> None:
        """Tell what lies beside."""
        with self._changed:
            self.overhead = overhead
            self._changed.notify_all()

    def halt(self) -> None:
        """Let whoever waits go without."""
        with self._changed:
            self._halted = True
            self._changed.notify_all()

    def _use(self, num_bytes: int) -> None:
        self.used += num_bytes
        self.most_used = max(self.most_used, self.used + self.overhead)

    def _too_small(self, wanted: int) -> StateError:
        return StateError(
            "The disk quota is too small to go on",
            got=f"{in_units(self.capacity)} for segments",
            expected=f"{in_units(wanted)} for the next one and {in_units(self.overhead)} for the journal",
            fix=f"give more: {quota_setting(2 * (self.capacity + self.overhead + wanted))}; what is done is kept",
        )


def quota_setting(num_bytes: int) -> str:
    """Return the setting that allows so many bytes or a little more."""
    return f"--set encode.quota_gib={math.ceil(1000 * num_bytes / 2**30) / 1000:g}"
