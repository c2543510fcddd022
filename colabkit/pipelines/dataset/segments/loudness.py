"""Loudness of a wave to people.

Source: Recommendation ITU-R BS.1770-5, annex 1. Its filters are given for 48 kHz; for other rates they are designed anew from
the analogue prototypes they were made of (as in libebur128 and pyloudnorm).
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

SILENCE_LUFS = -70.0  # the absolute gate: nothing is quieter
_BLOCK_SECONDS, _STEP_SECONDS = 0.4, 0.1
_RELATIVE_GATE_LU = 10.0
_OFFSET_DB = -0.691
_SHELF = (1681.974450955533, 3.999843853973347, 0.7071752369554196)  # Hz, dB, Q: the head
_HIGH_PASS = (38.13547087602444, 0.5003270373238773)  # Hz, Q: the revised low-frequency B curve


def loudness_lufs(wave: np.ndarray, rate_hz: int) -> float:
    """Return the integrated loudness of a (sample,) wave; at least SILENCE_LUFS, which is also that of silence.

    A wave shorter than one block of 0.4 s counts as one block.
    """
    from scipy.signal import sosfilt
    if not len(wave):
        return SILENCE_LUFS
    weighted = sosfilt(weighting(rate_hz), np.asarray(wave, np.float64))
    block, step = round(_BLOCK_SECONDS * rate_hz), round(_STEP_SECONDS * rate_hz)
    energy = np.concatenate([[0.0], np.cumsum(np.square(weighted))])
    if len(wave) <= block:
        powers = np.array([energy[-1] / len(wave)])
    else:
        starts = np.arange(0, len(wave) - block + 1, step)
        powers = (energy[starts + block] - energy[starts]) / block
    heard = powers[_lufs(powers) > SILENCE_LUFS]
    if not len(heard):
        return SILENCE_LUFS
    gate = float(_lufs(heard.mean())) - _RELATIVE_GATE_LU
    return float(_lufs(heard[_lufs(heard) > gate].mean()))


@lru_cache
def weighting(rate_hz: int) -> np.ndarray:
    """Return the K-weighting as second-order sections for scipy.signal. Shape: (2, 6)."""
    frequency, gain_db, q = _SHELF
    k, high = math.tan(math.pi * frequency / rate_hz), 10 ** (gain_db / 20)
    middle = high ** 0.4996667741545416
    norm = 1 + k / q + k * k
    shelf = [(high + middle * k / q + k * k) / norm, 2 * (k * k - high) / norm, (high - middle * k / q + k * k) / norm,
             1, 2 * (k * k - 1) / norm, (1 - k / q + k * k) / norm]
    frequency, q = _HIGH_PASS
    k = math.tan(math.pi * frequency / rate_hz)
    norm = 1 + k / q + k * k
    return np.array([shelf, [1, -2, 1, 1, 2 * (k * k - 1) / norm, (1 - k / q + k * k) / norm]])


def _lufs(power: np.ndarray | float) -> np.ndarray:
    return _OFFSET_DB + 10 * np.log10(np.maximum(power, 1e-20))
