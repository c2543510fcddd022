"""Training with the Trainer: it learns, stops and continues bit for bit, memory that runs out, and what is written."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from colabkit.core.errors import ChangedError, DataError, Stopped
from colabkit.pipelines.asr.config import ModelConfig, TrainConfig
from colabkit.pipelines.asr.model.examples import losses, read_example
from colabkit.pipelines.asr.model.recognizer import build_model, load_model
from colabkit.pipelines.asr.train import loop
from colabkit.pipelines.asr.train.loop import StepTrainer, train
from colabkit.training.checkpoints.checkpoints import Checkpoints
from colabkit.training.sizing.tracing.accounting import Meter

SETTINGS = TrainConfig(
    steps=20,
    effective_batch=6,
    learning_rate=5e-3,
    validate_every_steps=5,
    validation_samples=6,
    checkpoint_every_steps=4,
    tracker="none",
)


@pytest.fixture
def carry_out(tones, small_model, vocabulary, sizing):
    """Return a function that trains in a run; what is not given is small."""

    def make(run, *, model=small_model, at_once=1000, num_samples=31, broken=(), **settings):
        more = {
            name: settings.pop(name) for name in ("callbacks", "arguments", "advice", "workers") if name in settings
        }
        recognizer = build_model(model, vocabulary, seed=0)
        return train(
            replace(SETTINGS, **settings),
            recognizer,
            tones(num_samples, broken=broken),
            tones(8, seed=1, name="validation"),
            sizing(at_once),
            run,
            **more,
        )

    return make


def contents(folder):
    return {
        name: (folder / name).read_bytes() for name in ("model/model.safetensors", "model/config.json", "history.jsonl")
    }


@pytest.fixture(scope="module")
def whole(tones, small_model, vocabulary, sizing, new_run, tmp_path_factory):
    """What a run that nobody disturbs writes, and its metrics."""
    run = new_run(tmp_path_factory.mktemp("whole"))
    metrics = train(
        SETTINGS,
        build_model(small_model, vocabulary, seed=0),
        tones(31),
        tones(8, seed=1, name="validation"),
        sizing(),
        run,
    )
    return contents(run.path), metrics


def test_it_writes_what_it_says(whole):
    written, metrics = whole
    history = [json.loads(line) for line in written["history.jsonl"].splitlines()]
    assert [row["step"] for row in history] == [5, 10, 15, 20]
    assert all(math.isfinite(value) for row in history for value in row.values())
    assert metrics["train_steps"] == 20 and metrics["validation_wer"] == min(row["wer"] for row in history)
    assert history[0]["epoch"] == pytest.approx(5 / 6) and history[-1]["learning_rate"] < history[1]["learning_rate"]
    assert set(history[0]) == {"step", "epoch", "loss", "learning_rate", "wer", "cer", "validation_loss"}


@pytest.mark.parametrize("step", [3, 5, 12, 19])
def test_stopped_and_continued_it_gives_the_same_bytes(whole, new_run, carry_out, tmp_path, step):
    first = new_run(tmp_path)
    first.stop_at_step = step
    with pytest.raises(Stopped):
        carry_out(first)
    assert not (tmp_path / "model").exists()
    second = new_run(tmp_path)
    metrics = carry_out(second)
    assert any(f"continues at step {step} of 20" in line for line in second.said)
    assert contents(tmp_path) == whole[0] and metrics == whole[1]


def test_killed_between_checkpoints_steps_are_done_again(whole, new_run, carry_out, tmp_path):
    """It dies after step 11; what came after the last checkpoint, of step 8 or the best validation at 10, is redone."""

    class Dying(loop.TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 11:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        carry_out(new_run(tmp_path), callbacks=[Dying()])
    second = new_run(tmp_path)
    carry_out(second)
    assert {"  continues at step 8 of 20", "  continues at step 10 of 20"} & set(second.said) and contents(
        tmp_path
    ) == whole[0]


def test_a_checkpoint_cut_off_is_passed_over(whole, new_run, carry_out, tmp_path):
    first = new_run(tmp_path)
    first.stop_at_step = 14
    with pytest.raises(Stopped):
        carry_out(first)
    newest = sorted((tmp_path / "checkpoints").glob("generation-*"))[-1]
    tensors = newest / "state.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-100])
    second = new_run(tmp_path)
    carry_out(second)
    assert any("passed over" in line for line in second.said) and contents(tmp_path) == whole[0]


def test_a_finished_training_asked_again_reads_nothing_and_writes_the_same(
    whole, new_run, carry_out, tmp_path, monkeypatch
):
    carry_out(new_run(tmp_path))
    monkeypatch.setattr(StepTrainer, "training_step", None)
    assert carry_out(new_run(tmp_path)) == whole[1] and contents(tmp_path) == whole[0]


def test_workers_change_nothing(whole, new_run, carry_out, tmp_path):
    carry_out(new_run(tmp_path), workers=0)
    assert contents(tmp_path) == whole[0]


def test_seeds_decide(whole, new_run, carry_out, tmp_path):
    carry_out(new_run(tmp_path), seed=1)
    assert contents(tmp_path)["model/model.safetensors"] != whole[0]["model/model.safetensors"]


def test_other_data_is_refused(new_run, carry_out, tmp_path):
    first = new_run(tmp_path)
    first.stop_at_step = 3
    with pytest.raises(Stopped):
        carry_out(first)
    with pytest.raises(ChangedError):
        carry_out(new_run(tmp_path), num_samples=30)


def test_it_learns_to_read_tones(run, carry_out):
    model = ModelConfig(hidden_size=64, num_layers=2, dropout=0.0, mask_time=0.0)
    carry_out(
        run,
        model=model,
        num_samples=120,
        steps=60,
        effective_batch=12,
        learning_rate=8e-3,
        validate_every_steps=10,
        validation_samples=8,
        checkpoint_every_steps=1000,
    )
    history = [json.loads(line) for line in (run.path / "history.jsonl").read_text().splitlines()]
    assert history[-1]["cer"] < 0.3 < 0.6 < history[0]["cer"] and history[-1]["loss"] < 0.3 * history[0]["loss"]


def test_the_best_weights_are_kept_not_the_last(run, carry_out, monkeypatch):
    """The validations after the first are made the worst."""
    scores = iter([0.2, 0.9, 0.9, 0.9])
    states = []
    monkeypatch.setattr(
        loop._Training,
        "scores",
        lambda self: (
            states.append({name: tensor.clone() for name, tensor in self.recognizer.model.state_dict().items()})
            or {"wer": next(scores), "cer": 0.5, "validation_loss": 1.0}
        ),
    )
    metrics = carry_out(run)
    written = load_file(run.path / "model" / "model.safetensors")
    assert metrics["best_step"] == 5 and metrics["validation_wer"] == 0.2
    assert all(torch.equal(written[name], states[0][name]) for name in written)
    assert any(not torch.equal(states[0][name], states[-1][name]) for name in written)


def test_what_it_writes_transcribes(whole, run, carry_out):
    carry_out(run, steps=2, validate_every_steps=1)
    assert load_model(run.path / "model").coder.characters == "abcd"


# --- exact steps ---


class Grabbing(loop.TrainerCallback):
    """Keeps each step's gradients as the optimizer gets them, before they are clipped when `clip_norm` is large."""

    def __init__(self):
        self.gradients = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})


EXACT = {"steps": 2, "clip_norm": 1e9, "validate_every_steps": 100}


@pytest.mark.parametrize(
    "kind, norm", [("wav2vec2", "group"), ("hubert", "layer"), ("wav2vec2-bert", "layer"), ("whisper", "short")]
)
def test_a_step_s_gradient_is_that_of_all_its_samples_by_token(
    saved_bases, tones, vocabulary, new_run, carry_out, tmp_path, kind, norm
):
    """Whatever goes through at once: the parts' losses are divided by the tokens of the whole step."""
    model = ModelConfig(name=str(saved_bases(kind, norm)), dropout=0.0, mask_time=0.0)
    grabbed = []
    for at_once in (1000, 4, 1):
        grabbing = Grabbing()
        run = new_run(tmp_path / str(at_once))
        run.path.mkdir()
        carry_out(run, model=model, at_once=at_once, callbacks=[grabbing], num_samples=12, **(EXACT | {"steps": 1}))
        grabbed.append(grabbing.gradients[0])
    recognizer = build_model(model, vocabulary, seed=0)
    batches = loop.TrainingBatches(tones(12), recognizer, effective_batch=6, seed=0, problem=print)
    numbers = batches.kept[batches.stream.item(0).samples]
    examples = [read_example(tones(12), recognizer, int(number)) for number in numbers]
    (losses(recognizer, examples).sum() / sum(len(e.labels) for e in examples)).backward()
    for name, parameter in recognizer.model.named_parameters():
        if parameter.grad is not None:
            scale = float(parameter.grad.abs().max()) + 1e-3
            for gradients in grabbed:
                torch.testing.assert_close(gradients[name] / scale, parameter.grad / scale, rtol=0, atol=1e-5)


def test_broken_samples_cost_nothing_but_themselves(run, carry_out):
    metrics = carry_out(run, broken=(2, 8), steps=12, validate_every_steps=6)
    assert metrics["train_steps"] == 12 and {"tones 2", "tones 8"} <= set(run.problems)


def test_a_step_of_broken_samples_alone_is_passed(run, carry_out):
    metrics = carry_out(run, num_samples=4, effective_batch=2, broken=(0, 1, 2), steps=4, validate_every_steps=2)
    assert metrics["train_steps"] == 4


# --- memory that runs out ---


@pytest.fixture
def budget(tones, small_model, vocabulary):
    """Return a maker of a meter that lets at most `num_samples` tones through at once, in forward or backward."""

    def make(num_samples):
        recognizer = build_model(small_model, vocabulary, seed=0)
        speech = tones(31)
        longest = sorted(range(31), key=lambda i: -speech.seconds[i])[:num_samples]
        with Meter() as meter:
            losses(recognizer, [read_example(speech, recognizer, i) for i in longest]).sum().backward()
        return Meter(int(meter.peak_bytes * 1.3))

    return make


def test_when_memory_runs_out_training_goes_on_in_smaller_parts(whole, new_run, carry_out, budget, tmp_path):
    """With dropout and masks, the same samples in other parts draw other random numbers.

    It must learn as well, not the same.
    """
    run = new_run(tmp_path)
    original = StepTrainer.training_step

    def metered(self, *args, **more):
        with meter:
            return original(self, *args, **more)

    meter = budget(2)
    try:
        StepTrainer.training_step = metered
        metrics = carry_out(run)
    finally:
        StepTrainer.training_step = original
    limits = [value for name, value, _ in run.choices if name.startswith("limit")]
    assert metrics["train_steps"] == 20 and limits and min(limits) < 6
    saved = Checkpoints(tmp_path / "checkpoints").load_latest()[1]
    assert saved["guard"]["limits"] and saved["stream"]["consumed"] + 6 * saved["stream"]["epoch"] == 20


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_memory_that_runs_out_loses_and_repeats_no_gradient(saved_bases, new_run, carry_out, tmp_path, where):
    model = ModelConfig(name=str(saved_bases("wav2vec2")), dropout=0.0, mask_time=0.0)
    found = []
    for fail in (False, True):
        run, grabbing, calls = new_run(tmp_path / str(fail)), Grabbing(), []
        run.path.mkdir()
        original = loop.losses

        def failing(recognizer, examples, fail=fail, calls=calls, original=original, handles=[]):  # noqa: B006
            calls.append(len(examples))
            while handles:
                handles.pop().remove()

            def refuse(*gradient):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

            if fail and len(calls) == 2 and where == "forward":
                refuse()
            if fail and len(calls) == 2:
                handles.append(next(recognizer.model.base_model.encoder.layers[0].parameters()).register_hook(refuse))
            return original(recognizer, examples)

        loop.losses = failing
        try:
            carry_out(run, model=model, at_once=3, callbacks=[grabbing], **EXACT)
        finally:
            loop.losses = original
        found.append(grabbing.gradients)
        assert not fail or len(calls) > 4
    for plain, again in zip(*found, strict=True):
        for name in plain:
            scale = float(plain[name].abs().max()) + 1e-3
            torch.testing.assert_close(again[name] / scale, plain[name] / scale, rtol=0, atol=2e-5)


def test_one_sample_that_does_not_fit_is_an_error_with_advice(run, carry_out, budget):
    original = StepTrainer.training_step

    def metered(self, *args, **more):
        with Meter(100_000):
            return original(self, *args, **more)

    try:
        StepTrainer.training_step = metered
        with pytest.raises(DataError) as caught:
            carry_out(run, advice=lambda seconds: ["cut samples shorter"])
    finally:
        StepTrainer.training_step = original
    assert "cut samples shorter" in str(caught.value)


# --- what ends it, and what is taken from TrainingArguments ---


def test_a_loss_that_is_not_a_number_ends_training_and_says_so(run, carry_out, monkeypatch):
    monkeypatch.setattr(loop, "losses", lambda recognizer, examples: losses(recognizer, examples) * float("nan"))
    with pytest.raises(DataError) as caught:
        carry_out(run)
    assert "learning_rate" in caught.value.fix and not (run.path / "model").exists()


def test_arguments_of_one_s_own_are_taken(run, carry_out):
    from colabkit.training.sizing.workload import Regime

    arguments = loop.training_arguments(
        replace(SETTINGS, learning_rate=1e-3), Regime(), run.path / "trainer", lr_scheduler_type="constant"
    )
    carry_out(run, arguments=arguments, steps=6, validate_every_steps=3)
    rates = [json.loads(line)["learning_rate"] for line in (run.path / "history.jsonl").read_text().splitlines()]
    assert rates == [1e-3, 1e-3]


def test_callbacks_of_one_s_own_see_validations_and_may_end_training(run, carry_out):
    class Ending(loop.TrainerCallback):
        seen = []

        def on_evaluate(self, args, state, control, metrics, **kwargs):
            self.seen.append((state.global_step, metrics["eval_wer"]))

        def on_step_begin(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step == 6

    metrics = carry_out(run, callbacks=[Ending()])
    assert metrics["train_steps"] == 7 and [step for step, _ in Ending.seen] == [5, 7]


def test_nothing_is_printed_and_nothing_else_is_written(run, carry_out, capfd):
    carry_out(run, steps=4, validate_every_steps=2)
    out, err = capfd.readouterr()
    lines = [
        line for line in (out + err).replace("\r", "\n").splitlines() if line.strip() and not line.startswith("train")
    ]
    assert lines == []
    assert {path.name for path in run.path.iterdir()} <= {"model", "history.jsonl", "checkpoints", "trainer"}


@pytest.mark.parametrize("kind, norm", [("wav2vec2", "layer"), ("wav2vec2-bert", "layer"), ("whisper", "short")])
def test_every_family_trains_and_continues_bit_for_bit(saved_bases, new_run, carry_out, tmp_path, kind, norm):
    model, found = ModelConfig(name=str(saved_bases(kind, norm))), []
    how = {
        "model": model,
        "steps": 4,
        "validate_every_steps": 2,
        "validation_samples": 2,
        "num_samples": 12,
        "learning_rate": 1e-4,
    }
    for stop in (None, 3):
        run = new_run(tmp_path / str(stop))
        run.path.mkdir()
        if stop:
            run.stop_at_step = stop
            with pytest.raises(Stopped):
                carry_out(run, **how)
            run = new_run(run.path)
        carry_out(run, **how)
        found.append(contents(run.path)["model/model.safetensors"])
    assert found[0] == found[1]


def test_gradient_checkpointing_changes_no_gradient(saved_bases, new_run, carry_out, tmp_path, sizing):
    from colabkit.training.sizing.workload import Regime

    model, found = ModelConfig(name=str(saved_bases("wav2vec2")), dropout=0.0, mask_time=0.0), []
    for checkpointing in (False, True):
        run, grabbing = new_run(tmp_path / str(checkpointing)), Grabbing()
        run.path.mkdir()
        arguments = loop.training_arguments(SETTINGS, Regime(checkpointing=checkpointing), run.path / "trainer")
        carry_out(run, model=model, callbacks=[grabbing], arguments=arguments, **EXACT)
        found.append(grabbing.gradients)
    for plain, recomputed in zip(*found, strict=True):
        for name in plain:
            torch.testing.assert_close(recomputed[name], plain[name], rtol=1e-4, atol=1e-6)
