"""A workload as predictions know it: what makes two of them the same, and how a regime is told in words."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from colabkit.training.sizing.workload import Regime
from tests.training.sizing.sized import workload


@pytest.mark.parametrize(
    "regime, words",
    [
        (Regime(), "fp32, AdamW"),
        (Regime(precision="bf16", checkpointing=True), "bf16, AdamW, gradient checkpointing"),
        (Regime(precision="fp16", optimizer="adamw_8bit", ema=True), "fp16, 8-bit AdamW, averaged weights"),
        (Regime(optimizer="sgd", world=4, checkpointing=True), "fp32, SGD, gradient checkpointing, 4 processes"),
    ],
)
def test_a_regime_in_words(regime, words):
    assert regime.describe() == words


def test_predictions_are_kept_apart_by_what_is_built_and_by_every_part_of_the_regime():
    changes = {
        "precision": "bf16",
        "optimizer": "sgd",
        "checkpointing": True,
        "ema": True,
        "world": 2,
        "accumulates": False,
    }
    assert {field.name for field in fields(Regime)} == changes.keys()
    one = workload()
    keys = {one.key(Regime()), *(one.key(replace(Regime(), **{name: value})) for name, value in changes.items())}
    assert len(keys) == 1 + len(changes) and workload(7).key(Regime()) not in keys
    assert replace(one, name="by another name").key(Regime()) == one.key(Regime())
