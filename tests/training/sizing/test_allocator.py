"""CUDA's caching allocator: segments, splitting and merging."""

import random

import pytest

from colabkit.training.sizing.allocator import MIB, Allocator, replay


@pytest.mark.parametrize(
    ("asked", "allocated", "reserved"),
    [
        (1, 512, 2 * MIB),
        (MIB, MIB, 2 * MIB),
        (MIB + 1, MIB + 512, 20 * MIB),
        (10 * MIB - 512, 10 * MIB - 512, 20 * MIB),
        (10 * MIB, 10 * MIB, 10 * MIB),
        (11 * MIB, 11 * MIB, 12 * MIB),  # what is left of a segment is kept by the block when it is no more than 1 MiB
        (11 * MIB - 512, 11 * MIB - 512, 12 * MIB),
    ],
)
def test_segments_are_those_of_cuda(asked, allocated, reserved):
    allocator = Allocator()
    allocator.allocate(asked)
    rest = allocator.reserved_bytes - allocated
    assert allocator.reserved_bytes == reserved
    assert allocator.allocated_bytes in (allocated, allocated + rest * (rest <= MIB))


def test_small_and_large_do_not_share_segments():
    allocator = Allocator()
    allocator.allocate(1000)
    allocator.allocate(2 * MIB)
    assert allocator.reserved_bytes == 22 * MIB


def test_best_fit_and_merging():
    allocator = Allocator()
    blocks = [allocator.allocate(4 * MIB) for _ in range(5)]  # one segment of 20 MiB
    assert allocator.reserved_bytes == 20 * MIB
    allocator.free(blocks[1])
    allocator.free(blocks[3])
    allocator.allocate(8 * MIB)  # two holes of 4 MiB do not make one of 8
    assert allocator.reserved_bytes == 40 * MIB
    allocator.free(blocks[2])  # now they are one of 12
    allocator.allocate(12 * MIB - 512)
    assert allocator.reserved_bytes == 40 * MIB


def test_any_order_leaves_nothing_and_never_overlaps():
    rng = random.Random(0)
    allocator, live = Allocator(), {}
    for number in range(20_000):
        if live and rng.random() < 0.5:
            allocator.free(live.pop(rng.choice(list(live))))
        else:
            live[number] = allocator.allocate(int(10 ** rng.uniform(0, 7.7)))
        if number % 500 == 0:
            spans = sorted((block.address, block.address + block.size) for block in live.values())
            assert all(a[1] <= b[0] for a, b in zip(spans, spans[1:], strict=False))
            assert allocator.allocated_bytes == sum(block.size for block in live.values()) <= allocator.reserved_bytes
    for block in live.values():
        allocator.free(block)
    assert allocator.allocated_bytes == 0
    free = [block for blocks in allocator._free.values() for _, _, block in blocks]
    assert all(block.before is block.after is None for block in free), "every segment is in one piece again"
    assert sum(block.size for block in free) == allocator.reserved_bytes


def test_replays_events():
    peak = replay([(0, 3 * MIB), (1, 3 * MIB), (0, -3 * MIB), (2, 2 * MIB)])
    assert (peak.allocated_bytes, peak.reserved_bytes) == (6 * MIB, 20 * MIB)
