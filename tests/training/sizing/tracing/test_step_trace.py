"""Run one training step on fake tensors and write down, operator by operator, what is held."""

from __future__ import annotations

from colabkit.training.sizing.tracing.step_trace import FakeStep
from colabkit.training.sizing.workload import Regime
from tests.training.sizing.workloads import vocoder


def test_a_trace_starts_from_what_is_there():
    trace = FakeStep(vocoder(), Regime(), None, on_gpu=True).run(2, 2.0)
    assert min(min(values) for values in trace.held.values()) >= trace.state_bytes
