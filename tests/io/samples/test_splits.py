"""Splits by a hash of the name: shares, minima, and names that do not move when others come."""

from __future__ import annotations

import pytest

from colabkit.io.samples.splits import SPLITS, split_names

SHARES = {"test_fraction": 0.2, "validation_fraction": 0.1, "seed": 0}


def counts_of(splits: dict[str, str]) -> dict[str, int]:
    return {split: list(splits.values()).count(split) for split in SPLITS}


@pytest.mark.parametrize("number", [3, 4, 7, 10, 40, 251, 399, 400, 5_000])
def test_every_split_gets_its_share(number):
    counts = counts_of(split_names([f"n{i}" for i in range(number)], **SHARES))
    assert sum(counts.values()) == number and min(counts.values()) >= 1
    assert counts["test"] == pytest.approx(0.2 * number, abs=1 + 0.03 * number)


def test_small_sets_keep_a_minimum():
    assert counts_of(split_names([f"n{i}" for i in range(8)], at_least=2, **SHARES)) == {"train": 4, "validation": 2, "test": 2}


def test_a_share_of_zero_leaves_its_split_empty():
    for number in (9, 900):
        counts = counts_of(split_names([f"n{i}" for i in range(number)], test_fraction=0.0, validation_fraction=0.1, seed=0))
        assert counts["test"] == 0 < counts["validation"] < counts["train"]


def test_names_and_seed_alone_decide():
    names = [f"n{i}" for i in range(50)]
    assert split_names(names, **SHARES) == split_names([*names[::-1], "n3"], **SHARES)
    assert split_names(names, **SHARES) != split_names(names, **{**SHARES, "seed": 1})


def test_a_name_added_to_a_large_set_moves_no_other():
    names = [f"n{i}" for i in range(500)]
    before, after = split_names(names, **SHARES), split_names([*names, "new"], **SHARES)
    assert all(after[name] == before[name] for name in names)
