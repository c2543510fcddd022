"""Rules by which recordings are cut into segments, and segments are kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True, slots=True, kw_only=True)
class CutRules:
    """Where segments begin and end."""

    min_seconds: Annotated[float, "shorter segments are left out"] = 1.0
    max_seconds: Annotated[float, "longer speech is split where it is quietest"] = 15.0
    pad_seconds: Annotated[float, "kept before and after speech, at most half of the pause"] = 0.15
    max_pause_seconds: Annotated[float, "speech with shorter pauses becomes one segment"] = 0.6
    min_speech_seconds: Annotated[float, "shorter sounds are no speech"] = 0.2
    speech_probability: Annotated[float, "from which a frame is speech; it ends 0.15 below"] = 0.5

    def faults(self) -> Iterator[str]:
        if not 0 < self.min_seconds < self.max_seconds:
            yield f"min_seconds, max_seconds: got {self.min_seconds}, {self.max_seconds}, expected 0 < min < max"
        if self.min_seconds > self.max_seconds / 2:
            yield (
                f"min_seconds: got {self.min_seconds}, expected at most half of max_seconds, "
                "or long speech could not be split"
            )
        if not 0 <= self.pad_seconds <= 1:
            yield f"pad_seconds: got {self.pad_seconds}, expected 0 to 1"
        if not 0.1 <= self.max_pause_seconds < self.max_seconds:
            yield f"max_pause_seconds: got {self.max_pause_seconds}, expected 0.1 to max_seconds"
        if not 0.2 <= self.speech_probability <= 0.95:
            yield f"speech_probability: got {self.speech_probability}, expected 0.2 to 0.95"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which segments are kept; each that is not is counted under its reason."""

    min_loudness_lufs: Annotated[float, "quieter ones are left out (ITU-R BS.1770)"] = -50.0
    max_clipped_fraction: Annotated[float, "of samples that stand at the limit"] = 0.002
    min_snr_db: Annotated[float, "speech against what is heard beside it"] = 6.0
    max_silence_fraction: Annotated[float, "of frames that are far quieter than the speech"] = 0.6
    max_other_fraction: Annotated[float, "of frames as loud as speech that are none: music, noise"] = 0.4
    normalise_lufs: Annotated[float | None, "bring segments to this loudness; None leaves them as they are"] = None

    def faults(self) -> Iterator[str]:
        for name in ("max_clipped_fraction", "max_silence_fraction", "max_other_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                yield f"{name}: got {getattr(self, name)}, expected 0 to 1"
        if self.normalise_lufs is not None and not -50 <= self.normalise_lufs <= -10:
            yield f"normalise_lufs: got {self.normalise_lufs}, expected -50 to -10, or None"
