"""Training windows of real recordings: from memory, or from a few recordings at a time that stream through it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from colabkit.core.config import digest
from colabkit.core.errors import BrokenSampleError, DataError
from colabkit.core.teller import Teller
from colabkit.pipelines.diarization import FRAME_SAMPLES, FRAME_SECONDS
from colabkit.pipelines.diarization.conversations.simulate import Sample
from colabkit.pipelines.diarization.rttm import turns_to_frames
from colabkit.pipelines.diarization.speech.recordings import Recording, read_recording
from colabkit.training.stream.batch_plan import SampleOrder
from colabkit.training.stream.rolling import RollingWindow
from colabkit.training.stream.stream import Source, Stream

VISITS = 4  # how often each moment of a recording that streams through is in a window, on average


@dataclass(frozen=True, slots=True, eq=False)
class LabelledWave:
    """A recording in memory. Shapes: wave (sample,) int16, active (frame, speaker) bool, scored (frame,) bool."""

    wave: np.ndarray
    active: np.ndarray
    scored: np.ndarray


def load(recording: Recording) -> LabelledWave:
    """Read a recording with its labels. Raises: DataError when it does not decode."""
    wave = np.round(np.clip(read_recording(recording), -1, 1) * 32767).astype(np.int16)
    num_frames = len(wave) // FRAME_SAMPLES
    scored = np.zeros(num_frames, bool)
    for start, end in recording.regions:
        scored[round(start / FRAME_SECONDS) : round(end / FRAME_SECONDS)] = True
    return LabelledWave(wave, turns_to_frames(list(recording.turns), num_frames, FRAME_SECONDS)[0], scored)


class RecordingWindows:
    """Random windows of real recordings; window k is a pure function of (seed, k). Waves stay in memory as int16.

    Where more people talk in a window than the model tells apart, the frames with the least talkative ones are left
    out of the loss. Raises: DataError when no time is labelled, or a recording does not decode.
    """

    def __init__(self, recordings: list[Recording], *, seed: int, window_seconds: float, max_speakers: int):
        self.recordings, self.seed, self.max_speakers = recordings, seed, max_speakers
        self.num_frames = round(window_seconds / FRAME_SECONDS)
        self.loaded = self._load()

    def _load(self) -> list[LabelledWave]:
        loaded = [load(recording) for recording in self.recordings]
        _require_labels(loaded)
        return loaded

    def at(self, index: int) -> list[LabelledWave]:
        """Return the recordings that window `index` is cut from: always all of them."""
        return self.loaded

    def sample(self, index: int) -> Sample:
        """Return window `index`; speaker_ids are -1: their identity is not known across recordings."""
        loaded = self.at(index)
        rng = np.random.default_rng([self.seed, 0x4EA1, index])
        weights = np.array([one.scored.sum() for one in loaded], float)
        one = loaded[int(rng.choice(len(loaded), p=weights / weights.sum()))]
        good = np.flatnonzero(one.scored)
        start = int(np.clip(good[int(rng.integers(len(good)))] - int(rng.integers(self.num_frames)), 0, None))
        stop = start + self.num_frames
        wave = _padded(one.wave, start * FRAME_SAMPLES, stop * FRAME_SAMPLES).astype(np.float32) / 32768
        active, scored = _padded(one.active, start, stop), _padded(one.scored, start, stop)
        order = np.argsort(-active.sum(0), kind="stable")
        scored = scored & ~active[:, order[self.max_speakers :]].any(1)
        columns = np.zeros((self.num_frames, self.max_speakers), bool)
        kept = active[:, order[: self.max_speakers]]
        columns[:, : kept.shape[1]] = kept
        gain = 10 ** (rng.uniform(-8, 8) / 20)
        return Sample(
            wave=wave * np.float32(gain), active=columns, scored=scored, speaker_ids=np.full(self.max_speakers, -1)
        )


class StreamedWindows(RecordingWindows):
    """The same of more recordings than fit into memory: a few at a time, each read once an epoch, in a shuffled order.

    `fraction` of all training windows are real ones; it decides how long a recording stays.
    """

    def __init__(
        self,
        recordings: list[Recording],
        teller: Teller,
        *,
        max_hours: float,
        fraction: float,
        seed: int,
        window_seconds: float,
        max_speakers: int,
    ):
        seconds = np.array([r.seconds for r in recordings])
        held = max(2, int(max_hours * 3600 / max(seconds.mean(), 1.0)) - 1)  # one more is being read
        identity = digest([[r.name, r.regions, r.turns] for r in recordings])
        source = Source("recordings", identity, SampleOrder(len(recordings), seed=seed))
        self.stream = Stream([source], seed=seed, problem=teller.problem)
        uses = VISITS * seconds.mean() / window_seconds / max(fraction, 1e-6)
        self.window = RollingWindow(
            self.stream, self._read, chapter_items=1, held=held, workers=1, uses_per_chapter=max(1, round(uses))
        )
        super().__init__(recordings, seed=seed, window_seconds=window_seconds, max_speakers=max_speakers)

    def _load(self) -> list[LabelledWave]:
        return []  # read when the first window is asked for

    def _read(self, source: str, number: int) -> LabelledWave:
        recording = self.recordings[number]
        try:
            return load(recording)
        except DataError as error:
            if recording.path is None:  # its samples tell a broken one from a source that does not answer
                raise
            raise BrokenSampleError(
                error.what, got=error.got, expected=error.expected, where=recording.path, fix=error.fix
            ) from error

    def at(self, index: int) -> list[LabelledWave]:
        """Return the recordings in memory at window `index`."""
        loaded = [value for item in self.window.at(index) for value in item.values]
        _require_labels(loaded)
        return loaded


def training_windows(
    recordings: list[Recording],
    teller: Teller,
    *,
    max_hours: float,
    fraction: float,
    seed: int,
    window_seconds: float,
    max_speakers: int,
) -> RecordingWindows | None:
    """Return windows of the recordings, from memory where they fit into `max_hours`; None without recordings."""
    if not recordings:
        return None
    how = {"seed": seed, "window_seconds": window_seconds, "max_speakers": max_speakers}
    hours = sum(r.seconds for r in recordings) / 3600
    fits = (
        f"fit into recordings.max_hours={max_hours:g}: read once, then in memory"
        if hours <= max_hours
        else f"are more than recordings.max_hours={max_hours:g}: a few at a time stream through memory"
    )
    if teller.choose("recordings.materialise", hours <= max_hours, f"{hours:.2f} h of recordings {fits}"):
        return RecordingWindows(recordings, **how)
    return StreamedWindows(recordings, teller, max_hours=max_hours, fraction=fraction, **how)


def _require_labels(loaded: list[LabelledWave]) -> None:
    if not sum(int(one.scored.sum()) for one in loaded):
        raise DataError(
            "No labelled time in the recordings",
            got=f"{len(loaded)} recordings, 0 s",
            expected="at least one 20 ms frame inside a UEM region",
            where="recordings.train_source",
            fix="correct the UEM files, or remove them where everything is labelled",
        )


def _padded(values: np.ndarray, start: int, stop: int) -> np.ndarray:
    part = values[start:stop]
    return np.concatenate([part, np.zeros((stop - start - len(part), *values.shape[1:]), values.dtype)])
