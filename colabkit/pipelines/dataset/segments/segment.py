"""Segment: a few seconds of one voice, and what is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A few seconds of one voice.

    key: its name, unique in a dataset. wave: (sample,) float32 in [-1, 1]. codes: (codebook, frame) uint16 or None.
    metadata: everything else that is known, as text.
    """

    key: str
    wave: np.ndarray
    rate_hz: int
    speaker: str = ""
    channel: str = ""
    text: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    codes: np.ndarray | None = None

    @property
    def seconds(self) -> float:
        return len(self.wave) / self.rate_hz
