"""The samples of a step to parts that fit: the fewest parts, and of those the ones that pad least."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest

from colabkit.training.sizing.partition import RATIO, bucket_of, cut, edge_seconds, tally


@pytest.mark.parametrize("seed", range(20))
def test_every_sample_is_in_one_part_that_fits(seed):
    drawn = np.random.default_rng(seed)
    seconds = drawn.uniform(0.5, 30.0, int(drawn.integers(1, 60))).tolist()

    def limit(longest):
        return int(80 / longest)

    parts = cut(seconds, limit)
    assert sorted(i for part in parts for i in part) == list(range(len(seconds)))
    assert all(len(part) <= limit(max(seconds[i] for i in part)) for part in parts)
    longest = [max(seconds[i] for i in part) for part in parts]
    assert longest == sorted(longest, reverse=True)

    greedy, left = 0, sorted(seconds, reverse=True)
    padded = 0.0
    while left:
        greedy, padded, left = greedy + 1, padded + left[0] * len(left[: limit(left[0])]), left[limit(left[0]) :]
    assert len(parts) == greedy, "as few parts as can be"
    assert sum(longest[k] * len(part) for k, part in enumerate(parts)) <= padded + 1e-6


def test_of_as_many_parts_the_one_with_least_padding_is_taken():
    assert cut([1.0, 10.0, 9.0, 1.1, 1.2], lambda longest: 4) == [[1, 2], [4, 3, 0]]


def test_another_part_is_made_where_it_costs_less_than_the_padding_it_saves():
    seconds = [30.0, *[10.0] * 31]
    assert len(cut(seconds, lambda longest: 32)) == 1
    assert [len(part) for part in cut(seconds, lambda longest: 32, 20.0)] == [1, 31]
    assert len(cut(seconds, lambda longest: 32, 31 * 20.0 + 1)) == 1, "it saves 620 s of padding and costs 621 s"
    assert tally([seconds, seconds], lambda longest: 32) == (2, 2 * 32 * 30.0, 2 * 31 * 20.0)
    assert tally([seconds], lambda longest: 32, 20.0) == (2, 340.0, 0.0)


@pytest.mark.parametrize("seed", range(5))
def test_parts_take_the_least_time_there_is(seed):
    """Against all ways to cut a few samples, longest first."""
    drawn = np.random.default_rng(seed)
    lengths, cost = sorted(drawn.uniform(1, 20, 9).tolist(), reverse=True), float(drawn.uniform(0, 10))

    def limit(longest):
        return int(60 / longest)

    times = []
    for places in product((False, True), repeat=8):
        bounds = [0, *(i + 1 for i, is_cut in enumerate(places) if is_cut), 9]
        if all(stop - start <= limit(lengths[start]) for start, stop in pairwise(bounds)):
            times.append(sum(cost + (stop - start) * lengths[start] for start, stop in pairwise(bounds)))
    num_parts, padded, _ = tally([lengths], limit, cost)
    assert num_parts * cost + padded == pytest.approx(min(times))


def test_equal_lengths_are_dealt_out_evenly_in_order():
    assert cut([2.0] * 10, lambda longest: 4) == [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert cut([2.0] * 3, lambda longest: 0) == [[0], [1], [2]], "one is tried whatever was predicted"
    assert cut([], lambda longest: 4) == []


def test_buckets_are_narrow_and_few():
    lengths = np.geomspace(0.02, 3600, 5000)
    buckets = [bucket_of(s) for s in lengths]
    assert buckets == sorted(buckets) and len(set(buckets)) < 120
    for seconds, bucket in zip(lengths, buckets, strict=True):
        assert edge_seconds(bucket - 1) < seconds * (1 + 1e-6) and seconds <= edge_seconds(bucket) * (1 + 1e-6)
        assert bucket_of(edge_seconds(bucket)) == bucket
    assert bucket_of(0.0) == bucket_of(1e-3) and RATIO == 1.12
