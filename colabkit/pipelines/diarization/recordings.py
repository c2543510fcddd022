"""Real conversations with RTTM labels, for training windows and for evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from colabkit.core import files
from colabkit.core.errors import ColabkitError, DataError
from colabkit.io import audio
from colabkit.pipelines.diarization import FRAME_SAMPLES, FRAME_SECONDS, RATE_HZ
from colabkit.pipelines.diarization.rttm import Turn, read_rttm, read_uem, turns_to_frames
from colabkit.pipelines.diarization.simulate import Sample


@dataclass(frozen=True, slots=True)
class Recording:
    """One labelled recording: `regions` (seconds) are the parts whose labels are complete."""

    name: str
    path: Path
    turns: tuple[Turn, ...]
    regions: tuple[tuple[float, float], ...]


def fingerprint_folder(folder: str) -> dict[str, str]:
    """Return {folder: fingerprint} of the user's recordings; nothing for an empty name."""
    return {folder: files.quick_fingerprint(Path(folder).expanduser())} if folder else {}


def find_recordings(folder: str, pattern: str, problem: Callable[[str, str], None]) -> list[Recording]:
    """Find audio files with RTTM labels in a folder; what does not fit together is told to `problem`.

    Raises: DataError when the folder is missing or nothing usable is in it.
    """
    if not folder:
        return []
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise DataError("The folder with recordings does not exist", got=folder, expected="audio, *.rttm and *.uem",
                        where="recordings", fix="--set recordings.train_folder=PATH or recordings.test_folder=PATH")
    turns, regions = _read_labels(root, pattern, problem)
    found: dict[str, Recording] = {}
    with_audio = set()
    for path in audio.find_audio(root):
        name = path.stem
        if name not in turns:
            continue
        with_audio.add(name)
        if name in found:
            problem(path.relative_to(root).as_posix(), f"a second audio file for the labels of {name}; the first is used")
            continue
        try:
            seconds = audio.audio_info(path).duration_seconds
        except ColabkitError as error:
            problem(path.name, f"{error.what}; {error.fix}")
            continue
        labelled = tuple((a, min(b, seconds)) for a, b in regions.get(name, [(0.0, seconds)]) if a < seconds)
        if not labelled:
            problem(path.name, "the UEM has no region inside it")
            continue
        found[name] = Recording(name, path, tuple(turns[name]), labelled)
    for name in sorted(turns.keys() - with_audio):
        problem(name, "labels without an audio file of that name")
    if not found:
        raise DataError("No usable recordings", got=folder, expected=f"audio files named as in {pattern}",
                        where="recordings", fix="the second field of each RTTM line must be the audio file's name without ending")
    return list(found.values())


def _read_labels(root: Path, pattern: str, problem: Callable[[str, str], None]):
    turns: dict[str, list[Turn]] = {}
    regions: dict[str, list[tuple[float, float]]] = {}
    for path in sorted(root.rglob(pattern)):
        labels = read_rttm(path, strict=False)
        for name in sorted(labels.keys() & turns.keys()):
            problem(f"{path.name}, {name}", "labelled in an earlier file too; that one is used")
        turns = labels | turns
        if labels.dropped:
            problem(path.name, f"{len(labels.dropped)} bad lines left out; " + "; ".join(labels.dropped[:5]))
        uem = path.with_suffix(".uem")
        if uem.is_file():
            regions = read_uem(uem) | regions
    return turns, regions


def read_recording(recording: Recording) -> np.ndarray:
    """Return the whole wave, (sample,) float32 at 16 kHz."""
    return audio.read_audio(recording.path, rate_hz=RATE_HZ)


class RecordingWindows:
    """Random windows of real recordings; window k is a pure function of (seed, k). Waves stay in memory as int16.

    Where more people talk in a window than the model tells apart, the frames with the least talkative ones are left
    out of the loss. Raises: DataError when no time is labelled, or a recording does not decode.
    """

    def __init__(self, recordings: list[Recording], *, seed: int, window_seconds: float, max_speakers: int):
        self.recordings, self.seed, self.max_speakers = recordings, seed, max_speakers
        self.num_frames = round(window_seconds / FRAME_SECONDS)
        self.waves = [np.round(np.clip(read_recording(r), -1, 1) * 32767).astype(np.int16) for r in recordings]
        self.labels, self.scored = [], []
        for recording, wave in zip(recordings, self.waves, strict=True):
            length = len(wave) // FRAME_SAMPLES
            self.labels.append(turns_to_frames(list(recording.turns), length, FRAME_SECONDS)[0])
            scored = np.zeros(length, bool)
            for start, end in recording.regions:
                scored[round(start / FRAME_SECONDS): round(end / FRAME_SECONDS)] = True
            self.scored.append(scored)
        self.weights = np.array([s.sum() for s in self.scored], float)
        if not self.weights.sum():
            raise DataError("No labelled time in the recordings", got=f"{len(recordings)} recordings, 0 s",
                            expected="at least one 20 ms frame inside a UEM region", where="recordings.train_folder",
                            fix="correct the UEM files, or remove them where everything is labelled")
        self.weights /= self.weights.sum()

    def sample(self, index: int) -> Sample:
        """Return window `index`; speaker_ids are -1: their identity is not known across recordings."""
        rng = np.random.default_rng([self.seed, 0x4EA1, index])
        which = int(rng.choice(len(self.recordings), p=self.weights))
        good = np.flatnonzero(self.scored[which])
        start = int(np.clip(good[int(rng.integers(len(good)))] - int(rng.integers(self.num_frames)), 0, None))
        stop = start + self.num_frames
        wave = self._padded(self.waves[which], start * FRAME_SAMPLES, stop * FRAME_SAMPLES).astype(np.float32) / 32768
        active = self._padded(self.labels[which], start, stop)
        scored = self._padded(self.scored[which], start, stop)
        order = np.argsort(-active.sum(0), kind="stable")
        scored = scored & ~active[:, order[self.max_speakers:]].any(1)
        columns = np.zeros((self.num_frames, self.max_speakers), bool)
        kept = active[:, order[: self.max_speakers]]
        columns[:, : kept.shape[1]] = kept
        gain = 10 ** (rng.uniform(-8, 8) / 20)
        return Sample(wave=wave * np.float32(gain), active=columns, scored=scored,
                      speaker_ids=np.full(self.max_speakers, -1))

    @staticmethod
    def _padded(values: np.ndarray, start: int, stop: int) -> np.ndarray:
        part = values[start:stop]
        return np.concatenate([part, np.zeros((stop - start - len(part), *values.shape[1:]), values.dtype)])
