"""What a segment is measured to be, and why it is left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from colabkit.pipelines.dataset.segments.quality import (
    SILENCE_DB,
    Quality,
    clipped_fraction,
    fault,
    levels_db,
    measure,
    normalised,
)
from colabkit.pipelines.dataset.segments.rules import Filters

RATE_HZ, FRAME = 16_000, 512
GOOD = Quality(loudness_lufs=-23, clipped_fraction=0, snr_db=30, silence_fraction=0.2, other_fraction=0.1)


def measured(parts: list[tuple[float, float, float]], noise: float = 1e-4) -> Quality:
    """Measure noise of (seconds, level, probability of speech) one after another."""
    draw = np.random.default_rng(0)
    wave = np.concatenate([draw.standard_normal(round(s * RATE_HZ / FRAME) * FRAME) * level for s, level, _ in parts])
    wave = (wave + draw.standard_normal(len(wave)) * noise).astype(np.float32)
    probabilities = np.concatenate([np.full(round(s * RATE_HZ / FRAME), p) for s, _, p in parts])
    return measure(wave, RATE_HZ, probabilities, levels_db(wave, np.arange(0, len(wave) + 1, FRAME)))


def test_good_speech_is_kept():
    quality = measured([(0.3, 0, 0), (4, 0.1, 0.9), (0.4, 0, 0)])
    assert fault(quality, Filters()) == "" and quality.snr_db == pytest.approx(60, abs=1)
    assert quality.silence_fraction == pytest.approx(0.15, abs=0.02) and quality.other_fraction == 0


@pytest.mark.parametrize(
    ("parts", "noise", "reason"),
    [
        ([(4, 0.0005, 0.9)], 1e-5, "too quiet"),
        ([(1, 0.1, 0.9), (3, 0, 0)], 1e-4, "mostly silence"),
        ([(1, 0.1, 0.9), (3, 0.1, 0.1)], 1e-4, "music or noise"),
        ([(0.5, 0, 0), (3, 0.1, 0.9)], 0.08, "noisy"),
    ],
)
def test_reasons(parts, noise, reason):
    assert fault(measured(parts, noise), Filters()) == reason


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("loudness_lufs", -50.1, "too quiet"),
        ("clipped_fraction", 0.01, "clipped"),
        ("snr_db", 5, "noisy"),
        ("silence_fraction", 0.7, "mostly silence"),
        ("other_fraction", 0.5, "music or noise"),
    ],
)
def test_each_filter_alone(name, value, reason):
    assert fault(GOOD, Filters()) == "" and fault(replace(GOOD, **{name: value}), Filters()) == reason


def test_clipping_is_found_also_where_it_was_made_quieter():
    time = np.arange(RATE_HZ) / RATE_HZ
    sine = np.sin(2 * np.pi * 200 * time).astype(np.float32)
    assert clipped_fraction(0.9 * sine) == 0
    assert clipped_fraction(np.clip(2 * sine, -1, 1)) == pytest.approx(2 / 3, abs=0.03)
    assert clipped_fraction(0.3 * np.clip(2 * sine, -1, 1)) == pytest.approx(2 / 3, abs=0.03)
    assert clipped_fraction(np.round(0.02 * sine * 32_768) / 32_768) < 0.15  # steps of 16 bit are no clipping of note
    assert clipped_fraction(np.zeros(9)) == 0 == clipped_fraction(np.zeros(0))


def test_speech_of_16_bit_is_not_taken_for_clipped():
    from colabkit.io.voices import make_speakers, utterance

    wave = utterance(make_speakers(1)[0], 0).wave
    assert clipped_fraction(np.round(wave * 32_768) / 32_768) < 2e-4
    assert clipped_fraction(np.clip(wave * 8, -1, 1)) > 0.002


def test_levels():
    wave = np.concatenate([np.zeros(512), np.ones(512) * 0.1, np.ones(100)]).astype(np.float32)
    assert levels_db(wave, np.array([0, 512, 1_024, 1_536])) == pytest.approx([SILENCE_DB, -20, 0], abs=0.01)
    assert len(levels_db(wave, np.array([0]))) == 0


def test_nothing_is_divided_by_zero():
    with np.errstate(all="raise"):
        for wave in (np.zeros(5_120, np.float32), np.zeros(0, np.float32)):
            frames = len(wave) // 512
            quality = measure(wave, RATE_HZ, np.zeros(frames), levels_db(wave, np.arange(0, len(wave) + 1, 512)))
            assert fault(quality, Filters()) == "too quiet"


def test_normalising_reaches_the_loudness_and_never_clips():
    wave = (np.random.default_rng(0).standard_normal(RATE_HZ * 2) * 0.01).astype(np.float32)
    from colabkit.pipelines.dataset.segments.loudness import loudness_lufs

    quality = replace(GOOD, loudness_lufs=loudness_lufs(wave, RATE_HZ))
    assert loudness_lufs(normalised(wave, quality, -23.0), RATE_HZ) == pytest.approx(-23, abs=0.1)
    assert np.abs(normalised(wave, quality, -3.0)).max() <= 0.981
    assert normalised(wave, quality, None) is wave
