"""Likeness of decoded speech to the original: spectrum, waveform where that means anything, and melody."""

from __future__ import annotations

import numpy as np

from colabkit.pipelines.dataset.codecs import likeness
from tests.pipelines.dataset.codecs.small_models import speech


def test_the_melody_is_found():
    time = np.arange(32_000) / 16_000
    hz = 150 + 50 * np.sin(2 * np.pi * 1.5 * time)
    phase = 2 * np.pi * np.cumsum(hz) / 16_000
    wave = sum(np.sin(k * phase) / k for k in range(1, 12)).astype(np.float32) * 0.1
    found = likeness.f0_hz(wave, 16_000)
    truth = hz[320::160][: len(found)]
    assert (found > 0).mean() > 0.98
    assert np.median(np.abs(found[found > 0] / truth[found > 0] - 1)) < 0.02
    assert not likeness.f0_hz(np.zeros(16_000, np.float32), 16_000).any()
    assert (
        likeness.f0_hz(np.random.default_rng(0).standard_normal(16_000).astype(np.float32), 16_000) > 0
    ).mean() < 0.2


def test_silence_and_a_breath_of_speech_are_compared_without_trouble():
    for one in (np.zeros(16_000, np.float32), speech(160)):
        found = likeness.likeness(one, 16_000, one, 16_000)
        assert found.mel_db == 0 and np.isnan(found.f0_correlation)
