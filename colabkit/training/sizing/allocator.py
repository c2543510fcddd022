"""Simulate CUDA's caching allocator: what it reserves from the driver for a sequence of allocations.

    peak = replay(events)          # of accounting.Meter(keep_events=True)
    peak.reserved_bytes / peak.allocated_bytes

Source: c10/cuda/CUDACachingAllocator.cpp with its default settings (no expandable segments, no largest size to split).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass

MIB = 2**20
BLOCK_BYTES = 512  # kMinBlockSize: every size is rounded up to it
SMALL_BYTES = MIB  # kSmallSize: up to here from the pool of small segments
SMALL_SEGMENT_BYTES = 2 * MIB  # kSmallBuffer
LARGE_BYTES = 10 * MIB  # kMinLargeAlloc: below it from segments of 20 MiB
LARGE_SEGMENT_BYTES = 20 * MIB  # kLargeBuffer
ROUND_LARGE_BYTES = 2 * MIB  # kRoundLarge: above it from segments of their own


@dataclass(frozen=True, slots=True)
class Peak:
    """What was held at most, and what was reserved from the driver for it."""

    allocated_bytes: int
    reserved_bytes: int


class Block:
    """A piece of a segment, with its neighbours."""

    __slots__ = ("before", "after", "address", "size", "segment_bytes", "free")

    def __init__(
        self, address: int, size: int, segment_bytes: int, before: Block | None = None, after: Block | None = None
    ):
        self.address, self.size, self.segment_bytes = address, size, segment_bytes
        self.before, self.after, self.free = before, after, False


class Allocator:
    """Best fit with splitting and merging, in two pools, on a device that is large enough. Sizes in bytes."""

    def __init__(self):
        self.allocated_bytes = self.reserved_bytes = 0
        self.peak_allocated_bytes = self.peak_reserved_bytes = 0
        # by small or not: (size, address, block)
        self._free: dict[bool, list[tuple[int, int, Block]]] = {True: [], False: []}
        self._next_address = 0

    def allocate(self, size: int) -> Block:
        """Return a block of at least `size` bytes."""
        size = max(BLOCK_BYTES, -(-size // BLOCK_BYTES) * BLOCK_BYTES)
        small = size <= SMALL_BYTES
        block = self._take(small, size) or self._reserve(size)
        rest = block.size - size
        if rest >= BLOCK_BYTES if small else rest > SMALL_BYTES:
            tail = Block(block.address + size, rest, block.segment_bytes, block, block.after)
            if block.after:
                block.after.before = tail
            block.after, block.size = tail, size
            self._put(tail)
        self.allocated_bytes += block.size
        self.peak_allocated_bytes = max(self.peak_allocated_bytes, self.allocated_bytes)
        return block

    def free(self, block: Block) -> None:
        self.allocated_bytes -= block.size
        for other in (block.before, block.after):
            if other is not None and other.free:
                self._remove(other)
                block.size += other.size
                if other is block.before:
                    block.address, block.before = other.address, other.before
                    if other.before:
                        other.before.after = block
                else:
                    block.after = other.after
                    if other.after:
                        other.after.before = block
        self._put(block)

    def _take(self, small: bool, size: int) -> Block | None:
        blocks = self._free[small]
        found = bisect_left(blocks, (size,))
        if found == len(blocks):
            return None
        block = blocks.pop(found)[2]
        block.free = False
        return block

    def _reserve(self, size: int) -> Block:
        segment = (
            SMALL_SEGMENT_BYTES
            if size <= SMALL_BYTES
            else LARGE_SEGMENT_BYTES
            if size < LARGE_BYTES
            else -(-size // ROUND_LARGE_BYTES) * ROUND_LARGE_BYTES
        )
        self.reserved_bytes += segment
        self.peak_reserved_bytes = max(self.peak_reserved_bytes, self.reserved_bytes)
        address, self._next_address = self._next_address, self._next_address + segment
        return Block(address, segment, segment)

    def _put(self, block: Block) -> None:
        block.free = True
        insort(self._free[self._is_small(block)], (block.size, block.address, block))

    def _remove(self, block: Block) -> None:
        blocks = self._free[self._is_small(block)]
        del blocks[bisect_left(blocks, (block.size, block.address))]

    @staticmethod
    def _is_small(block: Block) -> bool:
        return block.segment_bytes == SMALL_SEGMENT_BYTES


def replay(events: Iterable[tuple[int, int]]) -> Peak:
    """Return the peaks of a sequence of (number, bytes), negative when that number is freed."""
    allocator, blocks = Allocator(), {}
    for number, size in events:
        if size > 0:
            blocks[number] = allocator.allocate(size)
        else:
            allocator.free(blocks.pop(number))
    return Peak(allocator.peak_allocated_bytes, allocator.peak_reserved_bytes)
