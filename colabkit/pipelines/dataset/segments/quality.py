"""Measure a segment and say why it is left out, if it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from colabkit.pipelines.dataset.segments.loudness import SILENCE_LUFS, loudness_lufs
from colabkit.pipelines.dataset.segments.rules import Filters

SILENCE_DB = -90.0  # of a frame: below 16 bit's last step
_CLIPPED_IN_A_ROW = 3
_FAR_BELOW_DB = 20.0  # speech: quieter frames are silence
_QUIETEST_FRACTION = 0.1  # of frames: what is heard beside the speech
_PEAK = 0.98


@dataclass(frozen=True, slots=True)
class Quality:
    """What was measured. Fractions are of samples (clipped) or of frames (the others)."""

    loudness_lufs: float
    clipped_fraction: float
    snr_db: float
    silence_fraction: float
    other_fraction: float


def measure(
    wave: np.ndarray, rate_hz: int, probabilities: np.ndarray, level_db: np.ndarray, speech_probability: float = 0.5
) -> Quality:
    """Measure a (sample,) wave with the probabilities of speech and levels of its frames, of shape (frame,)."""
    is_speech = np.asarray(probabilities) >= speech_probability
    speech_db = (
        float(np.median(level_db[is_speech])) if is_speech.any() else float(np.max(level_db, initial=SILENCE_DB))
    )
    is_quiet = level_db < speech_db - _FAR_BELOW_DB
    beside = 10 ** (np.quantile(level_db, _QUIETEST_FRACTION) / 10) if len(level_db) else 1.0
    speech = np.mean(10 ** (level_db[is_speech] / 10)) if is_speech.any() else beside
    return Quality(
        loudness_lufs=loudness_lufs(wave, rate_hz),
        clipped_fraction=clipped_fraction(wave),
        snr_db=float(10 * np.log10(max(speech - beside, beside * 1e-2) / beside)),
        silence_fraction=float(np.mean(is_quiet & ~is_speech)) if len(level_db) else 1.0,
        other_fraction=float(np.mean(~is_quiet & ~is_speech)) if len(level_db) else 0.0,
    )


def fault(quality: Quality, filters: Filters) -> str:
    """Return why a segment is left out, "" when it is kept."""
    if quality.loudness_lufs < filters.min_loudness_lufs:
        return "too quiet"
    if quality.clipped_fraction > filters.max_clipped_fraction:
        return "clipped"
    if quality.silence_fraction > filters.max_silence_fraction:
        return "mostly silence"
    if quality.other_fraction > filters.max_other_fraction:
        return "music or noise"
    if quality.snr_db < filters.min_snr_db:
        return "noisy"
    return ""


def clipped_fraction(wave: np.ndarray) -> float:
    """Return the share of samples in flat tops: three or more in a row at the wave's own peak, or at full scale."""
    size = np.abs(wave)
    peak = float(size.max(initial=0.0))
    if peak <= 0:
        return 0.0
    at_top = size >= min(peak * (1 - 1e-4), 0.9999)
    if np.count_nonzero(at_top) < _CLIPPED_IN_A_ROW:
        return 0.0
    edges = np.flatnonzero(np.diff(np.concatenate([[False], at_top, [False]]).astype(np.int8)))
    lengths = edges[1::2] - edges[::2]
    return float(lengths[lengths >= _CLIPPED_IN_A_ROW].sum() / len(wave))


def levels_db(wave: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return the rms level of the frames between `edges`, (frame + 1,) sample numbers. Shape: (frame,)."""
    if len(edges) < 2:
        return np.zeros(0)
    energy = np.concatenate([[0.0], np.cumsum(np.square(wave, dtype=np.float64))])
    edges = np.minimum(edges, len(wave))
    power = np.diff(energy[edges]) / np.maximum(np.diff(edges), 1)
    return np.maximum(10 * np.log10(np.maximum(power, 1e-12)), SILENCE_DB)


def normalised(wave: np.ndarray, quality: Quality, wanted_lufs: float | None) -> np.ndarray:
    """Return the wave at a loudness, quieter only where a peak would clip; as it is for None and for silence."""
    if wanted_lufs is None or quality.loudness_lufs <= SILENCE_LUFS:
        return wave
    gain = 10 ** ((wanted_lufs - quality.loudness_lufs) / 20)
    return (wave * np.float32(min(gain, _PEAK / max(float(np.abs(wave).max()), 1e-9)))).astype(np.float32)
