"""Time of a pass: what any pass costs, what each second of audio adds, and from where on more audio gains little."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from colabkit.training.sizing.chosen import Measured

ENOUGH = 0.95  # of the speed that can be had
LEAST_COST = 0.005  # of the quickest pass: what passes cost beside their audio is noise below that


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """A pass with X seconds of audio, padding included, takes `pass_seconds` + X * `seconds_per_second`."""

    pass_seconds: float
    seconds_per_second: float
    least_audio_seconds: float = 0.0  # of the passes that were timed

    @classmethod
    def fitted(cls, measured: Sequence[Measured]) -> Timing:
        """Fit the steps that were timed, without the first, which loads kernels; relative errors count alike."""
        timed = [m for m in measured[1:] if m.taken_seconds]
        if not timed:
            return cls(pass_seconds=0.0, seconds_per_second=0.0)
        audio = np.array([m.num_samples * m.seconds for m in timed])
        taken = np.array([m.taken_seconds for m in timed])
        if len(timed) < 2 or np.ptp(audio) <= 0:
            return cls(pass_seconds=0.0, seconds_per_second=float((taken / audio).mean()))
        terms = np.stack([np.ones_like(audio), audio], 1) / taken[:, None]
        fixed, slope = np.linalg.lstsq(terms, np.ones_like(taken), rcond=None)[0]
        if slope <= 0:  # no pass was large enough to tell what audio costs
            return cls(pass_seconds=float(taken.min()), seconds_per_second=0.0)
        return cls(
            pass_seconds=float(fixed) if fixed > LEAST_COST * taken.min() else 0.0,
            seconds_per_second=float(slope),
            least_audio_seconds=float(audio.min()),
        )

    def speed(self, audio_seconds: float) -> float:
        """Return the seconds of audio trained on in one second."""
        return audio_seconds / (self.pass_seconds + audio_seconds * self.seconds_per_second)

    def knee_seconds(self, most_seconds: float) -> float | None:
        """Return the least audio in a pass to reach 95% of the speed of `most_seconds`; None if only that or all do."""
        if not self.pass_seconds or not self.seconds_per_second:
            return None
        wanted = ENOUGH * self.speed(most_seconds)
        knee = max(self.least_audio_seconds, wanted * self.pass_seconds / (1 - wanted * self.seconds_per_second))
        return knee if knee < most_seconds else None
