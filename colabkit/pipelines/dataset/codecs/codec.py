"""Codec: waves to codes and back, at fixed rates; what every one of them can do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class Codec(Protocol):
    """Turns speech into codes and codes into speech.

    `fingerprint` changes when the codes of the same wave would: name, weights, settings and version are in it.
    """

    name: str
    rate_hz_in: int
    rate_hz_out: int
    frame_rate_hz: float
    num_codebooks: int
    codebook_size: int

    @property
    def fingerprint(self) -> str: ...

    def num_frames(self, num_samples: int) -> int:
        """Return how many frames a wave of so many samples at `rate_hz_in` becomes."""

    def most_seconds(self) -> float:
        """Return how much audio one encode_batch may hold, as measured on this device."""

    def encode_batch(self, waves: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return (codebook, frame) uint16 for each (sample,) float32 wave at `rate_hz_in`.

        Waves of one call have the same num_frames; each gets the codes that it gets alone.
        """

    def decode_batch(self, codes: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return a (sample,) float32 wave at `rate_hz_out` for each (codebook, frame) array."""
