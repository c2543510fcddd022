"""What makes one synthetic voice: the settings of the synthesiser and the colour given to its sound."""

from __future__ import annotations

from dataclasses import dataclass

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
