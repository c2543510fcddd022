"""Memory of a training step, as a function of samples and seconds.

    model.peak_bytes(8, 20.0)                # 8 samples padded to 20 s
    model.capacity(20.0, 14 * 2**30)         # how many fit

A step has phases (forward, the start of backward, its end, the optimizer), each a polynomial; the peak is the largest
of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

MOST_SAMPLES = 4096  # more in one forward pass no accelerator makes use of


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One place of a step where memory may peak: base + B * sample + B * T * second + B * T**2 * second_squared bytes.

    `base_bytes_per_second_squared` times T**2 comes once, however many samples: distances between positions.
    """

    name: str
    base_bytes: float
    bytes_per_sample: float = 0.0
    bytes_per_second: float = 0.0
    bytes_per_second_squared: float = 0.0
    base_bytes_per_second_squared: float = 0.0

    def base(self, seconds: float) -> float:
        """Return the bytes that do not grow with the samples."""
        return self.base_bytes + seconds**2 * self.base_bytes_per_second_squared

    def each(self, seconds: float) -> float:
        """Return the bytes of one more sample of this length."""
        return self.bytes_per_sample + seconds * self.bytes_per_second + seconds**2 * self.bytes_per_second_squared

    def bytes(self, num_samples: int, seconds: float) -> float:
        return self.base(seconds) + num_samples * self.each(seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryModel:
    """The memory of one training step. What stays (weights, optimizer states) is part of every phase's base.

    `state_bytes` is what lies there between steps; `slack_fraction` of what is beyond it the allocator cannot use;
    `context_bytes` the driver holds outside of torch.
    """

    phases: tuple[Phase, ...]
    state_bytes: float = 0.0
    slack_fraction: float = 0.0
    context_bytes: float = 0.0

    def peak_bytes(self, num_samples: int, seconds: float) -> float:
        """Return the largest sum of tensors at any moment: what torch.cuda.max_memory_allocated() would say."""
        return max(phase.bytes(num_samples, seconds) for phase in self.phases)

    def device_bytes(self, num_samples: int, seconds: float) -> float:
        """Return what the device must hold: the peak, the allocator's slack and the context."""
        peak = self.peak_bytes(num_samples, seconds)
        return self.context_bytes + peak + self.slack_fraction * max(0.0, peak - self.state_bytes)

    def capacity(self, seconds: float, limit_bytes: float, *, most: int = MOST_SAMPLES) -> int:
        """Return how many samples padded to `seconds` fit into `limit_bytes` of a device; zero when not one does."""
        limit = (limit_bytes - self.context_bytes + self.slack_fraction * self.state_bytes) / (1 + self.slack_fraction)
        found = float(most)
        for phase in self.phases:
            each = phase.each(seconds)
            if each > 0:
                found = min(found, (limit - phase.base(seconds)) / each)
            elif phase.base(seconds) > limit:
                return 0
        return max(0, math.floor(found + 1e-9))

    def scaled(self, factor: float) -> MemoryModel:
        """Return the model with all that grows with the batch, and what is beyond the state, times `factor`."""

        def scale(phase: Phase) -> Phase:
            base = self.state_bytes + factor * (phase.base_bytes - self.state_bytes)
            return replace(
                phase,
                base_bytes=base,
                bytes_per_sample=factor * phase.bytes_per_sample,
                bytes_per_second=factor * phase.bytes_per_second,
                bytes_per_second_squared=factor * phase.bytes_per_second_squared,
                base_bytes_per_second_squared=factor * phase.base_bytes_per_second_squared,
            )

        return replace(self, phases=tuple(map(scale, self.phases)))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> MemoryModel:
        return cls(**{**data, "phases": tuple(Phase(**phase) for phase in data["phases"])})
