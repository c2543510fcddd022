"""Loudness to people: Recommendation ITU-R BS.1770-5, annex 1, as pyloudnorm measures it."""

from __future__ import annotations

import math

import numpy as np

SILENCE_LUFS = -70.0  # the absolute gate: nothing is quieter
_BLOCK_SECONDS, _STEP_SECONDS = 0.4, 0.1
_FILTERS = "DeMan"  # the recommendation's own at any rate; pyloudnorm's default is up to 0.2 LU off


def loudness_lufs(wave: np.ndarray, rate_hz: int) -> float:
    """Return the integrated loudness of a (sample,) wave; at least SILENCE_LUFS, which is also that of silence.

    A wave shorter than one block of 0.4 s counts as one block; of a longer one the part of a step at its end does not
    count.
    """
    from pyloudnorm import Meter

    if not len(wave):
        return SILENCE_LUFS
    block, step = _BLOCK_SECONDS * rate_hz, _STEP_SECONDS * rate_hz
    wave = np.asarray(wave, np.float64)
    if len(wave) < block:
        # A sample of silence behind it: by rounding alone the block could be longer than the wave, which is refused.
        meter = Meter(rate_hz, _FILTERS, block_size=(len(wave) + 1e-3) / rate_hz, overlap=0)
        wave = np.append(wave, 0.0)
    else:
        meter = Meter(rate_hz, _FILTERS)
        wave = wave[: math.ceil(block + (len(wave) - block) // step * step)]
    with np.errstate(divide="ignore", invalid="ignore"):  # silence is -inf there
        return max(SILENCE_LUFS, float(meter.integrated_loudness(wave)))
