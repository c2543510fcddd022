"""The memory callback in a plain Trainer of transformers."""

from __future__ import annotations

import pytest
import torch
from transformers import Trainer, TrainingArguments

from colabkit.pipelines.asr.train.memory_callback import AdaptiveMemoryCallback
from colabkit.training.sizing.watch import MemoryWatch, Reading
from tests.told import Told


class Line(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.line = torch.nn.Linear(2, 1)

    def forward(self, x, labels):
        return {"loss": (self.line(x).squeeze(1) - labels).square().mean()}


@pytest.fixture
def trainer(tmp_path):
    """Return a maker of a plain Trainer of 12 steps with callbacks."""

    def make(*callbacks, **how):
        data = [{"x": torch.randn(2), "labels": torch.randn(())} for _ in range(8)]
        how = {"report_to": [], "logging_strategy": "no"} | how
        arguments = TrainingArguments(
            output_dir=str(tmp_path / "out"),
            max_steps=12,
            per_device_train_batch_size=2,
            use_cpu=True,
            save_strategy="no",
            disable_tqdm=True,
            **how,
        )
        return Trainer(model=Line(), args=arguments, train_dataset=data, callbacks=list(callbacks))

    return make


@pytest.fixture
def watch():
    """Return a maker of a watch that reads these shares, one after another, the last again and again."""

    def make(*shares):
        told, cleaned, left = Told(), [], list(shares)

        def read():
            share = left.pop(0) if len(left) > 1 else left[0]
            return Reading(total_bytes=1000, free_bytes=round(1000 * (1 - share)), is_shared_by_design=True)

        made = MemoryWatch(told, read=read, clean=lambda: cleaned.append(1))
        made.said, made.cleaned = told.said, cleaned
        return made

    return make


def test_it_warns_and_cleans_up_while_a_plain_trainer_trains(trainer, watch):
    seen = watch(0.5, 0.5, 0.92, 0.92, 0.97, 0.6, 0.5)  # the warning reads once more
    logged = []
    callback = AdaptiveMemoryCallback(
        watch=seen, log=lambda step, values: logged.append((step, values)), log_every_steps=4
    )
    trainer(callback).train()
    assert [step for step, _ in logged] == [4, 8, 12] and all(set(values) == {"memory_used"} for _, values in logged)
    assert callback.events["warnings"] == 1 and callback.events["clean_ups"] == 1 and seen.cleaned == [1]
    assert any("92% full" in line for line in seen.said)


def test_it_is_in_what_the_trainer_logs(trainer, watch):
    made = trainer(AdaptiveMemoryCallback(watch=watch(0.25)), logging_strategy="steps", logging_steps=5)
    made.train()
    rows = [row for row in made.state.log_history if "loss" in row]
    assert [row["step"] for row in rows] == [5, 10] and all(row["memory_used"] == pytest.approx(0.25) for row in rows)


def test_it_is_in_tensorboard(trainer, watch, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer(AdaptiveMemoryCallback(watch=watch(0.25), log_every_steps=6), report_to=["tensorboard"]).train()
    [folder] = (tmp_path / "out").rglob("memory")
    events = EventAccumulator(str(folder))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("memory_used")] == [(6, 0.25), (12, 0.25)]


def test_by_itself_it_reads_this_machine_s_memory(trainer):
    callback = AdaptiveMemoryCallback(say=lambda text: None)
    trainer(callback).train()
    assert 0 < callback.watch.used_fraction() < 1
