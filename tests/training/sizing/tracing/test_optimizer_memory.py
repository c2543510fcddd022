"""What optimizers hold, against the optimizers themselves."""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from colabkit.training.sizing.tracing.accounting import Meter
from colabkit.training.sizing.tracing.optimizer_memory import optimizer_bytes


def weights():
    return [
        nn.Parameter(torch.zeros(shape)) for shape in ((300, 200), (200,), (50, 40, 7), (1,), (400, 300), (300, 400))
    ]


def measured(make):
    """Return (bytes of the states, most that a later step takes beside them) of a real optimizer."""
    parameters = weights()
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    with Meter() as meter:
        optimizer = make(parameters)
        optimizer.step()
        states = meter.live_bytes
        meter.reset_peak()
        optimizer.step()
        return states, meter.peak_bytes - states


def shapes():
    return [tuple(weight.shape) for weight in weights()]


def test_adamw_on_a_cpu():
    states, moment = measured(lambda parameters: torch.optim.AdamW(parameters, lr=1e-3, foreach=False))
    told = optimizer_bytes(shapes(), "adamw", on_gpu=False)
    assert told[0] == states
    assert moment <= told[1] <= moment + 400 * 300 * 4  # the tensor before may have been freed


def test_fused_adamw_takes_nothing_beside_its_states():
    states, moment = measured(lambda parameters: torch.optim.AdamW(parameters, lr=1e-3, fused=True))
    assert optimizer_bytes(shapes(), "adamw", on_gpu=True) == (states, 0)
    assert moment <= 4096


def test_fused_adamw_on_fake_tensors():
    with FakeTensorMode():
        states, moment = measured(lambda parameters: torch.optim.AdamW(parameters, lr=1e-3, fused=True))
    assert optimizer_bytes(shapes(), "adamw", on_gpu=True) == (states, 0) and moment <= 4096


def test_adafactor():
    from transformers.optimization import Adafactor

    states, moment = measured(
        lambda parameters: Adafactor(parameters, lr=1e-3, scale_parameter=False, relative_step=False)
    )
    told = optimizer_bytes(shapes(), "adafactor", on_gpu=True)
    assert states == pytest.approx(told[0], abs=1024)
    assert moment <= told[1] + 512 * 8 and told[1] <= moment * 1.01


def test_sgd_as_the_trainer_makes_it():
    states, moment = measured(lambda parameters: torch.optim.SGD(parameters, lr=1e-3))
    assert optimizer_bytes(shapes(), "sgd", on_gpu=True) == (states, 0) and moment == 0


def test_eight_bits_take_a_quarter_of_the_states():
    large = [(1024, 1024)] * 10
    full, _ = optimizer_bytes(large, "adamw", on_gpu=True)
    eight, moment = optimizer_bytes(large, "adamw_8bit", on_gpu=True)
    assert moment == 0 and 0.25 * full < eight < 0.26 * full
    small, just_large = (optimizer_bytes([(count,)], "adamw_8bit", on_gpu=True)[0] for count in (4095, 4096))
    assert small > 2 * just_large  # small ones stay in float32
