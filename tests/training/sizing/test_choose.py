"""Precision, checkpointing and batch sizes: each rule, what it says, and errors that say how much something helps."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from colabkit.core.errors import DataError, UsageError
from colabkit.training.sizing.advice import DoesNotFitError
from colabkit.training.sizing.choose import size
from colabkit.training.sizing.chosen import Sizing
from colabkit.training.sizing.devices import GIB, Device, emulated, find
from colabkit.training.sizing.memory_model import MemoryModel, Phase
from colabkit.training.sizing.pool import Predictions
from colabkit.training.sizing.workload import Workload

LENGTHS = np.linspace(1.0, 30.0, 400)


class Weight(SimpleNamespace):
    """A weight as the advice looks at it: its shape, and whether it is trained."""


def workload(num_weights: int = 1000, num_trained: int | None = None) -> Workload:
    def build(num_layers, checkpointing):
        trained = num_weights if num_trained is None else num_trained
        weights = [Weight(shape=(1000, 1000), requires_grad=i < trained) for i in range(num_weights)]
        return SimpleNamespace(parameters=lambda: weights)

    return Workload(
        name="a model",
        identity=f"a model {num_weights} {num_trained}",
        num_layers=1,
        build=build,
        layers=None,
        batch=None,
        loss=None,
    )


def predicted(state_gib: float = 2.0, per_second_mib: float = 40.0, spared: float = 0.2, gradients_gib: float = 0.0):
    """Return a stand-in for the prediction: memory grows with B * T; checkpointing spares all but `spared` of it."""

    def predict(work, regime, **_):
        each = (
            per_second_mib
            * 2**20
            * (spared if regime.checkpointing else 1.0)
            * (2.0 if regime.precision == "fp32" else 1.0)
        )
        return MemoryModel(
            phases=(
                Phase(
                    name="backward",
                    base_bytes=(state_gib + gradients_gib) * GIB,
                    bytes_per_second=each,
                    bytes_per_second_squared=each / 200,
                ),
            ),
            state_bytes=state_gib * GIB,
        )

    return predict


def sized(device="A100-40", lengths=LENGTHS, *, predict=None, work=None, **more) -> Sizing:
    device = device if isinstance(device, Device) else find(device)
    predictions = Predictions(
        float(min(lengths, default=1)), float(max(lengths, default=1)), predict=predict or predicted()
    )
    return size(
        work or workload(), device=device, lengths=lengths, **{"effective_batch": 32, "predictions": predictions} | more
    )


def reasons(sizing: Sizing) -> dict:
    return {name: reason for name, _, reason in sizing.choices}


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


def test_capacity_fits_never_rises_with_length_and_uses_the_room():
    sizing = sized("L4", checkpointing="no")
    seconds = np.linspace(1, 30, 500)
    at_once = [sizing.capacity(s) for s in seconds]
    assert all(a >= b for a, b in zip(at_once[:-1], at_once[1:], strict=True)) and at_once[0] > 10 * at_once[-1]
    for s, n in zip(seconds, at_once, strict=True):
        assert sizing.bytes(n, s) <= sizing.limit_bytes < sizing.bytes(n + 1, s)


def test_buckets_cover_the_samples():
    sizing = sized("L4")
    assert len(sizing.buckets) == 30 and sum(b.num_seen for b in sizing.buckets) == len(LENGTHS)
    assert sizing.buckets[-1].longest_seconds == 30.0
    assert all(b.num_samples == sizing.capacity(b.longest_seconds) and 0 < b.fill <= 1 for b in sizing.buckets)
    assert len(sizing.table().rows) == 30


def test_steps_are_cut_to_exactly_the_effective_batch():
    for effective, world in ((32, 1), (33, 1), (7, 2), (64, 3)):
        sizing = sized("T4", effective_batch=effective, world=world, checkpointing="no")
        for seconds in (1.0, 7.3, 30.0):
            parts = sizing.parts(seconds)
            assert sum(parts) == -(-effective // world) and max(parts) - min(parts) <= 1
            assert max(parts) <= sizing.capacity(seconds)
            assert sizing.accumulation(seconds) == len(parts)
            at_once, passes = sizing.even_batch(seconds)
            assert at_once * passes == sizing.share(seconds) and at_once <= sizing.capacity(seconds)


@pytest.mark.parametrize("world", [1, 2])
def test_of_an_effective_batch_in_seconds_short_samples_are_more(world):
    sizing = sized("T4", effective_batch=None, effective_seconds=400.0, world=world, checkpointing="no")
    assert [sizing.step_samples(seconds) for seconds in (30.0, 10.0, 1.0)] == [13, 40, 400]
    for seconds in (1.0, 7.3, 30.0):
        parts = sizing.parts(seconds)
        assert sum(parts) == sizing.share(seconds) == -(-int(400 / seconds) // world)
        assert max(parts) <= sizing.capacity(seconds) <= sizing.fits(seconds)
        at_once, passes = sizing.even_batch(seconds)
        assert at_once <= sizing.capacity(seconds) and at_once * passes == int(400 / seconds) // world
        assert at_once * passes * world * seconds <= 400.0
    again = Sizing.from_dict(json.loads(json.dumps(sizing.to_dict())))
    assert again == sizing and [again.capacity(s) for s in (1.0, 9.0)] == [sizing.capacity(s) for s in (1.0, 9.0)]
    older = sized("T4").to_dict()
    del older["effective_seconds"]
    assert Sizing.from_dict(older).effective_seconds is None, "a record of before there was such a setting"


def test_a_step_too_short_for_the_longest_sample_says_how_long_it_must_be():
    for world, needed in ((1, 30), (4, 120)):
        sized("T4", effective_batch=None, effective_seconds=float(needed), world=world)
        with pytest.raises(UsageError, match="too short") as told:
            sized("T4", effective_batch=None, effective_seconds=needed - 1.0, world=world)
        assert f"--set train.effective_seconds={needed}," in told.value.fix


def test_no_more_at_once_than_asked_for():
    sizing = sized("H200", most=3)
    assert {sizing.capacity(s) for s in (1.0, 30.0)} == {3} and "3 at most" in reasons(sizing)["at_once"]


def test_beyond_the_knee_no_more_go_through_at_once():
    sizing = sized("H200", checkpointing="no")
    kneed = sizing.with_model(sizing.model, knee_seconds=100.0)
    assert kneed.capacity(10.0) == 10 and kneed.capacity(1000.0) <= 1 and kneed.fits(10.0) == sizing.fits(10.0) > 10
    assert all(b.num_samples == kneed.capacity(b.longest_seconds) for b in kneed.buckets)


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


def test_a_model_that_does_not_fit_says_what_would_help_and_by_how_much():
    predict = predicted(state_gib=11.2, gradients_gib=3.73, per_second_mib=20)  # of that AdamW's states are 7.45 GiB
    with pytest.raises(DoesNotFitError) as caught:
        sized("T4", predict=predict, lighter=lambda: {"half of it frozen": workload(1000, 500)})
    error, help = caught.value, {what: (gib, fits) for what, gib, fits in caught.value.help}
    assert isinstance(error, DataError) and "not even one sample of 30.0 s" in error.what
    assert error.needed_bytes / GIB == pytest.approx(14.93 + 0.35 + 0.2 * 20 * (30 + 900 / 200) / 1024, rel=1e-6)
    need = error.needed_bytes / GIB
    assert help["8-bit AdamW"][0] == pytest.approx(need - 7.45 * 0.75, rel=0.02) and help["8-bit AdamW"][1]
    assert help["Adafactor"][0] < help["8-bit AdamW"][0]
    assert help["half of it frozen"][0] == pytest.approx(need - (7.45 + 3.73) / 2, rel=0.02)
    assert help["half of it frozen and 8-bit AdamW"][0] < help["half of it frozen"][0]
    assert f"8-bit AdamW: {help['8-bit AdamW'][0]:.1f} GiB, {need - help['8-bit AdamW'][0]:.1f} less" in error.fix
    assert "a larger GPU, L4" in error.fix


def test_advice_names_checkpointing_and_shorter_pieces():
    predict = predicted(state_gib=4, per_second_mib=400)
    with pytest.raises(DoesNotFitError) as caught:
        sized("T4", predict=predict, checkpointing="no")  # may not be used: the pipeline has none
    pieces = next(what for what, _, fits in caught.value.help if "pieces" in what)
    seconds = float(pieces.split()[-2])
    assert sized("T4", np.linspace(1, seconds, 10), predict=predict, checkpointing="no").capacity(seconds) >= 1
    with pytest.raises(DoesNotFitError):
        sized("T4", np.linspace(1, seconds + 1, 10), predict=predict, checkpointing="no")
    assert "checkpointing" not in caught.value.fix
    with pytest.raises(DoesNotFitError) as caught:
        sized("T4", predict=predicted(state_gib=4, per_second_mib=4000))
    assert "gradient checkpointing" in caught.value.where


def test_to_and_from_json():
    sizing = sized("L4", most=5)
    again = Sizing.from_dict(json.loads(json.dumps(sizing.to_dict(), default=float)))
    assert (
        again.capacity(12.3) == sizing.capacity(12.3)
        and again.regime == sizing.regime
        and again.device == sizing.device
    )
    assert again.limit_bytes == sizing.limit_bytes and len(again.buckets) == len(sizing.buckets)
    assert [c[0] for c in again.choices] == [c[0] for c in sizing.choices]


def test_figure_data_shows_prediction_and_limit():
    sizing = sized("L4", checkpointing="no")
    data = sizing.figure_data(50)
    assert len(data["seconds"]) == len(data["predicted_bytes"]) == 50
    assert max(data["predicted_bytes"]) <= data["limit_bytes"] < data["usable_bytes"]


def test_fp16_and_bf16_are_predicted_once():
    predictions = Predictions(1.0, 30.0, predict=predicted())
    for device in ("T4", "L4", "A100-40", "H100"):
        sized(device, predictions=predictions, checkpointing="no")
    assert predictions.num_predicted == 1
