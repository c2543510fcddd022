"""Single-speaker speech held in memory: where somebody talks in an utterance, and a bank of speakers."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from colabkit.pipelines.diarization import FRAME_SAMPLES, RATE_HZ

SILENCE_DB = -80.0  # dither of 16 bit audio lies below
LEAST_CHANGE_DB = 3.0  # between loud and soft: hum and hiss change less, speech more than 10


def speech_frames(
    wave: np.ndarray, *, fill_seconds: float = 0.3, drop_seconds: float = 0.08, range_db: float = 35.0
) -> np.ndarray:
    """Find the frames of a single-speaker utterance in which somebody talks.

    Shapes: wave (sample,) at 16 kHz -> bool (frame,), 20 ms frames, the incomplete last one left out.
    A frame is speech when its level is within `range_db` of the loud parts and clearly above the noise floor;
    pauses shorter than `fill_seconds` are filled, bursts shorter than `drop_seconds` dropped. Digital silence, an
    offset or a steady noise alone is not speech.
    """
    num_frames = len(wave) // FRAME_SAMPLES
    if num_frames == 0:
        return np.zeros(0, bool)
    wave = wave[: num_frames * FRAME_SAMPLES].astype(np.float32)
    wave = wave - wave.mean()
    # Pre-emphasis keeps rumble and hum from counting as speech.
    emphasised = np.diff(wave, prepend=wave[:1]) + 0.1 * wave
    energy = np.square(emphasised).reshape(num_frames, FRAME_SAMPLES).mean(1)
    # Three frames together: a plosive's closure is not a pause.
    level_db = 10 * np.log10(np.convolve(np.pad(energy, 1, mode="edge"), np.ones(3) / 3, mode="valid") + 1e-12)
    loud, floor = np.percentile(level_db, 95), np.percentile(level_db, 5)
    if loud < SILENCE_DB or loud - floor < LEAST_CHANGE_DB:
        return np.zeros(num_frames, bool)
    threshold = max(loud - range_db, min(floor + 8.0, loud - 15.0))
    frames_per_second = RATE_HZ / FRAME_SAMPLES
    active = level_db > threshold
    active = _remove_runs(active, False, int(fill_seconds * frames_per_second))
    return _remove_runs(active, True, int(drop_seconds * frames_per_second))


def _remove_runs(active: np.ndarray, value: bool, shortest: int) -> np.ndarray:
    """Flip inner runs of `value` that are shorter than `shortest` frames."""
    edges = np.flatnonzero(np.diff(active.astype(np.int8))) + 1
    starts, ends = np.concatenate([[0], edges]), np.concatenate([edges, [len(active)]])
    flip = (active[starts] == value) & (ends - starts < shortest)
    if not value:
        flip &= (starts > 0) & (ends < len(active))  # silence at either end is silence
    result = active.copy()
    for start, end in zip(starts[flip], ends[flip], strict=True):
        result[start:end] = not value
    return result


@dataclass(frozen=True, slots=True, eq=False)
class Utterance:
    """From the first to the last speech frame. Shapes: wave (sample,) int16 at 16 kHz, mask (frame,) bool."""

    wave: np.ndarray
    mask: np.ndarray


def prepare(wave: np.ndarray) -> Utterance | None:
    """Cut silence off either end and bring speech to one level; None where there is no speech.

    Shape: wave (sample,).
    """
    mask = speech_frames(wave)
    if mask.sum() * FRAME_SAMPLES < 0.3 * RATE_HZ:
        return None
    first, last = np.flatnonzero(mask)[[0, -1]]
    wave = wave[first * FRAME_SAMPLES : (last + 1) * FRAME_SAMPLES]
    level = np.sqrt(np.square(wave.reshape(-1, FRAME_SAMPLES)[mask[first : last + 1]]).mean())
    wave = wave * (0.06 / max(float(level), 1e-6))  # every utterance at the same level of speech
    return Utterance(np.clip(np.round(wave * 32767), -32768, 32767).astype(np.int16), mask[first : last + 1])


@dataclass(slots=True)
class SpeakerMaterial:
    """All speech of one speaker: utterances as int16 at 16 kHz, each with its speech frames."""

    name: str
    sex: str = ""
    waves: list[np.ndarray] = field(default_factory=list)
    masks: list[np.ndarray] = field(default_factory=list)

    def put(self, utterance: Utterance | None) -> bool:
        """Add a prepared utterance; returns False for None."""
        if utterance is not None:
            self.waves.append(utterance.wave)
            self.masks.append(utterance.mask)
        return utterance is not None

    @property
    def num_frames(self) -> int:
        return sum(len(m) for m in self.masks)


@dataclass
class SpeechBank:
    """Speakers to make conversations from, in a fixed order.

    `ids` are their classes in training, their places unless given; `num_classes` counts all that training has. Windows
    may be drawn from other speech later on: `at(window)` says from which.
    """

    speakers: list[SpeakerMaterial]
    ids: np.ndarray | None = None
    num_classes: int = 0

    def __post_init__(self):
        if self.ids is None:
            self.ids = np.arange(len(self.speakers))
            self.num_classes = len(self.speakers)
        self.by_sex = [np.array([i for i, s in enumerate(self.speakers) if s.sex == sex], int) for sex in "FM"]

    def at(self, window: int) -> SpeechBank:
        """Return the speech that training window number `window` is made of: always this."""
        return self

    @property
    def hours(self) -> float:
        return sum(s.num_frames for s in self.speakers) * FRAME_SAMPLES / RATE_HZ / 3600
