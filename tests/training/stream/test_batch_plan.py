"""Tests of training.stream.batch_plan: every sample once, within the budget, little padding, any batch at any time."""

from __future__ import annotations

import math
import pickle
import time
from dataclasses import replace

import numpy as np
import pytest

from colabkit.core.errors import UsageError
from colabkit.training.sizing.chosen import PASS_SECONDS
from colabkit.training.sizing.partition import cut, tally
from colabkit.training.stream.batch_plan import (
    BatchPlan,
    Budget,
    GroupedOrder,
    SampleOrder,
    bucket_starts,
    length_order,
)


def speech_like(num: int, seed: int = 0) -> np.ndarray:
    """Durations shaped like LibriSpeech's: most from 12 to 16.5 seconds, the others spread below, some up to 35."""
    rng = np.random.default_rng(seed)
    full, short, long = rng.normal(14.6, 1.1, num), rng.gamma(3.0, 2.4, num), rng.uniform(17, 35, num)
    kind = rng.choice(3, num, p=[0.68, 0.315, 0.005])
    return np.round(np.choose(kind, [full.clip(10, 17), short.clip(1.3, 17), long]) * 16000) / 16000


DURATIONS = {
    "speech": lambda rng: speech_like(800),
    "heavy tail": lambda rng: np.minimum(rng.pareto(1.1, 500) + 0.2, 590),
    "one giant": lambda rng: np.r_[rng.uniform(0.5, 2, 500), 600.0],
    "all equal": lambda rng: np.full(377, 10.0),
    "ties": lambda rng: rng.choice([1.0, 2.5, 2.5, 30.0], 400),
    "one": lambda rng: np.array([3.0]),
    "two": lambda rng: np.array([3.0, 0.01]),
    "five equal, one not": lambda rng: np.array([1, 1, 5, 1, 1, 1.0]),
    "tiny": lambda rng: rng.uniform(1e-4, 1e-3, 400),
    "fewer than buckets": lambda rng: rng.uniform(1, 20, 17),
}
BUDGETS = {
    "seconds": Budget(padded_seconds=600),
    "just one": Budget(padded_seconds=600, max_samples=1),
    "samples": Budget(padded_seconds=600, max_samples=7),
    "memory": Budget(
        padded_seconds=6000, memory_bytes=1e9, base_bytes=2e8, bytes_per_second=8e5, bytes_per_second_squared=700.0
    ),
    "memory, no slope": Budget(padded_seconds=600, memory_bytes=1e9),
}


@pytest.fixture(params=DURATIONS)
def seconds(request) -> np.ndarray:
    return DURATIONS[request.param](np.random.default_rng(1))


@pytest.mark.parametrize("budget", BUDGETS.values(), ids=BUDGETS)
def test_every_sample_once_an_epoch_within_the_budget(seconds, budget):
    plan = BatchPlan(seconds, budget, seed=3)
    for epoch in (0, 1_000_000):
        batches = [plan.batch(epoch, k) for k in range(len(plan))]
        assert np.array_equal(np.sort(np.concatenate(batches)), np.arange(len(seconds)))
        for batch in batches:
            require_within(budget, seconds[batch])
            assert np.array_equal(seconds[batch], np.sort(seconds[batch]))  # shortest first


def require_within(budget: Budget, lengths: np.ndarray) -> None:
    num, longest = len(lengths), lengths.max()
    assert num >= 1
    assert num * longest <= budget.padded_seconds * (1 + 1e-9)
    assert num <= (budget.max_samples or num)
    if budget.memory_bytes is not None:
        memory = (
            budget.base_bytes
            + num * longest * budget.bytes_per_second
            + num * longest**2 * budget.bytes_per_second_squared
        )
        assert memory <= budget.memory_bytes * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(12))
def test_random_sets_and_settings(seed):
    rng = np.random.default_rng(seed)
    num = int(rng.integers(1, 400))
    seconds = rng.lognormal(rng.uniform(-1, 3), rng.uniform(0, 2), num)
    budget = Budget(padded_seconds=float(seconds.max() * rng.uniform(1, 50)), max_samples=int(rng.integers(1, 50)))
    plan = BatchPlan(
        seconds, budget, seed=seed, num_buckets=int(rng.integers(1, 60)), window_batches=int(rng.integers(1, 12))
    )
    batches = [plan.batch(seed, k) for k in range(len(plan))]
    assert np.array_equal(np.sort(np.concatenate(batches)), np.arange(num))
    for batch in batches:
        require_within(budget, seconds[batch])


def test_sizes_within_a_bucket_differ_by_one_at_most(seconds):
    plan = BatchPlan(seconds, BUDGETS["seconds"], seed=0)
    sizes: dict[int, list[int]] = {}
    place = np.empty(len(seconds), np.int64)
    place[plan.by_length] = np.arange(len(seconds))
    for k in range(len(plan)):
        batch = plan.batch(0, k)
        buckets = np.searchsorted(plan.starts, place[batch], side="right") - 1
        assert len(set(buckets.tolist())) == 1
        sizes.setdefault(int(buckets[0]), []).append(len(batch))
    assert len(sizes) == len(plan.starts) - 1
    assert all(max(found) - min(found) <= 1 for found in sizes.values())


def padding(order, seconds, epoch=0):
    """Return the share of padded seconds that is padding when each batch is padded whole, over an epoch."""
    lengths = [seconds[order.batch(epoch, k)] for k in range(len(order))]
    return 1 - seconds.sum() / sum(len(batch) * batch.max() for batch in lengths)


def test_padding_of_speech_is_at_most_three_percent():
    seconds = speech_like(20_000)
    plan = BatchPlan(seconds, Budget(padded_seconds=600), seed=0, num_buckets=30)
    assert padding(plan, seconds) <= 0.03
    assert padding(plan, seconds, epoch=5) <= 0.03
    filled = [len(b) * seconds[b].max() / 600 for b in (plan.batch(0, k) for k in range(len(plan)))]
    assert np.mean(filled) >= 0.9


def test_padding_is_what_it_says():
    seconds = np.array([1.0, 2.0, 4.0, 4.0])
    plan = BatchPlan(seconds, Budget(padded_seconds=100), seed=0, num_buckets=1)
    assert len(plan) == 1
    assert padding(plan, seconds) == pytest.approx(1 - 11 / 16)
    equal = np.full(9, 2.0)
    assert padding(BatchPlan(equal, Budget(padded_seconds=5), seed=0), equal) == 0


@pytest.mark.parametrize("ordered", ["increasing", "decreasing", "as it comes"])
def test_the_order_forgets_that_of_the_files(ordered):
    seconds = speech_like(20_000)
    seconds = {"increasing": np.sort(seconds), "decreasing": -np.sort(-seconds), "as it comes": seconds}[ordered]
    plan = BatchPlan(seconds, Budget(padded_seconds=200), seed=0)
    order = np.concatenate([plan.batch(0, k) for k in range(len(plan))])
    # Batches move whole, so there are far fewer independent draws than samples: four standard deviations.
    assert abs(np.corrcoef(np.arange(len(order)), order)[0, 1]) <= 4 / math.sqrt(len(plan))


def test_samples_of_one_length_are_mixed_freely():
    """A batch holds samples from everywhere, and any two may meet: equal lengths are not kept in the files' order."""
    num = 1600
    plan = BatchPlan(np.full(num, 10.0), Budget(padded_seconds=160), seed=0)
    spread = [np.ptp(plan.batch(0, k)) / num for k in range(len(plan))]
    assert np.mean(spread) > 0.8  # 15/17 by chance
    with_zero = set()
    for epoch in range(20):
        batches = [plan.batch(epoch, k) for k in range(len(plan))]
        with_zero |= {int(s) // (num // 8) for batch in batches if 0 in batch for s in batch}
    assert with_zero == set(range(8))  # samples of every eighth of the files were in a batch with sample 0


def test_any_batch_at_any_time_equals_going_through(seconds):
    plan = BatchPlan(seconds, BUDGETS["samples"], seed=9)
    in_turn = [plan.batch(2, k).tolist() for k in range(len(plan))]
    other = pickle.loads(pickle.dumps(BatchPlan(seconds, BUDGETS["samples"], seed=9)))
    for k in np.random.default_rng(0).permutation(len(plan)).tolist():
        assert other.batch(2, k).tolist() == in_turn[k]


def test_epochs_and_seeds_differ():
    plans = [BatchPlan(speech_like(5000), Budget(padded_seconds=200), seed=seed) for seed in (0, 1)]
    for orders in (
        [plans[0].batch(epoch, 0).tolist() for epoch in range(9)],
        [plan.batch(0, 0).tolist() for plan in plans],
    ):
        assert len({tuple(samples) for samples in orders}) == len(orders)
    seen = {tuple(plan.batch(epoch, k).tolist()) for plan in plans for epoch in range(2) for k in range(len(plan))}
    assert len(seen) >= 0.99 * sum(2 * len(plan) for plan in plans)


def test_epochs_of_a_small_source_make_new_batches_too():
    plan = BatchPlan(speech_like(600), Budget(padded_seconds=300), seed=0, num_buckets=6)
    batches = [{tuple(sorted(plan.batch(epoch, k).tolist())) for k in range(len(plan))} for epoch in (0, 1)]
    assert len(batches[0] & batches[1]) <= 0.2 * len(plan)


def test_a_sample_that_is_too_long_is_named():
    seconds = np.array([10.0, 700.5, 20.0, 900.25])
    with pytest.raises(UsageError) as caught:
        BatchPlan(seconds, Budget(padded_seconds=600), seed=0)
    text = str(caught.value)
    assert "A sample is too long for a batch" in text
    assert "900.2 s (2 lengths are too long)" in text
    assert "padded_seconds=600" in text
    assert "raise padded_seconds to 900" in text or "raise padded_seconds to 901" in text


def test_a_sample_too_big_for_the_memory_is_named():
    budget = Budget(padded_seconds=600, memory_bytes=1e9, base_bytes=5e8, bytes_per_second_squared=1e6)
    assert budget.capacity(22.0) == 1
    with pytest.raises(UsageError, match=r"23\.0 s"):
        BatchPlan(np.array([1.0, 23.0]), budget, seed=0)
    with pytest.raises(UsageError, match="too long"):
        BatchPlan(np.array([1.0]), replace(budget, base_bytes=2e9), seed=0)


@pytest.mark.parametrize("bad", [[], [0.0, 1.0], [-1.0], [np.nan], [1.0, np.inf], [[1.0, 2.0]]])
def test_durations_that_are_none(bad):
    with pytest.raises(UsageError, match="Cannot plan batches"):
        BatchPlan(np.array(bad), Budget(padded_seconds=10), seed=0)


@pytest.mark.parametrize("k", [-1, 10**9])
def test_batches_outside(k):
    for order in (BatchPlan(np.ones(5), Budget(padded_seconds=2), seed=0), SampleOrder(5, seed=0)):
        with pytest.raises(IndexError):
            order.batch(0, k)


def test_capacity():
    assert Budget(padded_seconds=600).capacity(600.0) == 1
    assert Budget(padded_seconds=0.3).capacity(0.1) == 3  # 2.9999999999999996 by division
    assert Budget(padded_seconds=600, max_samples=4).capacity(1.0) == 4
    assert Budget(padded_seconds=600).capacity(601.0) == 0
    # 1000 = 100 + B * (3 * 10 + 9 * 2)
    assert (
        Budget(
            padded_seconds=600, memory_bytes=1000, base_bytes=100, bytes_per_second=10, bytes_per_second_squared=2
        ).capacity(3.0)
        == 18
    )


def test_identity_changes_with_every_setting_and_duration():
    seconds = speech_like(300)
    budget = Budget(
        padded_seconds=600,
        max_samples=8,
        memory_bytes=1e9,
        base_bytes=1e6,
        bytes_per_second=1e5,
        bytes_per_second_squared=1e2,
    )

    def identity(seconds=seconds, budget=budget, **settings):
        return BatchPlan(seconds, budget, **{"seed": 0, **settings}).identity()

    longer, swapped = seconds.copy(), seconds.copy()
    longer[17] += 1e-6
    swapped[[3, 4]] = seconds[[4, 3]]
    assert seconds[3] != seconds[4]
    found = [
        identity(),
        identity(longer),
        identity(swapped),
        identity(seconds[:-1]),
        identity(seed=1),
        identity(num_buckets=29),
        identity(window_batches=7),
        identity(budget=replace(budget, max_samples=None)),
        identity(budget=replace(budget, memory_bytes=None)),
    ]
    found += [
        identity(budget=replace(budget, **{name: getattr(budget, name) + 1})) for name in Budget.__dataclass_fields__
    ]
    assert len(set(found)) == len(found)
    assert identity() == identity(seconds.tolist())
    assert identity() == identity(budget=replace(budget, padded_seconds=600.0, base_bytes=1_000_000))


def test_edges_of_buckets_are_the_best_there_are():
    """Against all ways to cut a few samples into buckets."""
    from itertools import combinations

    rng = np.random.default_rng(4)
    for num_buckets in (1, 2, 3, 4):
        seconds = np.sort(rng.pareto(1.0, 9) + 1)

        def cost(starts, seconds=seconds):
            return sum((b - a) * seconds[b - 1] for a, b in zip(starts, starts[1:], strict=False))

        best = min(cost([0, *cut, 9]) for cut in combinations(range(1, 9), num_buckets - 1))
        starts = bucket_starts(seconds, num_buckets)
        assert starts[0] == 0 and starts[-1] == 9 and len(starts) == num_buckets + 1
        assert cost(starts.tolist()) == pytest.approx(best)


@pytest.mark.parametrize(("num", "size"), [(1, 1), (10, 3), (12, 3), (5, 50), (300, 1)])
def test_sample_order(num, size):
    order = SampleOrder(num, seed=1, batch_samples=size)
    for epoch in (0, 1):
        batches = [order.batch(epoch, k).tolist() for k in range(len(order))]
        assert sorted(s for batch in batches for s in batch) == list(range(num))
        assert [len(batch) for batch in batches[:-1]] == [size] * (len(order) - 1)
    plain = SampleOrder(num, seed=1, batch_samples=size, shuffle=False)
    assert [s for k in range(len(plain)) for s in plain.batch(7, k).tolist()] == list(range(num))
    if num == 300:
        assert [int(order.batch(0, k)[0]) for k in range(num)] != [int(order.batch(1, k)[0]) for k in range(num)]


def test_sample_order_identity_and_errors():
    found = [
        SampleOrder(10, seed=0),
        SampleOrder(11, seed=0),
        SampleOrder(10, seed=1),
        SampleOrder(10, seed=0, batch_samples=2),
        SampleOrder(10, seed=0, shuffle=False),
    ]
    assert len({order.identity() for order in found}) == len(found)
    for num, size in ((0, 1), (-1, 1), (5, 0)):
        with pytest.raises(UsageError, match="Cannot order samples"):
            SampleOrder(num, seed=0, batch_samples=size)


# --- exact batches of similar length ---


@pytest.mark.parametrize("name", DURATIONS)
@pytest.mark.parametrize("batch_samples", [1, 3, 16, 1000])
def test_grouped_every_sample_once_and_every_batch_full_but_the_last(name, batch_samples):
    seconds = DURATIONS[name](np.random.default_rng(0))
    order = GroupedOrder(seconds, batch_samples, seed=3)
    for epoch in (0, 1, 7):
        batches = [order.batch(epoch, k) for k in range(len(order))]
        assert sorted(np.concatenate(batches).tolist()) == list(range(len(seconds)))
        sizes = [len(batch) for batch in batches]
        assert sizes[:-1] == [batch_samples] * (len(order) - 1)
        assert sizes[-1] == (len(seconds) - 1) % batch_samples + 1
        assert all((np.diff(seconds[batch]) >= 0).all() for batch in batches)


def test_grouped_pads_far_less_than_a_shuffle():
    seconds = speech_like(5000)
    order, shuffled = GroupedOrder(seconds, 32, seed=0), SampleOrder(5000, seed=0, batch_samples=32)
    assert max(padding(order, seconds), padding(order, seconds, epoch=1)) < padding(shuffled, seconds) / 3


def test_grouped_epochs_and_seeds_differ_and_neighbours_are_not_sorted():
    seconds = speech_like(960)
    order = GroupedOrder(seconds, 16, seed=0)
    epochs = [{frozenset(order.batch(epoch, k).tolist()) for k in range(len(order))} for epoch in range(3)]
    assert len(epochs[0] & epochs[1]) + len(epochs[1] & epochs[2]) <= 2
    other = {frozenset(GroupedOrder(seconds, 16, seed=1).batch(0, k).tolist()) for k in range(len(order))}
    assert len(epochs[0] & other) <= 1
    means = np.array([seconds[order.batch(0, k)].mean() for k in range(len(order))])
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.4


def test_grouped_small_sets_are_not_sorted_whole():
    """With one window for all samples each epoch would have the same batches."""
    seconds = speech_like(64)
    order = GroupedOrder(seconds, 8, seed=0)
    assert order.window_batches == 2
    first, second = ({frozenset(order.batch(epoch, k).tolist()) for k in range(8)} for epoch in (0, 1))
    assert not first & second


def test_grouped_samples_left_over_are_of_any_length():
    """The small batch at the end of an epoch must not always hold the longest."""
    seconds = np.sort(speech_like(100))
    order = GroupedOrder(seconds, 32, seed=0)
    left_over = np.array([order.batch(epoch, len(order) - 1) for epoch in range(60)])
    assert 30 < left_over.mean() < 70 and len(np.unique(left_over)) > 60


def test_grouped_identity_changes_with_everything_that_changes_batches():
    seconds = speech_like(200)
    base = GroupedOrder(seconds, 16, seed=0)
    assert base.identity() == GroupedOrder(seconds.copy(), 16, seed=0).identity()
    others = [
        GroupedOrder(seconds, 17, seed=0),
        GroupedOrder(seconds, 16, seed=1),
        GroupedOrder(seconds[::-1], 16, seed=0),
        GroupedOrder(seconds, 16, seed=0, window_batches=2),
    ]
    assert len({base.identity(), *(other.identity() for other in others)}) == 5
    assert (pickle.loads(pickle.dumps(base)).batch(2, 3) == base.batch(2, 3)).all()


def test_grouped_takes_little_time_in_a_large_set():
    order = GroupedOrder(speech_like(1_000_000), 32, seed=0)
    began = time.perf_counter()
    for k in range(20):
        order.batch(3, k * 1000)
    assert (time.perf_counter() - began) / 20 < 0.02


@pytest.mark.parametrize("seconds, batch_samples", [([], 4), ([1.0, math.nan], 4), ([1.0], 0)])
def test_grouped_refuses_what_cannot_be(seconds, batch_samples):
    with pytest.raises(UsageError):
        GroupedOrder(np.array(seconds), batch_samples, seed=0)
    with pytest.raises(IndexError):
        GroupedOrder(np.array([1.0]), 1, seed=0).batch(0, 1)


# --- what trains ---


def test_an_optimizer_step_holds_exactly_so_many_samples_or_at_most_so_many_seconds():
    seconds = speech_like(1500)
    counted = length_order(seconds, seed=0, effective_batch=32)
    timed = length_order(seconds, seed=0, effective_seconds=400)
    for order in (counted, timed):
        batches = [order.batch(3, k) for k in range(len(order))]
        assert sorted(np.concatenate(batches).tolist()) == list(range(1500))
        if order is counted:
            assert {len(batch) for batch in batches[:-1]} == {32}
        else:
            padded = np.array([len(batch) * seconds[batch].max() for batch in batches])
            assert padded.max() <= 400 and padded.mean() > 0.8 * 400
            assert len({len(batch) for batch in batches}) > 5, "of short samples there are more"


@pytest.mark.parametrize("asked", [{"effective_batch": 32}, {"effective_seconds": 400}])
@pytest.mark.parametrize("num", [2_900, 20_000])
def test_what_trains_pads_two_percent_at_most(asked, num):
    """Cut as the guard cuts on a T4, where some 420 s of audio go through at once, and where whole steps do."""
    seconds = speech_like(num)
    order = length_order(seconds, seed=0, **asked)
    steps = [seconds[order.batch(0, k)].tolist() for k in range(0, len(order), max(1, len(order) // 100))]
    for limit in (lambda longest: int(420 / longest), lambda longest: 10_000):
        _, padded, padding = tally(steps, limit, PASS_SECONDS["cuda"])
        assert padding <= 0.02 * padded
    longest = max(steps, key=lambda lengths: lengths[-1] - lengths[0])
    assert len(cut(longest, lambda longest: 10_000, PASS_SECONDS["cuda"])) > 1, "where that saves more than it costs"


def test_few_samples_meet_others_in_each_epoch_too():
    seconds = speech_like(256)
    for asked in ({"effective_batch": 16}, {"effective_seconds": 200}):
        order = length_order(seconds, seed=0, **asked)
        first, second = ({frozenset(order.batch(epoch, k).tolist()) for k in range(len(order))} for epoch in (0, 1))
        assert len(first & second) <= 0.1 * len(order)


@pytest.mark.parametrize("asked", [{}, {"effective_batch": 4, "effective_seconds": 40.0}])
def test_a_step_is_said_in_one_way(asked):
    with pytest.raises(UsageError, match="in one way") as told:
        length_order(np.array([1.0, 2.0]), seed=0, **asked)
    assert "train.effective_seconds" in told.value.fix
