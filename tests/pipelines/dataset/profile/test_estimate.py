"""Estimates from samples: right as often as they claim, exact when all is known, every group seen."""

from __future__ import annotations

import numpy as np
import pytest

from colabkit.pipelines.dataset.profile.estimate import choose_sample, estimate_total


def population(seed: int, number: int = 6_000, noise: float = 0.1):
    draw = np.random.default_rng(seed)
    groups = draw.choice(["a", "b", "c"], number, p=[0.9, 0.09, 0.01])
    seconds = draw.gamma(3, 2, number)
    factor = np.where(groups == "a", 96_000, np.where(groups == "b", 64_000, 32_000))
    return (
        groups.tolist(),
        (seconds * factor * draw.uniform(1 - noise, 1 + noise, number)).astype(np.int64) + 600,
        seconds,
    )


def test_the_interval_holds_the_truth_as_often_as_it_says():
    hits, widths = 0, []
    for seed in range(200):
        groups, sizes, seconds = population(seed, 1_500)
        chosen = choose_sample(groups, sizes, 150, seed)
        found = estimate_total(groups, sizes, chosen, seconds[chosen].tolist())
        hits += abs(found.total - seconds.sum()) <= found.margin
        widths.append(found.margin / found.total)
    assert hits >= 180 and np.mean(widths) < 0.03  # 95 % of 200, less what chance and small strata take


def test_with_everything_known_nothing_is_left_to_chance():
    groups, sizes, seconds = population(0, 500)
    chosen = choose_sample(groups, sizes, 500)
    assert chosen.tolist() == list(range(500))
    found = estimate_total(groups, sizes, chosen, seconds.tolist())
    assert found.total == pytest.approx(seconds.sum()) and found.margin == 0
    assert found.by_group == pytest.approx({g: seconds[np.array(groups) == g].sum() for g in "abc"})


def test_groups_have_totals_of_their_own():
    """Also small ones, of which more is looked at than of the others."""
    groups, sizes, seconds = population(0)
    chosen = choose_sample(groups, sizes, 300)
    found = estimate_total(groups, sizes, chosen, seconds[chosen].tolist())
    for group in "abc":
        assert found.by_group[group] == pytest.approx(seconds[np.array(groups) == group].sum(), rel=0.05)
    assert found.total == pytest.approx(sum(found.by_group.values()))


def test_every_group_and_size_is_seen_and_the_choice_repeats():
    groups, sizes, _ = population(0)
    chosen = choose_sample(groups, sizes, 300, seed=1)
    assert {groups[i] for i in chosen} == {"a", "b", "c"} and 300 <= len(chosen) < 350
    assert np.array_equal(chosen, choose_sample(groups, sizes, 300, seed=1)) and len(set(chosen.tolist())) == len(
        chosen
    )
    assert np.quantile(sizes[chosen], 0.01) < np.quantile(sizes, 0.05)
    assert np.quantile(sizes[chosen], 0.99) > np.quantile(sizes, 0.9)


def test_one_unknown_length_makes_the_total_unknown():
    assert estimate_total(["a", "a"], np.array([1, 1]), np.array([0, 1]), [1.0, None]) is None


def test_few_files_and_files_of_no_bytes():
    assert choose_sample(["a"], np.array([5]), 0).tolist() == [0]
    assert estimate_total(["a"] * 9, np.zeros(9, int), np.array([0, 1, 2, 5]), [0.0] * 4).total == 0
