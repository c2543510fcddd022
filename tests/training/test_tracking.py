"""Tests of training.tracking: which tracker is taken and why, curves that go on, and no tracker that costs the run."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

from colabkit.training import tracking
from colabkit.training.tracking import Tracker, open_tracker


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    choices, said = [], []
    return SimpleNamespace(
        pipeline="toy",
        name="a",
        path=tmp_path,
        choices=choices,
        said=said,
        say=said.append,
        choose=lambda name, value, reason: choices.append((name, value, reason)),
    )


@pytest.fixture
def installed(monkeypatch):
    """Say what is installed."""

    def set_installed(*names):
        monkeypatch.setattr(tracking, "find_spec", lambda name: object() if name in names else None)

    return set_installed


class FakeWandb(ModuleType):
    def __init__(self):
        super().__init__("wandb")
        self.started, self.logged, self.finished, self.refuses = [], [], 0, None

    def Settings(self, **how):
        return how

    def init(self, **how):
        if self.refuses:
            raise self.refuses
        self.started.append(how)
        return SimpleNamespace(log=lambda values, step: self.logged.append((step, values)), finish=self._finish)

    def _finish(self):
        self.finished += 1


@pytest.fixture
def wandb(monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_auto_without_anything_is_none_with_a_reason(run, installed):
    installed()
    tracker = open_tracker("auto", run, resume_step=0, settings={})
    assert type(tracker) is Tracker and run.choices[0][1] == "none" and "history.jsonl" in run.choices[0][2]
    tracker.log(1, {"a": 1.0})
    tracker.close()


def test_auto_takes_wandb_only_with_a_key(run, installed, wandb, monkeypatch):
    installed("wandb")
    assert type(open_tracker("auto", run, resume_step=0, settings={})) is Tracker
    monkeypatch.setenv("WANDB_API_KEY", "k")
    tracker = open_tracker("auto", run, resume_step=0, settings={"lr": 1})
    tracker.log(3, {"loss": 0.5})
    tracker.close()
    assert (
        [c[1] for c in run.choices] == ["none", "wandb"]
        and wandb.logged == [(3, {"loss": 0.5})]
        and wandb.finished == 1
    )
    how = wandb.started[0]
    assert how["id"] == "toy-a" and how["resume"] == "allow" and how["mode"] == "online" and how["config"] == {"lr": 1}
    assert "k" not in [str(part) for choice in run.choices for part in choice], "no secret in the report"


def test_wandb_asked_for_without_a_key_is_offline(run, installed, wandb):
    installed("wandb")
    open_tracker("wandb", run, resume_step=0, settings={})
    assert wandb.started[0]["mode"] == "offline" and run.choices == []


def test_a_tracker_that_does_not_start_costs_no_training(run, installed, wandb, monkeypatch):
    installed("wandb")
    monkeypatch.setenv("WANDB_API_KEY", "k")
    wandb.refuses = RuntimeError("no network\nlong trace")
    assert type(open_tracker("auto", run, resume_step=0, settings={})) is Tracker
    assert run.choices[-1][1:] == ("none", "wandb does not start: RuntimeError: no network")


@pytest.mark.parametrize("kind", ["wandb", "tensorboard"])
def test_what_is_asked_for_but_not_installed_is_said(run, installed, kind):
    installed()
    assert type(open_tracker(kind, run, resume_step=0, settings={})) is Tracker
    assert run.choices == [("train.tracker", "none", f"{kind} is not installed here (pip install {kind})")]


def test_none_is_none(run):
    assert type(open_tracker("none", run, resume_step=0, settings={})) is Tracker and run.choices == []


def test_a_tensorboard_curve_goes_on_where_the_run_resumes(run, installed):
    pytest.importorskip("tensorboard")
    installed("tensorboard")
    first = open_tracker("auto", run, resume_step=0, settings={})
    for step in range(1, 6):
        first.log(step, {"loss": 10.0 + step})
    first.close()
    second = open_tracker("tensorboard", run, resume_step=3, settings={})
    for step in range(3, 8):
        second.log(step, {"loss": 20.0 + step})
    second.close()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    curve = EventAccumulator(str(run.path / "logs/tensorboard")).Reload().Scalars("loss")
    assert [(point.step, point.value) for point in curve] == [(1, 11), (2, 12), *((s, 20 + s) for s in range(3, 8))]
    assert run.choices[0][1] == "tensorboard"


def test_a_tracker_that_fails_later_is_told_once_and_costs_nothing(run, installed, wandb, monkeypatch):
    installed("wandb")
    monkeypatch.setenv("WANDB_API_KEY", "k")
    tracker = open_tracker("auto", run, resume_step=0, settings={})
    tracker.log(1, {"a": 1.0})

    def away(step, values):
        raise OSError(107, "Transport endpoint is not connected")

    monkeypatch.setattr(tracking._Wandb, "log", lambda self, step, values: away(step, values))
    for step in (2, 3):
        tracker.log(step, {"a": 1.0})
    tracker.close()
    assert (
        len(wandb.logged) == 1 and len(run.said) == 1 and "history.jsonl" in run.said[0] and "endpoint" in run.said[0]
    )
