"""Micro-batches of segments that become equally many frames.

What is encoded together depends on the order and on fixed limits, not on the time at which things arrive: the same
segments in the same order under the same limits make the same batches.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Waiting:
    """A segment that waits for others of its length. `cost` is what it takes of the quota."""

    item: int
    num_frames: int
    seconds: float
    cost: int


@dataclass(slots=True)
class _Bucket:
    capacity: int
    position: int  # bytes that had come when its first one did
    waiting: list[Waiting] = field(default_factory=list)

    @property
    def filled(self) -> float:
        return len(self.waiting) / self.capacity


class Batcher:
    """Collect segments by their exact number of frames.

    `push` and the others return the batches that are full or must leave. A batch holds up to `most_seconds` of audio.
    What waits stays within `window_bytes`, within half of what has come (so the first one leaves at once) and within
    what is still to come of `total_bytes` (so that little is left at the end); over the limit the fullest batch leaves.
    None waits while more than `most_age_bytes` come after it.
    """

    def __init__(
        self,
        most_seconds: float,
        window_bytes: int,
        *,
        total_bytes: int | None = None,
        most_age_bytes: int | None = None,
    ):
        self.most_seconds, self.window_bytes, self.total_bytes = most_seconds, window_bytes, total_bytes
        self.most_age_bytes = 4 * window_bytes if most_age_bytes is None else most_age_bytes
        self.come_bytes = self.waiting_bytes = 0
        self._buckets: dict[int, _Bucket] = {}  # in the order in which their first ones came

    def __len__(self) -> int:
        return sum(len(bucket.waiting) for bucket in self._buckets.values())

    def push(self, segment: Waiting) -> list[list[Waiting]]:
        """Take the next segment."""
        bucket = self._buckets.get(segment.num_frames)
        if bucket is None:
            capacity = max(1, int(self.most_seconds / max(segment.seconds, 1e-9)))
            bucket = self._buckets[segment.num_frames] = _Bucket(capacity, self.come_bytes)
        bucket.waiting.append(segment)
        self.waiting_bytes += segment.cost
        full = [self._take(segment.num_frames)] if len(bucket.waiting) >= bucket.capacity else []
        return full + self.passed(segment.cost)

    def passed(self, cost: int) -> list[list[Waiting]]:
        """Count bytes that came, such as those of a segment that is left aside."""
        self.come_bytes += cost
        batches = []
        while self._buckets:
            num_frames, oldest = next(iter(self._buckets.items()))
            if self.come_bytes - oldest.position <= self.most_age_bytes:
                break
            batches.append(self._take(num_frames))
        return batches + self.shrink(self._limit())

    def shrink(self, limit: int) -> list[list[Waiting]]:
        """Let the fullest batches leave until at most `limit` bytes wait."""
        batches = []
        while self.waiting_bytes > limit and self._buckets:
            batches.append(self._take(max(self._buckets, key=lambda frames: self._buckets[frames].filled)))
        return batches

    def flush(self) -> list[list[Waiting]]:
        """Let all leave."""
        return [self._take(num_frames) for num_frames in list(self._buckets)]

    def _limit(self) -> int:
        limit = min(self.window_bytes, self.come_bytes // 2)
        return limit if self.total_bytes is None else min(limit, max(0, self.total_bytes - self.come_bytes))

    def _take(self, num_frames: int) -> list[Waiting]:
        batch = self._buckets.pop(num_frames).waiting
        self.waiting_bytes -= sum(segment.cost for segment in batch)
        return batch
