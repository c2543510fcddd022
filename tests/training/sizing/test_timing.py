"""Time of a pass: what any pass costs and what audio adds, fitted to steps, and where more audio gains little."""

from __future__ import annotations

import pytest

from colabkit.training.sizing.chosen import Measured
from colabkit.training.sizing.timing import Timing


def test_the_first_step_does_not_count_for_time():
    slow_first = [Measured(num_samples=1, seconds=1.0, peak_bytes=1, taken_seconds=60.0)]
    others = [Measured(num_samples=n, seconds=10.0, peak_bytes=1, taken_seconds=0.1 + n * 0.05) for n in (1, 8, 30)]
    timing = Timing.fitted(slow_first + others)
    assert timing.pass_seconds == pytest.approx(0.1) and timing.seconds_per_second == pytest.approx(0.005)


def timed(num_samples, taken_seconds, seconds=10.0):
    return Measured(num_samples=num_samples, seconds=seconds, peak_bytes=1, taken_seconds=taken_seconds)


def test_one_size_alone_tells_no_cost_of_passes():
    timing = Timing.fitted([timed(1, 60.0), timed(4, 0.8), timed(4, 0.8)])
    assert (timing.pass_seconds, timing.seconds_per_second) == (0.0, pytest.approx(0.02))


def test_passes_that_take_no_longer_with_more_audio_tell_no_cost_of_audio():
    timing = Timing.fitted([timed(1, 60.0), timed(1, 0.3), timed(8, 0.2)])
    assert (timing.pass_seconds, timing.seconds_per_second) == (0.2, 0.0) and timing.knee_seconds(100.0) is None


def test_a_cost_of_passes_within_the_noise_is_none():
    timing = Timing.fitted([timed(1, 60.0), timed(1, 0.1 + 1e-4), timed(10, 1.0)])
    assert timing.pass_seconds == 0.0 and timing.seconds_per_second == pytest.approx(0.01, rel=0.01)


def test_the_knee_lies_within_what_was_timed_and_what_is_possible():
    timing = Timing(pass_seconds=0.05, seconds_per_second=0.002)
    knee = timing.knee_seconds(1000.0)
    assert timing.speed(knee) == pytest.approx(0.95 * timing.speed(1000.0))
    steep = Timing(pass_seconds=0.05, seconds_per_second=0.002, least_audio_seconds=600.0)
    assert steep.knee_seconds(1000.0) == 600.0, "no pass was as short as the knee would be"
    assert steep.knee_seconds(500.0) is None
