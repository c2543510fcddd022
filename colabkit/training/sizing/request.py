"""Request of a pipeline to sizing: its workload, the lengths of its samples, and what its settings say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from colabkit.training.sizing.choose import size
from colabkit.training.sizing.chosen import Sizing
from colabkit.training.sizing.devices import Device
from colabkit.training.sizing.pool import Predictions
from colabkit.training.sizing.workload import Workload

RATE_HZ, SAMPLE_BYTES = 16_000, 4
ACTIVATIONS = 0.1
MOST_SAMPLES = 64


@dataclass(frozen=True, kw_only=True)
class Request:
    """All that `size` needs besides the device. `typical_seconds` and the last of `lengths` are what a plan shows.

    `documented` names a device's batch as published tables have it, "" where they have none, and `rule` gives (batch,
    accumulation) of a device by a rule of thumb: both to compare with.
    """

    workload: Workload
    lengths: tuple[float, ...]
    typical_seconds: float
    effective_batch: int | None
    effective_seconds: float | None = None
    safety_margin: float = 0.85
    checkpointing: str = "auto"
    precision: str = "auto"
    optimizer: str = "adamw"
    most: int | None = None
    world: int = 1
    ema: bool = False
    lighter: Callable[[], Mapping[str, Workload]] | None = None
    documented: Callable[[str], str] = lambda name: ""
    rule: Callable[[Device], tuple[int, int]] | None = None

    def predictions(self) -> Predictions:
        """Return what predicts for these lengths on GPUs, to be used for several of them."""
        return Predictions(self.lengths[0], self.lengths[-1])

    def size(
        self,
        device: Device,
        *,
        choose: Callable[[str, Any, str], Any] | None = None,
        predictions: Predictions | None = None,
    ) -> Sizing:
        """Return the sizing for a device."""
        return size(
            self.workload,
            device=device,
            lengths=self.lengths,
            effective_batch=self.effective_batch,
            effective_seconds=self.effective_seconds,
            safety_margin=self.safety_margin,
            checkpointing=self.checkpointing,
            precision=self.precision,
            optimizer=self.optimizer,
            most=self.most,
            world=self.world,
            ema=self.ema,
            choose=choose,
            predictions=predictions,
            lighter=self.lighter,
        )


def seed_rule(
    mean_seconds: float, model_bytes: float, total_bytes: float, *, safety_margin: float = 0.85, target: int = 32
) -> tuple[int, int]:
    """Return (batch, accumulation); at least (1, ...), whether that fits or not.

    `model_bytes`: weights, gradients and optimizer states.
    """
    each = mean_seconds * RATE_HZ * SAMPLE_BYTES + ACTIVATIONS * model_bytes
    batch = int((total_bytes * safety_margin - model_bytes) / each)
    batch = max(1, min(batch, MOST_SAMPLES))
    return batch, max(1, target // batch)
