"""The training loop: continues bit for bit, keeps its plan, goes on when memory runs out, stops in good order."""

from __future__ import annotations

import json
import math

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load, load_file

from colabkit.core.errors import DataError, Stopped
from colabkit.pipelines.diarization.config import ModelConfig, TrainConfig
from colabkit.pipelines.diarization.model.losses import DiarizationLoss
from colabkit.pipelines.diarization.train import loop
from colabkit.pipelines.diarization.train.batches import TrainingBatches
from colabkit.pipelines.diarization.train.loop import (
    accumulate_gradients,
    average_weights,
    build_model,
    learning_rate,
    train,
)
from colabkit.training.processes.ranks import Ranks
from colabkit.training.sizing.guard import Guard

SMALL_MODEL = ModelConfig(num_speakers=2, hidden_size=16, num_blocks=1, num_attention_layers=1, embedding_size=8)
SETTINGS = {
    "steps": 20,
    "effective_batch": 4,
    "validate_every_steps": 5,
    "checkpoint_every_steps": 4,
    "warmup_steps": 4,
    "tracker": "none",
    "mixed_precision": "no",
}
FILES = ("model.safetensors", "model.json", "history.jsonl")


@pytest.fixture(scope="module")
def batches(make_simulator, bank):
    """Return a maker of the same endless training set."""
    simulator = make_simulator(window_seconds=2.0)

    def make():
        return TrainingBatches(simulator, None, real_fraction=0.0, effective_batch=4, seed=0)

    return make


class Validation:
    """Scores a model by its weights alone; may ask the run to stop, or fail, at its n-th call."""

    def __init__(self, run=None, *, stop_at=None, fail_at=None, worst_at=()):
        self.run, self.stop_at, self.fail_at, self.worst_at, self.calls = run, stop_at, fail_at, worst_at, 0

    def __call__(self, model):
        self.calls += 1
        if self.calls == self.fail_at:
            raise KeyboardInterrupt
        if self.calls == self.stop_at:
            self.run.stop_requested = "SIGTERM"
        total = sum(float(p.detach().double().abs().sum()) for p in model.parameters())
        return {"der": 9.0 if self.calls in self.worst_at else 1.0 / total, "missed": 0.0}


def carry_out(run, batches, validation=None, *, model=SMALL_MODEL, **settings):
    validation = validation or Validation()
    return train(TrainConfig(**SETTINGS | settings), model, batches(), validation, 8, run)


def contents(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.fixture(scope="module")
def whole(new_run, batches, tmp_path_factory):
    """What a run that nobody disturbs writes: its files and its metrics."""
    run = new_run(tmp_path_factory.mktemp("whole"))
    metrics = carry_out(run, batches)
    return contents(run.path), metrics


def test_it_writes_what_it_says(whole):
    files, metrics = whole
    history = [json.loads(line) for line in files["history.jsonl"].splitlines()]
    assert [row["step"] for row in history] == [5, 10, 15, 20]
    assert all(math.isfinite(v) for row in history for v in row.values())
    assert metrics["train_steps"] == 20 and metrics["validation_der"] == min(row["der"] for row in history)
    assert metrics["best_step"] in (5, 10, 15, 20)
    assert json.loads(files["model.json"])["hidden_size"] == 16
    model = build_model(ModelConfig(**json.loads(files["model.json"])))
    model.load_state_dict(load(files["model.safetensors"]))
    assert metrics["parameters"] == model.count_parameters()


@pytest.mark.parametrize("validation", [1, 2])
def test_stopped_and_continued_it_gives_the_same_bytes(whole, new_run, batches, tmp_path, validation):
    """Stopped at step 5 (no checkpoint due there) and at step 10."""
    first = new_run(tmp_path)
    with pytest.raises(Stopped):
        carry_out(first, batches, Validation(first, stop_at=validation))
    assert not (tmp_path / "model.safetensors").exists()
    second = new_run(tmp_path)
    metrics = carry_out(second, batches)
    assert any(f"continues at step {5 * validation} of 20" in line for line in second.said)
    assert contents(tmp_path) == whole[0] and metrics == whole[1]


def test_killed_between_checkpoints_it_gives_the_same_bytes(whole, new_run, batches, tmp_path):
    """It dies in the validation at step 15; steps 13 to 15 are done again from the checkpoint at 12."""
    with pytest.raises(KeyboardInterrupt):
        carry_out(new_run(tmp_path), batches, Validation(fail_at=3))
    second = new_run(tmp_path)
    carry_out(second, batches)
    assert any("continues at step 12 of 20" in line for line in second.said)
    assert contents(tmp_path) == whole[0]


def test_a_checkpoint_cut_off_is_passed_over(whole, new_run, batches, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        carry_out(new_run(tmp_path), batches, Validation(fail_at=3))
    newest = sorted((tmp_path / "checkpoints").glob("generation-*"))[-1]
    tensors = newest / "state.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-100])
    second = new_run(tmp_path)
    carry_out(second, batches)
    assert any("passed over" in line for line in second.said) and contents(tmp_path) == whole[0]


def test_a_finished_run_asked_again_changes_nothing(new_run, batches, tmp_path):
    carry_out(new_run(tmp_path), batches, steps=6)
    before, validation = contents(tmp_path), Validation()
    carry_out(new_run(tmp_path), batches, validation, steps=6)
    assert contents(tmp_path) == before and validation.calls == 0


def test_the_best_weights_are_kept_not_the_last(new_run, batches, tmp_path):
    """The validations at step 10 and later are made the worst: the weights of step 5 are the result."""
    run = new_run(tmp_path)
    metrics = carry_out(run, batches, Validation(worst_at=(2, 3, 4)))
    assert metrics["best_step"] == 5
    other = new_run(tmp_path / "five")
    other.path.mkdir()
    with pytest.raises(Stopped):
        carry_out(other, batches, Validation(other, stop_at=1))
    from colabkit.training.checkpoints.checkpoints import Checkpoints

    at_five = Checkpoints(other.path / "checkpoints").load_latest()[1]["averaged"]
    result = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(result[name], at_five[name]) for name in result)


def test_the_last_weights_are_kept_where_asked_for(new_run, batches, tmp_path):
    """Of two trainings whose validations disagree about the best the results are the same: the last."""
    for name, worst_at in (("ends badly", (2, 3, 4)), ("begins badly", (1, 2, 3))):
        run = new_run(tmp_path / name)
        run.path.mkdir()
        metrics = carry_out(run, batches, Validation(worst_at=worst_at), result="last")
        rows = [json.loads(line) for line in (run.path / "history.jsonl").read_text().splitlines()]
        assert metrics["best_step"] == 20 and metrics["validation_der"] == rows[-1]["der"]
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("ends badly", "begins badly"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_seeds_decide(whole, new_run, batches, tmp_path):
    for name, seed in (("again", 0), ("other", 1)):
        run = new_run(tmp_path / name)
        run.path.mkdir()
        carry_out(run, batches, seed=seed)
    assert contents(tmp_path / "again") == whole[0]
    assert contents(tmp_path / "other")["model.safetensors"] != whole[0]["model.safetensors"]


def test_loss_falls(run, batches):
    carry_out(run, batches, steps=40, validate_every_steps=10, checkpoint_every_steps=1_000, learning_rate=5e-3)
    history = [json.loads(line) for line in (run.path / "history.jsonl").read_text().splitlines()]
    assert history[-1]["frame_loss"] < 0.8 * history[0]["frame_loss"]


# --- parts of a batch ---


@pytest.fixture
def parts(batches):
    """Everything accumulate_gradients needs; dropout and batch statistics off, so that parts can equal the whole."""
    torch.manual_seed(0)
    model = build_model(SMALL_MODEL)
    loss_of = DiarizationLoss(model.powerset, 8, 8, 0.2)
    return model.eval(), loss_of, batches().batch(0), Accelerator(cpu=True)


def gradients(parts, run, micro_windows):
    model, loss_of, batch, accelerator = parts
    for module in (model, loss_of):
        module.zero_grad(set_to_none=True)
    guard = Guard(lambda seconds: micro_windows, ranks=Ranks(), teller=run, buffers_of=[model], name="limit")
    losses = accumulate_gradients(model, loss_of, batch, guard, accelerator)
    return guard.limit(2.0), losses, [p.grad.clone() for module in (model, loss_of) for p in module.parameters()]


@pytest.mark.parametrize("micro_windows", [1, 2, 3])
def test_parts_give_the_gradients_of_the_whole(parts, run, micro_windows):
    _, losses, whole = gradients(parts, run, 4)
    size, summed_losses, summed = gradients(parts, run, micro_windows)
    assert size == micro_windows
    torch.testing.assert_close(summed_losses, losses, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(summed, whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert sum(float(g.abs().sum()) for g in whole) > 0


def run_out_of_memory(model, most):
    """Make a model's forward fail like CUDA does when more than `most` windows go through at once."""
    seen = []

    def check(module, inputs):
        seen.append(len(inputs[0]))
        if len(inputs[0]) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    return model.register_forward_pre_hook(check), seen


def test_when_memory_runs_out_the_same_batch_is_done_in_smaller_parts(parts, run):
    _, _, whole = gradients(parts, run, 4)
    hook, seen = run_out_of_memory(parts[0], 1)
    size, _, again = gradients(parts, run, 4)
    hook.remove()
    assert size == 1 and seen == [4, 2, 1, 1, 1, 1]
    for ours, theirs in zip(again, whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert [(name, value) for name, value, _ in run.choices] == [("limit", 3), ("limit", 1)]


def test_memory_that_runs_out_half_way_leaves_no_half_gradient(parts, run):
    _, losses, whole = gradients(parts, run, 4)
    calls = []

    def check(module, inputs):
        calls.append(len(inputs[0]))
        if len(calls) == 2:  # the first half went through
            raise torch.OutOfMemoryError("CUDA out of memory")

    hook = parts[0].register_forward_pre_hook(check)  # refuses once
    size, losses_again, again = gradients(parts, run, 2)
    hook.remove()
    assert size == 1 and calls == [2, 2, 1, 1, 1, 1]
    torch.testing.assert_close(losses_again, losses, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(again, whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_windows_that_are_done_again_count_once_in_running_means(parts, run):
    model = parts[0]
    model.train()
    calls = []

    def check(module, inputs):
        calls.append(1)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    hook = model.register_forward_pre_hook(check)
    gradients(parts, run, 2)
    hook.remove()
    counted = [int(buffer) for name, buffer in model.named_buffers() if name.endswith("num_batches_tracked")]
    assert counted and set(counted) == {4}, "four parts of one window; the part of two that went through was undone"


def test_memory_that_is_too_small_for_one_window_is_an_error(parts, run):
    hook, _ = run_out_of_memory(parts[0], 0)
    with pytest.raises(DataError) as caught:
        gradients(parts, run, 4)
    hook.remove()
    assert (
        "2 s does not fit" in str(caught.value)
        and "20.00 GiB" in str(caught.value)
        and "checkpointing" in caught.value.fix
    )


def test_training_goes_on_in_smaller_parts(run, batches, monkeypatch):
    build = loop.build_model

    def build_large(config):
        model = build(config)
        run_out_of_memory(model, 2)
        return model

    monkeypatch.setattr(loop, "build_model", build_large)
    metrics = carry_out(run, batches, steps=5)
    assert metrics["train_steps"] == 5 and [value for name, value, _ in run.choices if name == "limit"] == [3]


def test_what_memory_allowed_is_remembered(new_run, batches, monkeypatch, tmp_path):
    """Stopped and continued, it gives the same bytes as in one go, and does not fail again to learn the same."""
    build, seen = loop.build_model, []

    def build_large(config):
        model = build(config)
        seen.append(run_out_of_memory(model, 2)[1])
        return model

    monkeypatch.setattr(loop, "build_model", build_large)
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    carry_out(new_run(tmp_path / "whole"), batches)
    first = new_run(tmp_path / "cut")
    with pytest.raises(Stopped):
        carry_out(first, batches, Validation(first, stop_at=1))
    second = new_run(tmp_path / "cut")
    carry_out(second, batches)
    assert set(seen[-1]) == {2} and "limit" not in [name for name, *_ in second.choices]
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


# --- the plan ---


def minutes_for(seconds):
    return seconds / 60 / (1 - loop.RESERVE)


@pytest.fixture
def steps_take(monkeypatch):
    """Return a function that sets the seconds of a step by a clock of our own; plans are made every two steps."""
    seconds = {"a step": 0.5, "in all": 0.0}

    class StandInClock:
        def __init__(self, spent_seconds):
            self.began = seconds["in all"] - spent_seconds

        def seconds(self):
            return seconds["in all"] - self.began

    def average_and_tick(*args, average=loop.average_weights):
        seconds["in all"] += seconds["a step"]
        average(*args)

    monkeypatch.setattr(loop, "PLAN_EVERY_STEPS", 2)
    monkeypatch.setattr(loop, "Clock", StandInClock)
    monkeypatch.setattr(loop, "average_weights", average_and_tick)
    return lambda value: seconds.update({"a step": value})


def test_a_time_budget_becomes_a_number_of_steps(run, batches, steps_take):
    metrics = carry_out(run, batches, minutes=minutes_for(8.001))
    assert metrics["train_steps"] == 16 and dict(c[:2] for c in run.choices)["train.steps"] == 16


def test_a_resumed_run_keeps_its_plan_and_what_is_spent(new_run, batches, steps_take, tmp_path):
    first = new_run(tmp_path)
    with pytest.raises(Stopped):
        carry_out(first, batches, Validation(first, stop_at=2), minutes=minutes_for(8.001))
    second = new_run(tmp_path)
    metrics = carry_out(second, batches, minutes=minutes_for(8.001))
    assert any("continues at step 10 of 16" in line for line in second.said) and metrics["train_steps"] == 16


def test_a_machine_that_turns_slow_takes_fewer_steps(new_run, batches, steps_take, tmp_path):
    first = new_run(tmp_path)
    with pytest.raises(Stopped):
        carry_out(first, batches, Validation(first, stop_at=2), minutes=minutes_for(8.001))
    steps_take(1.0)  # 5 s are spent, 3 s are left
    assert 12 <= carry_out(new_run(tmp_path), batches, minutes=minutes_for(8.001))["train_steps"] <= 14


def test_a_budget_that_is_spent_ends_training_with_a_result(run, batches, steps_take):
    steps_take(1_000.0)
    assert carry_out(run, batches, minutes=1.0)["train_steps"] == 2
    assert (run.path / "model.safetensors").exists()


def test_time_spent_up_to_a_stop_is_not_forgotten(run, batches):
    """The checkpoint of a stop knows the time since the plan was made last."""
    from colabkit.training.checkpoints.checkpoints import Checkpoints

    with pytest.raises(Stopped):
        carry_out(run, batches, Validation(run, stop_at=1), minutes=10.0)
    assert Checkpoints(run.path / "checkpoints").load_latest()[1]["done"]["spent_seconds"] > 0


@pytest.mark.parametrize("num_steps, warmup_steps", [(1, 0), (2, 1), (10, 100), (1_000, 100)])
def test_learning_rate_rises_and_falls_and_is_never_zero_at_a_step(num_steps, warmup_steps):
    config = TrainConfig(warmup_steps=warmup_steps, learning_rate=1e-3)
    rates = [learning_rate(config, {"step": step, "progress": step / num_steps}) for step in range(num_steps)]
    peak = rates.index(max(rates))
    assert 0 < min(rates) and max(rates) <= 1e-3
    assert rates[: peak + 1] == sorted(rates[: peak + 1]) and rates[peak:] == sorted(rates[peak:], reverse=True)
    assert warmup_steps > num_steps // 2 or max(rates) > 0.9e-3


def test_a_loss_that_is_not_a_number_ends_training_and_says_so(run, batches, monkeypatch):
    build = loop.build_model

    def build_broken(config):
        model = build(config)
        with torch.no_grad():
            model.classify.bias[:] = float("nan")
        return model

    monkeypatch.setattr(loop, "build_model", build_broken)
    with pytest.raises(DataError) as caught:
        carry_out(run, batches)
    assert "learning_rate" in caught.value.fix and not (run.path / "model.safetensors").exists()


def test_averaging_follows_the_formula_and_copies_counters():
    model, averaged = torch.nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3)
    with torch.no_grad():
        model.weight.fill_(5.0)
        model.running_mean.fill_(7.0)
        model.num_batches_tracked.fill_(9)
    average_weights(averaged, model, 0.99, 1_000_000)
    torch.testing.assert_close(averaged.weight, torch.full((3,), 1.0 + 0.01 * 4.0))
    assert averaged.running_mean.tolist() == [7.0] * 3 and averaged.num_batches_tracked == 9
    average_weights(averaged, model, 0.0, 5)
    assert averaged.weight.tolist() == [5.0] * 3  # no averaging
    average_weights(averaged, torch.nn.BatchNorm1d(3), 0.999, 0)
    torch.testing.assert_close(averaged.weight, torch.full((3,), 5.0 - 0.9 * 4.0))  # the start is soon forgotten


def test_a_pretrained_encoder_trains_and_a_frozen_one_is_kept(run, batches, tmp_path):
    from dataclasses import replace

    model = replace(SMALL_MODEL, encoder_type="wavlm", freeze_encoder=True)
    carry_out(run, batches, model=model, steps=2, validate_every_steps=1)
    torch.manual_seed(0)  # as train does before it builds
    fresh = build_model(model).state_dict()
    trained = load_file(run.path / "model.safetensors")
    inside = [name for name in trained if "encoder.backbone." in name]
    assert inside and all(torch.equal(trained[name], fresh[name]) for name in inside)
    assert any(not torch.equal(trained[name], fresh[name]) for name in trained)
