"""Tests of training.stream.mixture: shares, curricula, and every sample of every source once in each of its epochs."""

from __future__ import annotations

import itertools
import pickle
import random

import numpy as np
import pytest

from colabkit.core.errors import UsageError
from colabkit.training.stream.batch_plan import SampleOrder
from colabkit.training.stream.mixture import Mixture
from colabkit.training.stream.stream import Source, Stream

SCHEDULES = {
    "equal": [(0, [1, 1])],
    "unequal": [(0, [0.9, 0.1])],
    "three": [(0, [5, 3, 2])],
    "thirds": [(0, [1 / 3, 1 / 3, 1 / 3])],
    "one rests": [(0, [2, 0, 1])],
    "the last rests": [(0, [1, 2, 0])],
    "one works": [(0, [0, 1])],
    "rare": [(0, [1, 0.002])],
    "curriculum": [(0, [1, 0, 0]), (100, [1, 1, 0]), (777, [0, 1, 3]), (2000, [0, 0, 1])],
    "one pick a phase": [(n, [1, 2]) for n in range(40)],
    "many": [(0, list(range(1, 21)))],
}
NUM_PICKS = 4000


def mixture_of(name: str, seed: int = 0) -> Mixture:
    schedule = SCHEDULES[name]
    return Mixture(len(schedule[0][1]), schedule, seed=seed)


@pytest.mark.parametrize("name", SCHEDULES)
def test_ordinals_count_the_picks_of_their_source(name):
    mixture = mixture_of(name)
    seen = np.zeros(mixture.num_sources, np.int64)
    for n in range(NUM_PICKS):
        if n % 37 == 0 or n < 300:
            assert np.array_equal(mixture.counts(n), seen)
        source, ordinal = mixture.pick(n)
        assert ordinal == seen[source]
        seen[source] += 1


@pytest.mark.parametrize("name", SCHEDULES)
def test_shares_are_those_of_the_weights(name):
    """At any time: within two picks for two sources, within three for more."""
    mixture = mixture_of(name, seed=5)
    ends = [first for first, _ in mixture.schedule[1:]] + [NUM_PICKS]
    for (first, weights), end in zip(mixture.schedule, ends, strict=True):
        shares = np.array(weights) / sum(weights)
        counts = mixture.counts(first)
        assert all(mixture.pick(n)[0] in np.flatnonzero(shares) for n in range(first, end))  # zero rests
        for n in range(first, end, 1 if end - first < 100 else 7):
            off = np.abs(mixture.counts(n) - counts - (n - first) * shares).max()
            assert off <= (2 if np.count_nonzero(shares) <= 2 else 3), (n, off)


def test_shares_stay_exact_far_along():
    mixture = Mixture(3, [(0, [0.2, 0.3, 0.5])], seed=0)
    for n in (10**9, 10**12 + 7, 10**15 + 1):
        counts = mixture.counts(n)
        assert counts.sum() == n
        assert np.abs(counts - n * np.array([0.2, 0.3, 0.5])).max() <= 3 + n * 2.0**-32  # weights are fixed point
        for step in range(200):
            source, ordinal = mixture.pick(n + step)
            assert ordinal == counts[source]
            counts[source] += 1


def test_picks_are_shuffled():
    """Neither runs of one source nor a fixed rhythm."""
    mixture = Mixture(2, [(0, [1, 1])], seed=0)
    picks = [mixture.pick(n)[0] for n in range(2000)]
    runs = [len(list(group)) for _, group in itertools.groupby(picks)]
    assert max(runs) <= 4
    assert len(set(runs)) > 1
    assert picks[:1000] != picks[1000:]
    assert picks != [Mixture(2, [(0, [1, 1])], seed=1).pick(n)[0] for n in range(2000)]


def test_any_pick_at_any_time():
    for name in SCHEDULES:
        in_turn = [mixture_of(name).pick(n) for n in range(500)]
        other = pickle.loads(pickle.dumps(mixture_of(name)))
        numbers = list(range(500))
        random.Random(0).shuffle(numbers)
        assert all(other.pick(n) == in_turn[n] for n in numbers)


@pytest.mark.parametrize("schedule", [[(0, [3, 1, 2])], [(0, [1, 0, 1]), (200, [0, 1, 1]), (333, [5, 1, 0])]])
def test_every_sample_once_in_each_epoch_of_its_source(schedule):
    """Through Stream: epochs of one source are whole, whatever the others do."""
    sizes = {"large": 90, "small": 7, "odd": 33}
    sources = [
        Source(name, name, SampleOrder(num, seed=i, batch_samples=4)) for i, (name, num) in enumerate(sizes.items())
    ]
    stream = Stream(sources, seed=0, schedule=schedule)
    epochs: dict[tuple[str, int], list[int]] = {}
    last = {}
    for number in range(600):
        item = stream.item(number)
        epochs.setdefault((item.source, item.epoch), []).extend(item.samples.tolist())
        last[item.source] = item.epoch
    for (name, epoch), samples in epochs.items():
        if epoch < last[name]:
            assert sorted(samples) == list(range(sizes[name]))
        else:
            assert len(set(samples)) == len(samples)
    assert last["small"] >= 10 and last["odd"] >= 10


def test_identity():
    one = Mixture(2, [(0, [1, 2])], seed=0)
    others = [
        Mixture(2, [(0, [1, 3])], seed=0),
        Mixture(2, [(0, [1, 2])], seed=1),
        Mixture(2, [(0, [1, 2]), (9, [1, 2])], seed=0),
        Mixture(3, [(0, [1, 2, 0])], seed=0),
    ]
    assert len({m.identity() for m in [one, *others]}) == 5
    assert one.identity() == Mixture(2, ((0, (1.0, 2.0)),), seed=0).identity()


@pytest.mark.parametrize(
    ("num", "schedule", "says"),
    [
        (2, [], "weights that start at"),
        (2, [(5, [1, 1])], "the first at 0"),
        (2, [(0, [1, 1]), (0, [2, 1])], "the first at 0"),
        (2, [(0, [1, 1]), (9, [2, 1]), (3, [1, 1])], "in order"),
        (2, [(0, [1, 1, 1])], "2 weights"),
        (2, [(0, [1, -1])], "none negative"),
        (2, [(0, [0, 0])], "not all zero"),
        (2, [(0, [1, float("nan")])], "2 weights"),
        (2, [(0, [1, float("inf")])], "2 weights"),
        (2, [(0, [1, 1e-7])], "too small"),
    ],
)
def test_schedules_that_cannot_be(num, schedule, says):
    with pytest.raises(UsageError, match=says):
        Mixture(num, schedule, seed=0)
