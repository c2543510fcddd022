"""Sizing, as it was chosen: how many samples of which length go through at once, in which regime, and why."""

from __future__ import annotations

import pytest

from colabkit.training.sizing.chosen import Measured
from colabkit.training.sizing.timing import Timing


def test_the_first_step_does_not_count_for_time():
    slow_first = [Measured(num_samples=1, seconds=1.0, peak_bytes=1, taken_seconds=60.0)]
    others = [Measured(num_samples=n, seconds=10.0, peak_bytes=1, taken_seconds=0.1 + n * 0.05) for n in (1, 8, 30)]
    timing = Timing.fitted(slow_first + others)
    assert timing.pass_seconds == pytest.approx(0.1) and timing.seconds_per_second == pytest.approx(0.005)
