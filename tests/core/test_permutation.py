"""Tests of colabkit.core.permutation: one-to-one, the same for ever, and as good as a shuffle."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import numpy as np
import pytest

from colabkit.core.permutation import combine, permute, uniform

SIZES = [*range(1, 70), 99, 100, 101, 255, 256, 257, 1000, 1023, 1025, 4096, 9999, 65537, 100_003]


def rank_correlation(order: np.ndarray) -> float:
    """Spearman's, of a permutation with the order of the numbers."""
    return float(np.corrcoef(np.arange(len(order)), order)[0, 1])


@pytest.mark.parametrize("key", [(), (0,), (1, 2), (-1,), (2**64 - 1, 3), (5, 0, -1)])
def test_every_size_is_one_to_one(key):
    for size in SIZES:
        order = permute(np.arange(size), size, *key)
        assert order.dtype == np.int64
        assert np.array_equal(np.sort(order), np.arange(size)), size


def test_golden_values():
    """Old states lean on these: another algorithm needs another version of the stream's state."""
    assert permute(np.arange(6), 10, 0).tolist() == [9, 4, 3, 1, 2, 5]
    assert permute(np.arange(7), 7, 1).tolist() == [0, 1, 6, 2, 4, 5, 3]
    assert permute([0, 1, 499_999, 999_999], 10**6, 7, 3).tolist() == [127055, 236850, 787094, 467483]
    assert permute([0, 1, 10**15 - 1], 10**15, 2**63, -1).tolist() == [1106410515951, 231269661493692, 183352647975983]
    assert [combine(), combine(0), combine(1, 2), combine(-1)] == [
        0,
        9048247064618004702,
        5706482197684766580,
        14419215886051186988,
    ]
    assert uniform(np.arange(3), 5).tolist() == [0.012592199360905054, 0.3286756416548152, 0.7933001810138691]


def test_positions_may_come_alone_in_parts_in_any_shape_and_order():
    size = 1000
    whole = permute(np.arange(size), size, 3, 4)
    assert [int(permute(k, size, 3, 4)) for k in range(0, size, 37)] == whole[::37].tolist()
    assert permute(5, size, 3, 4).shape == ()
    assert np.array_equal(permute(np.arange(size).reshape(10, 100), size, 3, 4), whole.reshape(10, 100))
    assert np.array_equal(permute(np.arange(size)[::-1], size, 3, 4), whole[::-1])
    assert np.array_equal(permute(np.arange(size, dtype=np.uint16), size, 3, 4), whole)
    assert permute([7, 7, 7], size, 3, 4).tolist() == [whole[7]] * 3
    assert permute([], size, 3, 4).shape == (0,)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_small_sizes_are_uniform(size):
    """Every order comes about equally often over the keys (chi-squared, 5 standard deviations)."""
    num_keys = 3000
    seen = Counter(tuple(permute(np.arange(size), size, 11, k).tolist()) for k in range(num_keys))
    orders = list(permutations(range(size)))
    expected = num_keys / len(orders)
    chi_squared = sum((seen[order] - expected) ** 2 / expected for order in orders)
    freedom = len(orders) - 1
    assert set(seen) == set(orders)
    assert chi_squared < freedom + 5 * np.sqrt(2 * freedom)


def test_where_one_position_goes_is_uniform():
    size, num_keys = 10, 3000
    for position in (0, 4, 9):
        counts = np.bincount([int(permute(position, size, k)) for k in range(num_keys)], minlength=size)
        assert ((counts - num_keys / size) ** 2).sum() / (num_keys / size) < 9 + 5 * np.sqrt(18)


@pytest.mark.parametrize("key", [(0, 0), (0, 1), (1, 0), (123456789, 7)])
def test_a_shuffle_forgets_the_order(key):
    size = 100_000
    order = permute(np.arange(size), size, *key)
    assert abs(rank_correlation(order)) <= 0.01
    # Neighbours do not stay neighbours: their distance is that of two random numbers, a third of the size on average.
    assert np.abs(np.diff(order)).mean() == pytest.approx(size / 3, rel=0.02)
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) <= 0.012
    fixed = np.count_nonzero(order == np.arange(size))
    assert fixed <= 8  # one on average


def test_seeds_and_epochs_are_independent():
    size = 20_000
    orders = [
        permute(np.arange(size), size, *key)
        for key in [(0, 0), (0, 1), (1, 0), (1, 1), (2**32, 0), (0, 2**32), (-1, 0)]
    ]
    for i, one in enumerate(orders):
        for other in orders[:i]:
            assert np.count_nonzero(one == other) <= 10  # one on average
            assert abs(np.corrcoef(one, other)[0, 1]) < 5 / np.sqrt(size)


def test_keys_depend_on_every_number_and_their_order():
    keys = [(), (0,), (0, 0), (1,), (0, 1), (1, 0), (1, 2), (2, 1), (-1,), (3,), (1, 1)]
    assert len({combine(*key) for key in keys}) == len(keys)
    assert all(0 <= combine(*key) < 2**64 for key in keys)


def test_numbers_are_uniform_and_independent_of_neighbours():
    numbers = uniform(np.arange(100_000), 3, 1)
    assert 0 <= numbers.min() and numbers.max() < 1
    assert np.histogram(numbers, bins=20, range=(0, 1))[0].std() < 100  # about 70 by chance
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.016
    assert abs(np.corrcoef(numbers, uniform(np.arange(100_000), 3, 2))[0, 1]) < 0.016
    assert uniform(41, 3, 1) == numbers[41]


@pytest.mark.parametrize(("positions", "size"), [([-1], 5), ([5], 5), ([0, 1, 99], 7), (0, 0), ([0], -3)])
def test_positions_outside_are_refused(positions, size):
    with pytest.raises(ValueError, match=f"positions from .* of a shuffle of {size}"):
        permute(positions, size, 0)
