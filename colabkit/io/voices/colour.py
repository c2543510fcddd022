"""A synthetic voice and the colour of its sound: vocal tract by resampling, equaliser, band limits and breath."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

EQ_HZ = (120.0, 300.0, 700.0, 1_500.0, 3_000.0, 5_500.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Speaker:
    """One synthetic voice. `tract` above 1 is a shorter vocal tract: all formants move up by that factor."""

    name: str
    language: str
    sex: str  # "F" or "M"
    voice: str  # espeak-ng's name, "en-US+f2"
    pitch: int  # 0..100, 50 = the variant's own, after the effect of `tract` was taken out
    pitch_range: int  # 0..100
    words_per_minute: int
    tract: float
    tilt_db_per_octave: float  # around 1 kHz
    eq_db: tuple[float, ...]  # gains at EQ_HZ
    low_cut_hz: float
    high_cut_hz: float
    breath_db: float  # noise relative to the envelope of the speech


def to_rate(pcm: bytes, source_hz: float, rate_hz: int) -> np.ndarray:
    """Return 16-bit PCM as float32 in [-1, 1] at another rate; a false `source_hz` moves pitch and formants."""
    import soxr

    wave = np.frombuffer(pcm, "<i2").astype(np.float32)
    wave *= 1 / 32_768
    return soxr.resample(wave, source_hz, rate_hz)


def colour(wave: np.ndarray, speaker: Speaker, rate_hz: int, draw: int) -> np.ndarray:
    """Add breath noise in the envelope of the speech, then shape the spectrum with zero phase."""
    span = rate_hz // 50
    sums = np.cumsum(np.abs(np.pad(wave, (span // 2 + 1, span - span // 2))), dtype=np.float64)
    envelope = ((sums[span:] - sums[:-span]) / span)[: len(wave)]
    # White noise has a fixed power per Hz, so that all rates hear the same; the difference leaves mostly high
    # hiss.
    noise = np.diff(np.random.default_rng(draw).standard_normal(len(wave) + 1, dtype=np.float32))
    noise *= 10 ** (speaker.breath_db / 20) * math.sqrt(rate_hz / 32_000)
    wave = wave + noise * envelope.astype(np.float32)

    num_fft = -(-(len(wave) + rate_hz // 10) // 4096) * 4096
    spectrum = np.fft.rfft(wave, num_fft)
    spectrum *= _curve(speaker, np.fft.rfftfreq(num_fft, 1 / rate_hz))
    return np.fft.irfft(spectrum, num_fft)[: len(wave)].astype(np.float32)


def _curve(speaker: Speaker, bins_hz: np.ndarray) -> np.ndarray:
    """Return the gain at every bin: tilt, equaliser and soft band limits."""
    grid_hz = np.geomspace(20, 100_000, 256)
    gain_db = np.interp(np.log(grid_hz), np.log(EQ_HZ), speaker.eq_db)
    gain_db += speaker.tilt_db_per_octave * np.clip(np.log2(grid_hz / 1_000), -3.5, 3)
    gain = 10 ** (gain_db / 20)
    gain /= np.sqrt(1 + (speaker.low_cut_hz / grid_hz) ** 8) * np.sqrt(1 + (grid_hz / speaker.high_cut_hz) ** 6)
    return np.interp(bins_hz, grid_hz, gain).astype(np.float32)
