"""Memory models, each predicted once, by several processes at once; what differs in optimizer alone is worked out."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from colabkit.training.sizing.copies import in_copies
from colabkit.training.sizing.memory_model import MemoryModel, Phase
from colabkit.training.sizing.workload import Regime, Workload

Wanted = tuple[Workload, Regime]
OPTIMIZER_STEP = "optimizer step"


@dataclass
class Predictions:
    """Predicts for samples of these lengths, and remembers. `predict` stands for the real one in tests."""

    shortest_seconds: float
    longest_seconds: float
    on_gpu: bool = True
    predict: Callable[..., MemoryModel] | None = None
    known: dict[str, MemoryModel] = field(default_factory=dict)
    num_predicted: int = 0
    _shapes: dict[str, list[tuple[int, ...]]] = field(default_factory=dict)

    def __call__(self, workload: Workload, regime: Regime) -> MemoryModel:
        """Return the memory model of a workload in a regime."""
        regime = _alike(regime)
        key = workload.key(regime)
        if key not in self.known:
            base = self.known.get(workload.key(replace(regime, optimizer="adamw")))
            if base is not None and regime.optimizer != "adamw":
                self.known[key] = with_optimizer(base, self.shapes(workload), regime.optimizer, on_gpu=self.on_gpu)
            else:
                self.num_predicted += 1
                self.known[key] = self._predict(workload, regime)
        return self.known[key]

    def lightened(self, workload: Workload, variant: Workload, regime: Regime) -> MemoryModel:
        """Return at most what a variant takes that trains fewer of the weights: spared activations are not counted."""
        plain = replace(regime, optimizer="adamw")
        shapes = self.shapes(variant)
        model = with_fewer(self(workload, plain), self.shapes(workload), shapes, on_gpu=self.on_gpu)
        return (
            model
            if regime.optimizer == "adamw"
            else with_optimizer(model, shapes, regime.optimizer, on_gpu=self.on_gpu)
        )

    def shapes(self, workload: Workload) -> list[tuple[int, ...]]:
        """Return the shapes of the weights that a workload trains."""
        if workload.identity not in self._shapes:
            self._shapes[workload.identity] = trained_shapes(workload)
        return self._shapes[workload.identity]

    def ahead(self, wanted: Iterable[Wanted]) -> None:
        """Predict all of these, as many at a time as there are cores; where this process cannot be copied, none yet."""
        lacking = {workload.key(_alike(regime)): (workload, _alike(regime)) for workload, regime in wanted}
        lacking = {key: value for key, value in lacking.items() if key not in self.known}
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        if len(lacking) < 2 or cores < 2 or not _can_fork():
            return
        for workload, _ in lacking.values():
            self.shapes(workload)  # imports what the copies would each import for themselves
        works = [lambda wanted=wanted: self._predict(*wanted) for wanted in lacking.values()]
        found = in_copies(works, min(cores, len(works)) - 1)
        self.known.update(zip(lacking, found, strict=True))
        self.num_predicted += len(found)

    def _predict(self, workload: Workload, regime: Regime) -> MemoryModel:
        predict = self.predict
        if predict is None:
            from colabkit.training.sizing.predict import predict
        return predict(
            workload,
            regime,
            shortest_seconds=self.shortest_seconds,
            longest_seconds=self.longest_seconds,
            on_gpu=self.on_gpu,
        )


def _can_fork() -> bool:
    """Tell whether a copy of this process works: CUDA and obstore have threads and handles that stay behind."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    return sys.platform == "linux" and not (cuda is not None and cuda.is_initialized()) and "obstore" not in sys.modules


def _alike(regime: Regime) -> Regime:
    """Return the regime that takes the same memory and stands for this one: float16 and bfloat16 have as many bytes."""
    return replace(regime, precision="bf16") if regime.precision == "fp16" else regime


def trained_shapes(workload: Workload) -> list[tuple[int, ...]]:
    """Return the shapes of the weights that are trained."""
    import torch

    with torch.device("meta"):
        model: Any = workload.build(None, False)
    return [tuple(weight.shape) for weight in model.parameters() if weight.requires_grad]


def with_optimizer(model: MemoryModel, shapes: list[tuple[int, ...]], optimizer: str, *, on_gpu: bool) -> MemoryModel:
    """Turn the memory model of a step with AdamW to another optimizer's: its states, and what its step needs beside."""
    from colabkit.training.sizing.tracing.accounting import rounded
    from colabkit.training.sizing.tracing.optimizer_memory import optimizer_bytes

    before, _ = optimizer_bytes(shapes, "adamw", on_gpu=on_gpu)
    after, moment = optimizer_bytes(shapes, optimizer, on_gpu=on_gpu)
    phases = [
        replace(phase, base_bytes=phase.base_bytes + after - before)
        for phase in model.phases
        if not phase.name.startswith(OPTIMIZER_STEP)
    ]
    state = model.state_bytes + after - before
    gradients = sum(rounded(4 * math.prod(shape)) for shape in shapes)
    phases.append(Phase(name=OPTIMIZER_STEP, base_bytes=state + gradients + moment))
    return replace(model, phases=tuple(phases), state_bytes=state)


def with_fewer(
    model: MemoryModel, shapes: list[tuple[int, ...]], fewer: list[tuple[int, ...]], *, on_gpu: bool
) -> MemoryModel:
    """Return the memory model of a step with AdamW that trains weights of `fewer` shapes instead of all of `shapes`."""
    from colabkit.training.sizing.tracing.accounting import rounded
    from colabkit.training.sizing.tracing.optimizer_memory import optimizer_bytes

    states = optimizer_bytes(shapes, "adamw", on_gpu=on_gpu)[0] - optimizer_bytes(fewer, "adamw", on_gpu=on_gpu)[0]
    gradients = sum(rounded(4 * math.prod(shape)) for shape in shapes) - sum(
        rounded(4 * math.prod(shape)) for shape in fewer
    )
    phases = tuple(replace(phase, base_bytes=phase.base_bytes - states - gradients) for phase in model.phases)
    return replace(model, phases=phases, state_bytes=model.state_bytes - states)
