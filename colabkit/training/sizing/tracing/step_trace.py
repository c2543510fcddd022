"""Run one training step on fake tensors and write down, operator by operator, what is held.

Layers that repeat mark the step into segments, so that two runs at small depths tell any depth: the i-th operator of a
segment holds as many bytes as depth times something, plus something.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from colabkit.core.errors import UsageError
from colabkit.core.versions.differences import no_layer_dropped
from colabkit.training.processes.gradients import GRADIENT_BUCKET_BYTES
from colabkit.training.sizing.tracing.accounting import Event, Meter, rounded, tensors_of
from colabkit.training.sizing.tracing.cuda_like import like_cuda, worst_case_shapes
from colabkit.training.sizing.tracing.kernel_scratch import scratch_bytes
from colabkit.training.sizing.tracing.optimizer_memory import optimizer_bytes
from colabkit.training.sizing.workload import Regime, Workload

Segment = tuple[str, ...]
_NEEDS_VALUES = (fake_tensor.DataDependentOutputException, fake_tensor.DynamicOutputShapeException)


@dataclass(frozen=True, slots=True)
class Trace:
    """A step at one size. `held`: segment -> bytes held after each operator of it; `state_bytes`: between steps."""

    held: dict[Segment, list[int]]
    state_bytes: int
    events: list[Event]
    held_before: list[int]  # sizes of what the step found there

    def at_depth(self, depth: int, other: Trace, own: int, others: int) -> Trace | None:
        """Return the trace of `depth` layers from this one of `own` and another of `others`; None if not alike."""
        if {key: len(values) for key, values in self.held.items()} != {
            key: len(values) for key, values in other.held.items()
        }:
            return None
        share = (depth - own) / (others - own)

        def line(a: int, b: int) -> int:
            return round(a + share * (b - a))

        held = {
            key: [line(a, b) for a, b in zip(values, other.held[key], strict=True)] for key, values in self.held.items()
        }
        return replace(self, held=held, state_bytes=line(self.state_bytes, other.state_bytes))


class _SegmentMeter(Meter):
    """A meter that keeps what is held after every operator that allocates, by segment.

    `accumulates`: gradients that are complete are left out, as they are added to those of an earlier part and dropped.
    """

    def __init__(self, *, accumulates: bool, on_gpu: bool, with_scratch: bool) -> None:
        super().__init__(keep_events=True)
        self.accumulates, self.on_gpu, self.with_scratch = accumulates, on_gpu, with_scratch
        self._scratch = 0
        self.held: dict[Segment, list[int]] = {}
        self.gradient_bytes = 0
        self._current: list[int] = []

    def begin(self, segments: list[Segment], more: int = 0) -> None:
        """Start a segment that goes by these names, with `more` bytes for a moment; a name seen before starts anew."""
        self._current = [self._now() + more]
        self.held.update(dict.fromkeys(segments, self._current))

    def add_gradient(self, weight: torch.Tensor) -> None:
        """Note that the weight's gradient is complete."""
        self.gradient_bytes += rounded(weight.grad.nbytes)

    def _done(self, operator: Any, args: tuple, result: Any) -> None:
        self._scratch = scratch_bytes(operator, args, result, on_gpu=self.on_gpu) if self.with_scratch else 0

    def _check(self, asked: int) -> None:
        super()._check(asked)
        self._current.append(self._now() + self._scratch)

    def _now(self) -> int:
        return self.live_bytes - self.gradient_bytes * self.accumulates


class FakeStep:
    """A workload built on fake tensors at one depth; `run` traces its step at any number of samples and seconds."""

    def __init__(
        self,
        workload: Workload,
        regime: Regime,
        num_layers: int | None,
        *,
        on_gpu: bool,
        with_scratch: bool | None = None,
    ):
        self.workload, self.regime, self.on_gpu = workload, regime, on_gpu
        self.with_scratch = on_gpu if with_scratch is None else with_scratch
        self.depth = num_layers or workload.num_layers
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        with self._as_planned():
            self.model = workload.build(num_layers, regime.checkpointing)

    def run(self, num_samples: int, seconds: float) -> Trace:
        """Return the trace of a step mid-training: optimizer states exist, gradients where the regime accumulates.

        Raises: UsageError for a step that only values could decide; as such it passes between processes, too.
        """
        try:
            return self._run(num_samples, seconds)
        except _NEEDS_VALUES as error:
            raise UsageError(
                "The memory of this model cannot be predicted: its step decides by values, which a plan has not",
                got=f"{type(error).__name__}: {error}"[:200],
                expected="a step whose shapes follow from its input's",
                where=self.workload.name,
                fix="colabkit check, which tells whether the libraries here are versions "
                "that were tried; or choose another model",
            ) from error

    def _run(self, num_samples: int, seconds: float) -> Trace:
        meter = _SegmentMeter(accumulates=self.regime.accumulates, on_gpu=self.on_gpu, with_scratch=self.with_scratch)
        with self._as_planned(), ExitStack() as stack:
            for weight in self.model.parameters():
                weight.grad = None
                if weight.requires_grad:
                    stack.callback(weight.register_post_accumulate_grad_hook(meter.add_gradient).remove)
            meter.hold([*self.model.parameters(), *self.model.buffers()])
            weights = meter.live_bytes
            batch = self.workload.batch(num_samples, seconds)
            meter.hold(tensors_of(batch))
            before = [size for _, size in meter.events]
            meter.events.clear()
            stack.enter_context(_marks(meter, self.workload.layers(self.model), self.depth))
            loss = self._forward_and_backward(meter, batch)
            events = list(meter.events)
            trained = [weight for weight in self.model.parameters() if weight.grad is not None]
            shapes = [tuple(weight.shape) for weight in trained]
            states, moment = optimizer_bytes(shapes, self.regime.optimizer, on_gpu=self.on_gpu)
            if self.regime.world > 1:
                meter.begin([("reduce gradients",)], min(2 * GRADIENT_BUCKET_BYTES, meter.gradient_bytes))
            meter.begin([("optimizer step",)], moment)
            del loss
        between = states + weights * self.regime.ema
        always = between + meter.gradient_bytes * self.regime.accumulates
        held = {key: [value + always for value in values] for key, values in meter.held.items()}
        between_steps = [between] if between else []  # SGD keeps nothing
        return Trace(held, weights + between, events, [*before, *between_steps])

    def _forward_and_backward(self, meter: _SegmentMeter, batch: Any) -> torch.Tensor:
        with meter:
            meter.begin([("forward", "start")])
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.regime.precision != "fp32"):
                loss = self.workload.loss(self.model, batch)
            meter.begin([("backward", "start")])
            loss.backward()
        return loss

    @contextmanager
    def _as_planned(self) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng(devices=[]))
            stack.enter_context(worst_case_shapes())
            stack.enter_context(no_layer_dropped())
            if self.on_gpu:
                stack.enter_context(like_cuda())
            stack.enter_context(self._fake)
            yield


@contextmanager
def _marks(meter: _SegmentMeter, layers: list[Any], depth: int) -> Iterator[None]:
    """Start a segment of the meter at the output of every layer, and at its gradient.

    A segment is named by its distance from the stack's ends, at most two, so that names are the same at any depth.
    """
    if layers and len(layers) % depth:
        raise UsageError(
            "Cannot size this model",
            got=f"{len(layers)} layers that repeat",
            expected=f"whole stacks of {depth}",
            fix="let the workload list one stack after the other, each of num_layers layers",
        )

    def start(direction: str, stack: int, index: int) -> None:
        names = [(direction, f"stack {stack}", f"first + {index}")] if index < 2 else []
        names += [(direction, f"stack {stack}", f"last - {depth - 1 - index}")] if depth - 1 - index < 2 else []
        meter.begin(names or [(direction, f"stack {stack}", "between")])

    def mark(stack: int, index: int) -> Callable:
        def on_output(module: Any, args: Any, output: Any) -> None:
            if ("backward", "start") in meter.held:
                return  # computed again: part of the backward of that layer
            out = next(tensors_of(output))
            if out.requires_grad:
                out.register_hook(lambda grad: start("backward", stack, index))
            start("forward", stack, index)

        return on_output

    removers = [layer.register_forward_hook(mark(*divmod(number, depth))).remove for number, layer in enumerate(layers)]
    try:
        yield
    finally:
        for remove in removers:
            remove()
