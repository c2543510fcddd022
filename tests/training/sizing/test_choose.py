"""Precision, checkpointing and batch sizes: each rule, what it says, and errors that say how much something helps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from colabkit.core.errors import UsageError
from colabkit.training.sizing.devices import GIB, find
from colabkit.training.sizing.pool import Predictions
from tests.training.sizing.sized import emulated, predicted, reasons, sized


@pytest.mark.parametrize("device, precision", [("T4", "fp16"), ("V100-16", "fp16"), ("L4", "bf16"), ("H200", "bf16")])
def test_precision_is_what_the_gpu_computes_in(device, precision):
    sizing = sized(device)
    assert sizing.regime.precision == precision and find(device).name in reasons(sizing)["precision"]


def test_precision_without_tensor_cores_and_on_a_cpu():
    old = replace(find("T4"), name="P100", capability="6.0", has_fp16_tensor_cores=False)
    assert sized(old).regime.precision == "fp32"
    assert sized(emulated(16 * GIB)).regime.precision == "fp32"


def test_a_precision_that_is_set_is_kept_and_one_that_is_not_there_is_refused():
    assert sized("A100-40", precision="fp32").regime.precision == "fp32"
    with pytest.raises(UsageError, match="bfloat16"):
        sized("T4", precision="bf16")


def test_no_checkpointing_where_a_whole_step_fits():
    sizing = sized("A100-80", np.linspace(1, 5, 50))
    assert not sizing.regime.checkpointing and "all 32" in reasons(sizing)["checkpointing"]


def test_checkpointing_where_a_pass_would_be_poor_without():
    sizing = sized("T4", predict=predicted(state_gib=9.0, per_second_mib=75))
    assert sizing.regime.checkpointing and "faster" in reasons(sizing)["checkpointing"]
    assert not sized("A100-40", predict=predicted(state_gib=9.0, per_second_mib=75)).regime.checkpointing


def test_checkpointing_where_the_longest_does_not_fit_without():
    sizing = sized("T4", predict=predicted(state_gib=9.0, per_second_mib=150))
    assert sizing.regime.checkpointing and "not even one sample of 30.0 s" in reasons(sizing)["checkpointing"]


def test_checkpointing_that_is_set():
    assert (
        sized("H200", checkpointing="yes").regime.checkpointing
        and not sized("T4", checkpointing="no").regime.checkpointing
    )
    with pytest.raises(UsageError):
        sized("T4", checkpointing="perhaps")


def test_every_choice_is_told_with_its_reason():
    told = []
    sizing = sized("T4", choose=lambda name, value, reason: told.append((name, value, reason)))
    assert tuple(told) == sizing.choices
    assert [name for name, _, _ in told] == ["precision", "checkpointing", "at_once"] and all(why for _, _, why in told)


def test_a_step_too_short_for_the_longest_sample_says_how_long_it_must_be():
    for world, needed in ((1, 30), (4, 120)):
        sized("T4", effective_batch=None, effective_seconds=float(needed), world=world)
        with pytest.raises(UsageError, match="too short") as told:
            sized("T4", effective_batch=None, effective_seconds=needed - 1.0, world=world)
        assert f"--set train.effective_seconds={needed}," in told.value.fix


def test_one_length_for_all():
    sizing = sized("T4", [10.0], effective_batch=64)
    assert len(sizing.buckets) == 1 and sizing.figure_data()["seconds"] == [10.0]


def test_memory_that_others_hold_is_counted_and_said():
    alone, shared = sized("L4"), sized(replace(find("L4"), usable_bytes=12 * GIB, others_bytes=10 * GIB))
    assert shared.limit_bytes == 0.85 * 12 * GIB and shared.capacity(30.0) < alone.capacity(30.0)
    assert "other processes hold 10.0 GiB" in reasons(shared)["usable_gib"] and "usable_gib" not in reasons(alone)


@pytest.mark.parametrize("margin", [0.69, 0.951, -1, 85, float("nan"), "0.85", None])
def test_a_margin_out_of_range_is_refused(margin):
    with pytest.raises(UsageError, match="safety margin"):
        sized(safety_margin=margin)


def test_margins_within_range_count():
    limits = [sized(safety_margin=margin).limit_bytes for margin in (0.70, 0.85, 0.95)]
    assert limits == sorted(limits) and limits[-1] < find("A100-40").usable_bytes


@pytest.mark.parametrize(
    "wrong",
    [
        {"lengths": []},
        {"lengths": [0.0, 1.0]},
        {"lengths": [float("nan")]},
        {"effective_batch": 0},
        {"effective_batch": 2, "world": 3},
        {"most": 0},
        {"effective_batch": None},
        {"effective_seconds": 400.0},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(UsageError):
        sized(**wrong)


def test_fp16_and_bf16_are_predicted_once():
    predictions = Predictions(1.0, 30.0, predict=predicted())
    for device in ("T4", "L4", "A100-40", "H100"):
        sized(device, predictions=predictions, checkpointing="no")
    assert predictions.num_predicted == 1
