"""Colour of a voice: the vocal tract, pitch, what is added to the wave."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from colabkit.io.voices import make_speakers, speak, utterance
from colabkit.io.voices.colour import EQ_HZ, colour, to_rate

pytest.importorskip("espeakng_loader")


def _median_f0_hz(wave: np.ndarray, rate_hz: int) -> float:
    frames = np.lib.stride_tricks.sliding_window_view(wave, 640)[::320]
    frames = frames[(frames**2).mean(1) > (frames**2).mean(1).max() * 0.05] * np.hanning(640)
    lags = np.fft.irfft(np.abs(np.fft.rfft(frames, 2048)) ** 2)[:, : rate_hz // 60]
    window = np.fft.irfft(np.abs(np.fft.rfft(np.hanning(640), 2048)) ** 2)[: rate_hz // 60]
    lags = (lags / lags[:, :1] / (window / window[0]))[:, rate_hz // 400 :]
    found = []
    for row in lags[lags.max(1) > 0.6]:
        peaks = np.flatnonzero((row[1:-1] > row[:-2]) & (row[1:-1] >= row[2:]) & (row[1:-1] > 0.87 * row.max()))
        found += [rate_hz / (rate_hz // 400 + 1 + peaks[0])] if len(peaks) else []
    return float(np.median(found))


def test_voices_of_women_and_men_have_their_pitch():
    speakers = make_speakers(16, languages=("en", "it"), seed=4)
    hertz = {s.name: [_median_f0_hz(utterance(s, i).wave, 16_000) for i in range(3)] for s in speakers}
    for speaker in speakers:
        middle = np.median(hertz[speaker.name])
        assert (150 < middle < 300) if speaker.sex == "F" else (75 < middle < 165), (speaker, middle)
        assert max(hertz[speaker.name]) < 1.35 * min(hertz[speaker.name])


def test_a_shorter_vocal_tract_moves_the_formants_and_not_the_pace():
    speaker = dataclasses.replace(make_speakers(2, languages=("en",))[1], eq_db=(0.0,) * 6, breath_db=-80.0)
    text = "The old map shows a village that no longer exists."
    low, high = (speak(dataclasses.replace(speaker, tract=tract), text) for tract in (0.9, 1.1))
    assert abs(low.duration_seconds / high.duration_seconds - 1) < 0.08

    def centre_hz(made):
        power = np.abs(np.fft.rfft(made.wave)) ** 2
        return np.average(np.fft.rfftfreq(len(made.wave), 1 / 16_000), weights=power)

    assert centre_hz(high) > 1.1 * centre_hz(low)


def _plain_speaker(**more):
    """Return a voice that colours nothing but what `more` says."""
    flat = {"tilt_db_per_octave": 0.0, "eq_db": (0.0,) * 6, "low_cut_hz": 1e-3, "high_cut_hz": 1e9, "breath_db": -300.0}
    return dataclasses.replace(make_speakers(1)[0], **{**flat, **more})


def _gain_db(speaker, hertz: float, rate_hz: int = 16_000) -> float:
    """Return what a tone gains in the middle of a second, where nothing of its ends is heard."""
    wave = np.sin(2 * np.pi * hertz * np.arange(rate_hz) / rate_hz).astype(np.float32)
    made = colour(wave, speaker, rate_hz, 0)
    assert made.shape == wave.shape and made.dtype == np.float32
    inside = slice(rate_hz // 4, -rate_hz // 4)
    return 20 * np.log10(np.abs(made[inside]).max() / np.abs(wave[inside]).max())


def test_a_flat_curve_leaves_the_wave():
    wave = np.random.default_rng(0).standard_normal(8_000).astype(np.float32)
    np.testing.assert_allclose(colour(wave, _plain_speaker(), 16_000, 0), wave, atol=1e-5)


def test_the_spectrum_is_tilted_equalised_and_cut():
    tilted = _plain_speaker(tilt_db_per_octave=-6.0)
    assert abs(_gain_db(tilted, 1000)) < 0.5 and abs(_gain_db(tilted, 2000) + 6) < 0.5
    assert abs(_gain_db(tilted, 500) - 6) < 0.5
    raised = _plain_speaker(eq_db=(0.0, 0.0, 0.0, 9.0, 0.0, 0.0))
    assert abs(_gain_db(raised, EQ_HZ[3]) - 9) < 0.5 and abs(_gain_db(raised, EQ_HZ[1])) < 0.5
    cut = _plain_speaker(low_cut_hz=300.0, high_cut_hz=3000.0)
    assert _gain_db(cut, 100) < -30 and _gain_db(cut, 6000) < -15 and abs(_gain_db(cut, 1000)) < 0.5


def test_breath_follows_the_speech_and_its_draw():
    wave = np.concatenate([np.zeros(8_000), np.sin(np.arange(8_000))]).astype(np.float32)
    breathing = _plain_speaker(breath_db=-20.0)
    noise = colour(wave, breathing, 16_000, 1) - colour(wave, _plain_speaker(), 16_000, 1)
    assert np.abs(noise[:7_000]).max() < 1e-3 < 0.01 < np.abs(noise[9_000:]).std()
    assert not np.array_equal(colour(wave, breathing, 16_000, 1), colour(wave, breathing, 16_000, 2))
    np.testing.assert_array_equal(colour(wave, breathing, 16_000, 1), colour(wave, breathing, 16_000, 1))


def test_a_false_rate_moves_all_by_its_factor():
    pcm = np.array([0, 16_384, -32_768, 32_767] * 100, "<i2").tobytes()
    np.testing.assert_array_equal(to_rate(pcm, 16_000, 16_000)[:4], np.float32([0, 0.5, -1, 32_767 / 32_768]))
    assert len(to_rate(pcm, 22_050 * 1.1, 16_000)) == round(400 * 16_000 / (22_050 * 1.1))
