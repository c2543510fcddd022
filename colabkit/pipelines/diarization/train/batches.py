"""Samples to batches: batch k is a pure function of (seed, k), made ahead in a thread."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np
import torch

from colabkit.core.errors import DataError
from colabkit.core.prefetch import prefetch
from colabkit.io import audio
from colabkit.pipelines.diarization import RATE_HZ
from colabkit.pipelines.diarization.config import EvaluateConfig, SimulateConfig
from colabkit.pipelines.diarization.conversations.simulate import ROOM_SAMPLES, Acoustics, ConversationSimulator, Sample
from colabkit.pipelines.diarization.conversations.turn_taking import TurnTaking, measure, measured_meetings
from colabkit.pipelines.diarization.conversations.windows import RecordingWindows
from colabkit.pipelines.diarization.rttm import read_rttm
from colabkit.pipelines.diarization.speech.bank import SpeechBank
from colabkit.training.stream.rolling import RollingWindow


@dataclass(slots=True)
class Batch:
    """Shapes: wave (B, T) float32, active (B, F, S) bool, speaker_ids (B, S), scored (B, F) bool."""

    wave: torch.Tensor
    active: torch.Tensor
    speaker_ids: torch.Tensor
    scored: torch.Tensor

    @classmethod
    def of(cls, samples: list[Sample]) -> Batch:
        return cls(*(torch.from_numpy(np.stack([getattr(s, name) for s in samples])) for name in cls.__slots__))

    def to(self, device: torch.device) -> Batch:
        return Batch(*(getattr(self, name).to(device, non_blocking=True) for name in self.__slots__))

    def part(self, start: int, stop: int) -> Batch:
        return Batch(*(getattr(self, name)[start:stop] for name in self.__slots__))


class TrainingBatches:
    """The endless sequence of training batches. A window is real with probability `real_fraction`.

    With several ranks, rank r takes every world-th window of the same global batch. Where they do not come out even,
    some ranks get one more that no loss is taken of: all have as many.
    """

    def __init__(
        self,
        simulator: ConversationSimulator,
        recordings: RecordingWindows | None,
        *,
        real_fraction: float,
        effective_batch: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ):
        self.simulator, self.recordings = simulator, recordings
        self.real_fraction = real_fraction if recordings else 0.0
        self.effective_batch, self.seed, self.rank, self.world = effective_batch, seed, rank, world

    def batch(self, k: int) -> Batch:
        """Return this rank's part of batch k."""
        first = k * self.effective_batch
        samples = [self.window(i) for i in range(first + self.rank, first + self.effective_batch, self.world)]
        if len(samples) < -(-self.effective_batch // self.world):
            one = samples[-1]
            samples.append(
                replace(one, scored=np.zeros_like(one.scored), speaker_ids=np.full_like(one.speaker_ids, -1))
            )
        return Batch.of(samples)

    def window(self, index: int) -> Sample:
        is_real = self.real_fraction and np.random.default_rng([self.seed, 0xF1, index]).random() < self.real_fraction
        return (self.recordings if is_real else self.simulator).sample(index)

    def from_step(self, step: int, ahead: int = 3) -> Generator[Batch, None, None]:
        """Yield batches from number `step` on, made ahead in a thread; close the generator to end the thread.

        What was made ahead and not used leaves no trace: the position is the caller's step.
        """
        return prefetch(self.batch, step, workers=1, ahead=ahead)

    def state(self, step: int) -> dict[str, dict]:
        """Return the states of the streams that feed the batches, when all batches before `step` are used."""
        return {name: window.state(step * self.effective_batch) for name, window in self._rolling().items()}

    def load_state(self, states: dict[str, dict]) -> None:
        """Continue the streams. Raises: ChangedError when a state belongs to other data."""
        for name, window in self._rolling().items():
            window.load_state(states.get(name, {}))

    def _rolling(self) -> dict[str, RollingWindow]:
        """Return the windows of what streams through memory; what is in memory as a whole has none."""
        parts = {"speech": self.simulator.bank, "recordings": self.recordings}
        return {name: part.window for name, part in parts.items() if hasattr(part, "window")}


def training_simulator(
    bank: SpeechBank, config: SimulateConfig, *, seed: int, max_speakers: int
) -> ConversationSimulator:
    """Make the simulator of training windows."""
    weights = {count: weight for count, weight in enumerate(config.speaker_weights, 1) if weight > 0}
    return ConversationSimulator(
        bank,
        turn_taking(config),
        seed=seed,
        window_seconds=config.window_seconds,
        speaker_counts=weights,
        max_speakers=max_speakers,
        same_sex_probability=config.same_sex_probability,
        noises=read_sounds(config.noise_folder),
        rooms=[as_room(s) for s in read_sounds(config.room_folder)],
        acoustics=Acoustics(
            room_probability=config.room_probability,
            noise_probability=config.noise_probability,
            snr_db=config.snr_db,
            gain_db=config.gain_db,
            tilt_db=config.tilt_db,
            telephone_probability=config.telephone_probability,
            speed_change=config.speed_change,
        ),
    )


def held_out_simulator(
    bank: SpeechBank, config: EvaluateConfig, *, seconds: float, num_speakers: int, seed: int
) -> ConversationSimulator:
    """Make the simulator of evaluation conversations: number of speakers fixed, pairs at random, voices unchanged."""
    return ConversationSimulator(
        bank,
        measured_meetings(),
        seed=seed,
        window_seconds=seconds,
        speaker_counts={num_speakers: 1.0},
        max_speakers=num_speakers,
        same_sex_probability=0.0,
        acoustics=Acoustics(
            room_probability=config.room_probability,
            noise_probability=1.0,
            snr_db=config.snr_db,
            gain_db=3.0,
            tilt_db=3.0,
            telephone_probability=0.0,
            speed_change=0.0,
        ),
    )


def turn_taking(config: SimulateConfig) -> TurnTaking:
    """Measure turn taking in the user's RTTM files, or return that of the AMI meetings."""
    if not config.turn_taking_folder:
        return measured_meetings()
    from pathlib import Path

    recordings = {}
    for path in sorted(Path(config.turn_taking_folder).expanduser().rglob("*.rttm")):
        recordings |= read_rttm(path, strict=False)
    if not any(len(turns) > 1 for turns in recordings.values()):
        raise DataError(
            "Cannot measure how people take turns",
            got=f"{len(recordings)} recordings with labels",
            expected="RTTM files with two turns or more",
            where=config.turn_taking_folder,
            fix="--set simulate.turn_taking_folder=PATH of such files, or leave it empty",
        )
    return measure(recordings, source=config.turn_taking_folder)


def read_sounds(folder: str) -> list[np.ndarray]:
    """Read all sounds of a folder at 16 kHz, each at unit level; none for an empty name.

    Raises: DataError when the folder is missing or holds no audio, or a file does not decode.
    """
    if not folder:
        return []
    waves = [audio.read_audio(path, rate_hz=RATE_HZ) for path in audio.find_audio(folder)]
    if not waves:
        raise DataError(
            "A folder of sounds holds no audio",
            got=folder,
            expected="wav, flac, mp3 or ogg files",
            where="simulate.noise_folder or simulate.room_folder",
            fix="correct the path, or leave it empty",
        )
    return [w / max(float(np.sqrt(np.square(w).mean())), 1e-6) for w in waves]


def as_room(response: np.ndarray) -> np.ndarray:
    """Return an impulse response from its direct sound on, at unit energy: labels stay in time, levels as they are."""
    response = response[int(np.abs(response).argmax()) :][:ROOM_SAMPLES]
    return (response / max(float(np.sqrt(np.square(response).sum())), 1e-6)).astype(np.float32)
