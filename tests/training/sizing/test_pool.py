"""Shared predictions: another optimizer, fewer trained weights and other processes give what predicting anew gives."""

from __future__ import annotations

import os
import sys
import types
from dataclasses import replace

import pytest
import torch

from colabkit.core.errors import UsageError
from colabkit.training.sizing.pool import Predictions
from colabkit.training.sizing.workload import Regime, Workload
from tests.training.sizing import workloads

SMALL = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64, "conv_dim": (16,) * 7}


@pytest.mark.parametrize("optimizer", ["adamw_8bit", "adafactor"])
def test_another_optimizer_is_worked_out(optimizer):
    work, regime = workloads.wav2vec2(2, **SMALL), Regime(precision="bf16", optimizer=optimizer)
    shared = Predictions(1.0, 4.0)
    shared(work, replace(regime, optimizer="adamw"))
    worked_out, anew = shared(work, regime), Predictions(1.0, 4.0)(work, regime)
    assert shared.num_predicted == 1
    assert worked_out.state_bytes == pytest.approx(anew.state_bytes, rel=0.01)
    for size in ((1, 1.0), (4, 2.0), (16, 4.0)):
        assert worked_out.device_bytes(*size) == pytest.approx(anew.device_bytes(*size), rel=0.01)


def test_several_are_predicted_at_a_time_as_they_would_be_one_by_one():
    work = workloads.wav2vec2(2, **SMALL)
    wanted = [(work, Regime(precision="fp16", checkpointing=now)) for now in (False, True)]
    ahead, one_by_one = Predictions(1.0, 4.0), Predictions(1.0, 4.0)
    ahead.ahead(wanted)
    for item in wanted:
        assert ahead(*item) == one_by_one(*item)
    assert ahead.num_predicted == 2


def test_fewer_trained_weights_take_at_least_what_predicting_says():
    plain = workloads.wav2vec2(2, **SMALL)

    def build(num_layers, checkpointing):
        model = plain.build(num_layers, checkpointing)
        model.wav2vec2.encoder.layers[0].requires_grad_(False)
        return model

    variant = replace(plain, identity="frozen", build=build)
    predictions, regime = Predictions(1.0, 4.0), Regime(precision="bf16")
    bound = predictions.lightened(plain, variant, regime)
    anew, whole = predictions(variant, regime), predictions(plain, regime)
    assert bound.state_bytes == pytest.approx(anew.state_bytes, rel=0.01) and bound.state_bytes < whole.state_bytes
    assert anew.device_bytes(4, 4.0) <= 1.01 * bound.device_bytes(4, 4.0) < 1.01 * whole.device_bytes(4, 4.0)


class Deciding(torch.nn.Module):
    """A layer that does one thing or another, as its values are."""

    def __init__(self):
        super().__init__()
        self.line = torch.nn.Linear(4, 4)

    def forward(self, x):
        return self.line(x) if bool(x.sum() > 0) else x + self.line.bias


def deciding(name: str) -> Workload:
    return Workload(
        name=name,
        identity=name,
        num_layers=1,
        build=lambda layers, checkpointing: Deciding(),
        layers=lambda model: [],
        batch=lambda samples, seconds: torch.ones(samples, 4),
        loss=lambda model, batch: model(batch).sum(),
    )


def test_a_process_that_reads_buckets_is_not_copied(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    work, predictions = workloads.wav2vec2(2, **SMALL), Predictions(1.0, 4.0)
    monkeypatch.setitem(sys.modules, "obstore", types.ModuleType("obstore"))  # whose threads would stay behind
    predictions.ahead([(work, Regime(precision="fp16", checkpointing=now)) for now in (False, True)])
    assert predictions.num_predicted == 0


def test_a_model_that_decides_by_values_is_told_from_other_processes_too(monkeypatch):
    # of other tests: a process that reads buckets is not copied
    monkeypatch.delitem(sys.modules, "obstore", raising=False)
    predictions = Predictions(1.0, 10.0, on_gpu=True)
    regime = Regime(precision="fp32")
    with pytest.raises(UsageError, match="decides by values") as caught:
        predictions(deciding("one"), regime)
    assert "colabkit check" in caught.value.fix
    with pytest.raises(UsageError, match="decides by values"):
        predictions.ahead([(deciding("one"), regime), (deciding("two"), regime)])
