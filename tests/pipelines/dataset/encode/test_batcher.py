"""Batches are of one length, within limits, the same for the same order, and nothing waits for ever."""

from __future__ import annotations

import random

import pytest

from colabkit.pipelines.dataset.encode.batcher import Batcher, Waiting


def segments(seed: int, number: int, lengths: int, most_cost: int = 1000) -> list[Waiting]:
    rng = random.Random(seed)
    chosen = [rng.randint(1, lengths) for _ in range(number)]
    return [Waiting(i, n, n / 50, rng.randint(1, most_cost)) for i, n in enumerate(chosen)]


def run(batcher: Batcher, given: list[Waiting]) -> list[list[Waiting]]:
    batches = [batch for segment in given for batch in batcher.push(segment)]
    return batches + batcher.flush()


@pytest.mark.parametrize("seed", range(40))
def test_every_segment_leaves_once_in_a_batch_of_its_length_and_within_the_limits(seed):
    rng = random.Random(1000 + seed)
    given = segments(seed, 400, rng.choice([1, 5, 60, 700]))
    most_seconds, window = rng.choice([0.5, 4.0, 60.0]), rng.choice([0, 500, 20_000, 10**9])
    total = sum(s.cost for s in given) if rng.random() < 0.5 else None
    batcher, batches = Batcher(most_seconds, window, total_bytes=total), []
    come = 0
    for segment in given:
        left = batcher.push(segment)
        come += segment.cost
        batches += left
        assert batcher.waiting_bytes <= min(window, come // 2)
        if total:
            assert batcher.waiting_bytes <= total - come
    batches += batcher.flush()
    assert batcher.waiting_bytes == 0 and len(batcher) == 0
    assert sorted(s.item for batch in batches for s in batch) == list(range(400))
    for batch in batches:
        assert len({s.num_frames for s in batch}) == 1
        assert len(batch) == 1 or sum(s.seconds for s in batch) <= most_seconds + 1e-6
    again = run(Batcher(most_seconds, window, total_bytes=total), given)
    assert [[s.item for s in b] for b in again] == [[s.item for s in b] for b in batches]


def test_the_first_leaves_at_once_and_batches_grow():
    batcher = Batcher(40.0, 10**9)
    given = [Waiting(i, 1 + i % 20, 1.0, 100) for i in range(4000)]
    sizes = [len(batch) for segment in given for batch in batcher.push(segment)]
    assert sizes[0] == 1
    assert sum(sizes[-20:]) / 20 > 30, sizes[-20:]


def test_a_rare_length_does_not_wait_for_ever():
    batcher = Batcher(1000.0, 10_000, most_age_bytes=30_000)
    batcher.push(Waiting(-2, 5, 1.0, 10))
    batcher.push(Waiting(-1, 6, 1.0, 10))
    left = {}
    for i in range(1000):
        for batch in batcher.push(Waiting(i, 7 + i % 3, 1.0, 100)):
            left |= {s.item: i for s in batch}
    assert left[-1] * 100 <= 30_100
    assert max(at - item for item, at in left.items() if item >= 0) * 100 <= 30_100


def test_little_is_left_at_the_end():
    given = [Waiting(i, i % 50, 1.0, 100) for i in range(2000)]
    batcher = Batcher(1000.0, 40_000, total_bytes=200_000)
    for segment in given[:-3]:
        batcher.push(segment)
    assert batcher.waiting_bytes <= 300


def test_room_is_made_for_what_comes_next():
    batcher = Batcher(1000.0, 10_000)
    for i in range(100):
        batcher.push(Waiting(i, i % 7, 1.0, 500))
    assert batcher.waiting_bytes > 5000
    left = batcher.shrink(2000)
    assert left and batcher.waiting_bytes <= 2000
