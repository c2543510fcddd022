"""Likeness of decoded speech to the original: spectrum, waveform where that means anything, and melody.

None of these replaces listening: they tell a broken codec, a wrong rate or shuffled codes from a working one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from colabkit.io.audio import resample
from colabkit.pipelines.dataset.codecs.mel import NUM_MELS, MelFrames

_LONGEST_SHIFT_SECONDS = 0.1
_F0_HZ = (65.0, 400.0)
_F0_WINDOW_SECONDS, _F0_STEP_SECONDS = 0.040, 0.010
_VOICED = 0.45  # of the energy returns one period later
_MEL = MelFrames(16_000)


@dataclass(frozen=True, slots=True)
class Likeness:
    """mel_db: rms difference of log-mels up to 8 kHz.

    si_sdr_db: low where a codec makes its own phases, however good it sounds.
    f0_correlation: of the melody where both are voiced, in semitones; NaN with fewer than ten such frames.
    voiced_agreement: share of frames in which both or neither are voiced.
    """

    mel_db: float
    si_sdr_db: float
    f0_correlation: float
    voiced_agreement: float


def likeness(original: np.ndarray, original_hz: int, decoded: np.ndarray, decoded_hz: int) -> Likeness:
    """Compare two waves of the same speech, after shifting the decoded one by up to 0.1 s to fit."""
    one, other = aligned(resample(original, original_hz, 16_000), resample(decoded, decoded_hz, 16_000))
    difference = _MEL.log_mels(one) - _MEL.log_mels(other)
    f0, f0_other = f0_hz(one, 16_000), f0_hz(other, 16_000)
    both = (f0 > 0) & (f0_other > 0)
    notes = np.log2(f0[both]), np.log2(f0_other[both])
    varies = both.sum() >= 10 and min(note.std() for note in notes) > 1e-6
    correlation = float(np.corrcoef(*notes)[0, 1]) if varies else float("nan")
    agreement = float(((f0 > 0) == (f0_other > 0)).mean()) if len(f0) else 1.0
    return Likeness(
        float(np.sqrt((difference**2).mean()) * 20 / np.log(10)), si_sdr_db(one, other), correlation, agreement
    )


def aligned(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both cut to the samples they share, where they fit best (16 kHz, by cross-correlation)."""
    from scipy.fft import irfft, next_fast_len, rfft

    most = int(_LONGEST_SHIFT_SECONDS * 16_000)
    size = next_fast_len(len(one) + len(other), real=True)
    product = irfft(rfft(one, size) * np.conj(rfft(other, size)), size)
    shifts = np.r_[np.arange(most + 1), np.arange(-most, 0)]
    shift = int(shifts[np.argmax(product[shifts])]) if len(one) > 2 * most else 0
    one, other = one[max(0, shift) :], other[max(0, -shift) :]
    num = max(1, min(len(one), len(other)))
    return one[:num], other[:num]


def si_sdr_db(original: np.ndarray, decoded: np.ndarray) -> float:
    """Return the scale-invariant signal-to-distortion ratio (Le Roux et al. 2019), -60 to 60 dB."""
    one, other = original.astype(np.float64), decoded.astype(np.float64)
    target = one * (one @ other) / max(one @ one, 1e-12)
    ratio = (target @ target + 1e-12) / (np.square(other - target).sum() + 1e-12)
    return float(np.clip(10 * np.log10(ratio), -60, 60))


def f0_hz(wave: np.ndarray, rate_hz: int) -> np.ndarray:
    """Return the fundamental frequency every 10 ms by autocorrelation, 0 where there is no voice."""
    from scipy.fft import irfft, rfft

    window, step = int(_F0_WINDOW_SECONDS * rate_hz), int(_F0_STEP_SECONDS * rate_hz)
    if len(wave) < window:
        return np.zeros(0)
    frames = np.lib.stride_tricks.sliding_window_view(wave, window)[::step].astype(np.float64)
    frames = (frames - frames.mean(1, keepdims=True)) * np.hanning(window)
    energy = np.square(frames).sum(1)
    likeness_of_lags = irfft(np.abs(rfft(frames, 2 * window, axis=1)) ** 2, axis=1)[:, :window]
    # what windowing alone takes from a long lag
    shape = irfft(np.abs(rfft(np.hanning(window), 2 * window)) ** 2)[:window]
    normal = likeness_of_lags / np.maximum(energy[:, None], 1e-9) / np.maximum(shape / shape[0], 1e-3)
    shortest, longest = int(rate_hz / _F0_HZ[1]), int(rate_hz / _F0_HZ[0])
    inside = normal[:, shortest : longest + 1]
    best = inside.max(1)
    # Of lags nearly as good as the best, the shortest peak: an octave lower returns, too.
    is_peak = (
        (inside[:, 1:-1] >= inside[:, :-2])
        & (inside[:, 1:-1] > inside[:, 2:])
        & (inside[:, 1:-1] >= 0.85 * best[:, None])
    )
    lags = shortest + 1 + is_peak.argmax(1)
    is_voiced = (best > _VOICED) & is_peak.any(1) & (energy > max(1e-3 * np.quantile(energy, 0.95), 1e-7))
    return np.where(is_voiced, rate_hz / lags, 0.0)


def picture_of(wave: np.ndarray, rate_hz: int) -> np.ndarray:
    """Return (mel, frame) in dB for a picture, one column every 20 ms."""
    picture = _MEL.log_mels(resample(wave, rate_hz, 16_000)).T * np.float32(20 / np.log(10))
    return picture.reshape(NUM_MELS, -1)
