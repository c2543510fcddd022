"""Real steps on a copy of the model: nothing of a training is touched, and none outlives its error."""

from __future__ import annotations

import pytest
import torch

from colabkit.training.sizing.real_step import confirm_here, make_optimizer
from colabkit.training.sizing.tracing.accounting import Meter
from colabkit.training.sizing.workload import Regime
from tests.training.sizing import workloads
from tests.training.sizing.real_steps import MeteredStep
from tests.training.sizing.sized import sized


def test_a_real_step_changes_nothing_that_is_trained():
    work, meter = workloads.tiny(), Meter()
    torch.manual_seed(7)
    state = torch.get_rng_state()
    with MeteredStep(work, Regime(ema=True), meter) as step:
        before = [weight.detach().clone() for weight in step.model.parameters()]
        step(2, 8.0)
        assert all(torch.equal(a, b) for a, b in zip(before, step.model.parameters(), strict=True))
        assert any(weight.grad is not None for weight in step.model.parameters())
        del before
    assert torch.equal(torch.get_rng_state(), state)
    assert meter.live_bytes < 4096  # the copy is gone


def test_a_real_step_that_ran_out_leaves_room_for_a_smaller_one():
    with MeteredStep(workloads.tiny(), Regime(), Meter(10 << 20)) as step:
        with pytest.raises(torch.OutOfMemoryError):
            step(100, 30.0)
        step(2, 8.0)  # makes the optimizer's states
        _, first = step(2, 8.0)
        with pytest.raises(torch.OutOfMemoryError):
            step(100, 30.0)
        assert step(2, 8.0)[1] == pytest.approx(first, rel=0.02)


@pytest.mark.parametrize("device", ["T4", "H200"])
def test_on_another_device_a_sizing_stays_as_predicted(tmp_path, monkeypatch, device):
    """And no step is tried: the workload of this sizing could not be built."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    sizing = sized(device)
    assert confirm_here(sizing, workloads.tiny(), tmp_path) is sizing and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name, kind, rate",
    [("adamw", torch.optim.AdamW, 1e-3), ("sgd", torch.optim.SGD, 0.5), ("adafactor", None, 0.1)],
)
def test_an_optimizer_is_made_by_the_name_that_a_regime_has(name, kind, rate):
    if kind is None:
        from transformers.optimization import Adafactor as kind
    weight = torch.nn.Parameter(torch.ones(4, 4))
    optimizer = make_optimizer(name, [weight], on_gpu=False, learning_rate=rate)
    assert type(optimizer) is kind and optimizer.param_groups[0]["lr"] == rate
    weight.square().sum().backward()
    optimizer.step()
    assert (weight < 1).all()
