"""Loudness by BS.1770: the numbers of the recommendation and of EBU Tech 3341's test signals."""

from __future__ import annotations

import numpy as np
import pytest

from colabkit.pipelines.dataset.segments.loudness import SILENCE_LUFS, loudness_lufs

RATES_HZ = [8_000, 16_000, 22_050, 24_000, 44_100, 48_000, 96_000]


def tone(seconds: float, dbfs: float, rate_hz: int = 48_000, hz: float = 997.0) -> np.ndarray:
    return 10 ** (dbfs / 20) * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate_hz)) / rate_hz)


def test_the_filters_at_48_khz_are_the_tables_of_the_recommendation():
    from scipy.signal import lfilter

    wave = np.random.default_rng(0).standard_normal(19_200)  # one block
    shelf = lfilter(
        [1.53512485958697, -2.69169618940638, 1.19839281085285], [1, -1.69065929318241, 0.73248077421585], wave
    )
    weighted = lfilter([1, -2, 1], [1, -1.99004745483398, 0.99007225036621], shelf)
    assert loudness_lufs(wave, 48_000) == pytest.approx(-0.691 + 10 * np.log10(np.mean(weighted**2)), abs=1e-5)


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_a_tone_of_full_scale_in_one_channel_is_3_lufs_below(rate_hz):
    assert loudness_lufs(tone(5, 0, rate_hz), rate_hz) == pytest.approx(-3.01, abs=0.05)
    assert loudness_lufs(tone(5, -20, rate_hz), rate_hz) == pytest.approx(-23.01, abs=0.05)


def test_quiet_parts_are_gated():
    """EBU Tech 3341, test signal 3, in one channel: -36, -23, -36 dBFS for 10, 60 and 10 s."""
    wave = np.concatenate([tone(10, -36), tone(60, -23), tone(10, -36)])
    assert loudness_lufs(wave, 48_000) == pytest.approx(-23 - 3.01, abs=0.1)


def test_silence_and_short_waves():
    assert loudness_lufs(np.zeros(48_000), 48_000) == SILENCE_LUFS == loudness_lufs(np.zeros(10), 48_000)
    assert loudness_lufs(np.zeros(0), 48_000) == SILENCE_LUFS
    assert loudness_lufs(tone(0.3, -20), 48_000) == pytest.approx(-23, abs=0.7)
    assert loudness_lufs(np.concatenate([tone(2, -20), np.zeros(480_000)]), 48_000) == pytest.approx(-23, abs=0.4)


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_a_part_of_a_step_at_the_end_does_not_count(rate_hz):
    wave = tone(0.5, -20, rate_hz)
    for rest in (0.03, 0.05, 0.09):
        longer = np.concatenate([wave, np.zeros(int(rest * rate_hz))])
        assert loudness_lufs(longer, rate_hz) == loudness_lufs(wave, rate_hz)


@pytest.mark.parametrize("num", [1, 7, 100, 4_409, 17_639, 17_640, 17_641])
def test_any_length_has_a_loudness(num):
    for rate_hz in (*RATES_HZ, 11_025, 11_111):
        wave = np.random.default_rng(num).standard_normal(num).astype(np.float32)
        assert SILENCE_LUFS < loudness_lufs(wave, rate_hz) < 12


def test_twice_as_loud_is_6_db_more_and_rumble_counts_little():
    wave = np.random.default_rng(0).standard_normal(48_000) * 0.1
    assert loudness_lufs(2 * wave, 48_000) - loudness_lufs(wave, 48_000) == pytest.approx(6.02, abs=0.01)
    assert loudness_lufs(tone(5, -20, hz=20), 48_000) < -35
