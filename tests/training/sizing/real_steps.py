"""Real training steps on the CPU, to hold predictions against."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from colabkit.training.sizing import real_step
from colabkit.training.sizing.real_step import make_optimizer
from colabkit.training.sizing.tracing.accounting import Meter, tensors_of
from colabkit.training.sizing.workload import Regime, Workload


class RealStep:
    """A workload's step on real tensors: `run()` does it, the optimizer as on a CPU.

    Weights are random, inputs random too.
    """

    def __init__(
        self, workload: Workload, regime: Regime, num_samples: int, seconds: float, meter: Meter | None = None
    ):
        torch.manual_seed(0)
        self.workload, self.regime = workload, regime
        self.model = workload.build(None, regime.checkpointing)
        weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        self.optimizer = make_optimizer(regime.optimizer, weights, on_gpu=False, learning_rate=1e-4)
        self.batch = workload.batch(num_samples, seconds)
        if meter is not None:
            meter.hold([*self.model.parameters(), *self.model.buffers(), *tensors_of(self.batch)])

    def part(self) -> None:
        """Do forward and backward; gradients add up."""
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.regime.precision != "fp32"):
            loss = self.workload.loss(self.model, self.batch)
        loss.backward()

    def run(self) -> None:
        self.part()
        if self.regime.accumulates:
            self.part()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


class MeteredStep(real_step.RealStep):
    """The step that confirms a sizing, on CPU tensors that a meter counts instead of a GPU's allocator."""

    def __init__(self, workload: Workload, regime: Regime, meter: Meter):
        super().__init__(workload, regime, "cpu")
        self.meter = meter

    def _make(self, *, on_gpu: bool) -> None:
        with self.meter:
            super()._make(on_gpu=on_gpu)

    def _measured(self, num_samples: int, seconds: float) -> tuple[float, float]:
        self.meter.reset_peak()
        began = time.perf_counter()
        with self.meter:
            self._step(num_samples, seconds)
        return time.perf_counter() - began, float(self.meter.peak_bytes)


def metered(workload: Workload, regime: Regime, num_samples: int, seconds: float) -> tuple[int, int]:
    """Return (peak, bytes between steps) of a step in the middle of training, by a meter."""
    meter = Meter()
    step = RealStep(workload, regime, num_samples, seconds, meter)
    with meter:
        step.run()
        meter.reset_peak()
        between = meter.live_bytes
        step.run()
    return meter.peak_bytes, between


def profiled(workload: Workload, regime: Regime, num_samples: int, seconds: float) -> int:
    """Return the peak of a step in the middle of training by torch's own record of allocations on the CPU.

    That record begins at nothing: what lies there between steps is added by its sizes.
    """
    step = RealStep(workload, regime, num_samples, seconds)
    step.run()
    lying = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in _lying(step)}
    return sum(lying.values()) + peak_of_events(step.run)


def _lying(step: RealStep) -> list[torch.Tensor]:
    states = [
        value for state in step.optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor)
    ]
    return [*step.model.parameters(), *step.model.buffers(), *states, *tensors_of(step.batch)]


def peak_of_events(work: Callable[[], Any]) -> int:
    """Return the largest sum of allocations that were alive at once while `work` ran."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    live = peak = 0
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak
