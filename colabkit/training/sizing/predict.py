"""Predict the memory of a training step from a few runs of it on fake tensors, which need neither a GPU nor the memory.

    model = predict(workload, Regime(precision="bf16"), shortest_seconds=1, longest_seconds=20)
    model.peak_bytes(16, 12.5)

After any operator a step holds base + d T^2 + B * (a + b T + c T^2) bytes, for B samples of T seconds. Five sizes give
the five numbers of every operator, two small depths those of the whole model; what is never the largest is left out.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from colabkit.training.sizing.memory_model import MOST_SAMPLES, MemoryModel, Phase
from colabkit.training.sizing.workload import Regime, Workload

Coefficients = tuple[float, float, float, float, float]  # base, a, b, c, and d of d T^2 that comes once

SMALL_DEPTHS = (3, 4)  # with three layers the first two, and the last two, are told apart from the ends' own segments
FEW, MANY = 2, 16  # samples of the fitted sizes; one sample alone lets operators skip copies

# cuBLAS takes its workspaces from torch's allocator, one for the forward thread and one for the backward thread: 8 MiB
# each,
# 32 MiB on Hopper (aten/src/ATen/cuda: getChosenWorkspaceSize). cuDNN's, freed at once, are mostly smaller.
WORKSPACE_BYTES = 2 * 32 << 20

# The trace that the allocator replays is of few layers and of equal steps. Whole models of 12 to 48 layers, replayed at
# batches that fill a GPU, lose 1% to 10%; what goes beyond the upper bound is cached segments, which the allocator
# gives back.
LEAST_SLACK, MOST_SLACK = 0.05, 0.15


def predict(
    workload: Workload,
    regime: Regime,
    *,
    shortest_seconds: float,
    longest_seconds: float,
    on_gpu: bool = True,
    with_scratch: bool | None = None,
    context_bytes: float = 0.0,
    workspace_bytes: float | None = None,
) -> MemoryModel:
    """Return the memory of a step of B samples padded to T seconds, good for T from shortest to longest.

    `on_gpu` False: what the step takes on a CPU. `with_scratch`: what kernels use inside of themselves counts too
    (None: on a GPU, where it comes out of the same memory; an accounting.Meter does not see it). `context_bytes` and
    `workspace_bytes` are the device's: what the driver holds outside of torch, and what cuBLAS holds inside (None: the
    largest of any GPU).
    """
    workspace = (WORKSPACE_BYTES if workspace_bytes is None else workspace_bytes) if on_gpu else 0.0
    low, middle, high = _three_lengths(shortest_seconds, longest_seconds)
    sizes = [(MANY, low), (MANY, middle), (MANY, high), (FEW, low), (FEW, high)]
    traces, sample = _traces(workload, regime, sizes, on_gpu, with_scratch)
    phases = _fit([trace.held for trace in traces], sizes, (low, high))
    return MemoryModel(
        phases=tuple(
            Phase(
                name=name,
                base_bytes=base + workspace,
                bytes_per_sample=a,
                bytes_per_second=b,
                bytes_per_second_squared=c,
                base_bytes_per_second_squared=squared,
            )
            for name, (base, a, b, c, squared) in phases
        ),
        state_bytes=traces[0].state_bytes + workspace,
        slack_fraction=_slack(sample) if on_gpu else 0.0,
        context_bytes=context_bytes,
    )


def _three_lengths(shortest: float, longest: float) -> tuple[float, float, float]:
    """Return lengths over the range.

    They are round: frames are counted downwards, so that 1.01 s may take what 1 s does.
    """
    low, high = min(shortest, longest / 2), longest
    unit = 1.0 if high >= 5 else 0.2 if high >= 1 else 0.02
    low, high = max(unit, round(low / unit) * unit), max(3 * unit, math.floor(high / unit + 1e-6) * unit)
    return low, round((low + high) / 2 / unit) * unit, high


def _traces(
    workload: Workload, regime: Regime, sizes: list[tuple[int, float]], on_gpu: bool, with_scratch: bool | None
) -> tuple[list[Any], Any]:
    """Return a trace at full depth for every size, and one that was run as it is, for the allocator."""
    from colabkit.training.sizing.tracing.step_trace import FakeStep

    if workload.num_layers > max(SMALL_DEPTHS):
        steps = [FakeStep(workload, regime, depth, on_gpu=on_gpu, with_scratch=with_scratch) for depth in SMALL_DEPTHS]
        if all(workload.layers(step.model) for step in steps):
            shallow, deep = ([step.run(*size) for size in sizes] for step in steps)
            traces = [a.at_depth(workload.num_layers, b, *SMALL_DEPTHS) for a, b in zip(shallow, deep, strict=True)]
            if all(traces):
                return traces, deep[1]
    step = FakeStep(workload, regime, None, on_gpu=on_gpu, with_scratch=with_scratch)
    traces = [step.run(*size) for size in sizes]
    return traces, traces[1]


def _fit(
    held: list[dict[Any, list[int]]], sizes: list[tuple[int, float]], seconds: tuple[float, float]
) -> list[tuple[str, Coefficients]]:
    """Return (name, coefficients) of every operator that is the largest somewhere."""
    names, columns = [], []
    for segment in held[0]:
        lists = [values.get(segment, []) for values in held]
        if len({len(values) for values in lists}) > 1:  # an operator more at some size: by the segment's peak
            lists = [[max(values)] for values in lists]
        columns.append(np.array(lists, float))
        names += [", ".join(segment)] * len(lists[0])
    terms = np.array([_terms(b, t) for b, t in sizes])
    found = np.linalg.solve(terms, np.concatenate(columns, axis=1))  # (5, operators)
    grid = np.array([_terms(b, t) for b in np.geomspace(1, MOST_SAMPLES, 80) for t in np.geomspace(*seconds, 30)])
    largest = np.unique(np.argmax(grid @ found, axis=1))
    return [(names[i], tuple(found[:, i])) for i in largest]


def _terms(samples: float, seconds: float) -> list[float]:
    return [1.0, samples, samples * seconds, samples * seconds**2, seconds**2]


def _slack(trace: Any) -> float:
    """Return what the caching allocator reserves beyond what is held, over what two steps add to the state."""
    from colabkit.training.sizing.allocator import replay

    before = [(-1 - i, size) for i, size in enumerate(trace.held_before)]
    second = [(number + 10**9, size) for number, size in trace.events]
    freed = {number for number, size in trace.events if size < 0}
    left = [(number, -size) for number, size in trace.events if size > 0 and number not in freed]
    peak = replay([*before, *trace.events, *left, *second])
    beyond = peak.allocated_bytes - sum(trace.held_before)
    return float(np.clip((peak.reserved_bytes - peak.allocated_bytes) / max(1, beyond), LEAST_SLACK, MOST_SLACK))
