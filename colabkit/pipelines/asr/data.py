"""Transcribed speech to the samples of optimizer steps: exactly so many a step, of similar length, resumable at any step.

    batches = TrainingBatches(speech, recognizer, effective_batch=32, seed=0)
    for loaded in batches.load(workers=2):
        ...                                  # one optimizer step with loaded.values
        batches.acknowledge(loaded)          # only now has the stream moved on
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch

from colabkit.core.batch_plan import GroupedOrder
from colabkit.core.errors import BrokenSampleError, DataError
from colabkit.core.prefetch import prefetch
from colabkit.core.stream import Loaded, Source, Stream
from colabkit.pipelines.asr import RATE_HZ
from colabkit.pipelines.asr.model import Recognizer
from colabkit.pipelines.asr.whisper import MOST_TOKENS

AHEAD_BYTES = 1 << 30  # of audio read and not used yet
NUM_TOLD = 10  # samples left aside that are named; the others are counted

Problem = Callable[[str, str], None]


class Speech(Protocol):
    """Transcribed samples, as a split of a listing holds them; `texts` are clean."""

    name: str
    seconds: np.ndarray
    texts: Sequence[str]
    fingerprint: str

    def read_wave(self, i: int) -> np.ndarray: ...
    def where(self, i: int) -> str: ...


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One sample, ready for the model: what it hears, the tokens it should write, and how long the audio is."""

    inputs: np.ndarray
    labels: torch.Tensor
    num_samples: int

    @property
    def seconds(self) -> float:
        return self.num_samples / RATE_HZ


def read_example(speech: Speech, recognizer: Recognizer, number: int) -> Example:
    """Read and prepare one sample. Raises: BrokenSampleError when it cannot be used, what the store raises else."""
    wave = speech.read_wave(number)
    try:
        inputs = recognizer.features(wave)
    except BrokenSampleError as error:
        raise BrokenSampleError(error.what, got=error.got, expected=error.expected, where=speech.where(number),
                                fix=error.fix) from error
    return Example(inputs, torch.tensor(recognizer.coder.encode(speech.texts[number])), len(wave))


def collate(recognizer: Recognizer, examples: Sequence[Example]) -> dict[str, Any]:
    """Return the model's arguments for these samples, padded, on the model's device; labels are not among them."""
    inputs = recognizer.features.collate([example.inputs for example in examples])
    return {name: value.to(recognizer.device, non_blocking=True) for name, value in inputs.items()}


def losses(recognizer: Recognizer, examples: Sequence[Example]) -> torch.Tensor:
    """Return the loss of each sample, summed over its tokens. Shape: (B,)."""
    return recognizer.losses(collate(recognizer, examples), [e.labels for e in examples], [e.num_samples for e in examples])


def usable(speech: Speech, recognizer: Recognizer, problem: Problem) -> np.ndarray:
    """Return the numbers of the samples that can be trained on, telling the others: texts too long for their audio or the model.

    CTC writes at most one character a frame, and a frame between two that are the same. Shape: (sample,) int64.
    Raises: DataError when none is left.
    """
    kept, told = [], 0
    for number, (seconds, text) in enumerate(zip(speech.seconds.tolist(), speech.texts, strict=True)):
        reason = _fault(recognizer, recognizer.coder.encode(text), seconds)
        if not reason:
            kept.append(number)
            continue
        told += 1
        if told <= NUM_TOLD:
            problem(speech.where(number), reason)
    if told > NUM_TOLD:
        problem(f"{told - NUM_TOLD} more samples", "as those before: texts too long for their audio, or none")
    if not kept:
        raise DataError("No sample can be trained on", got=f"{len(speech.seconds)} samples, {told} left aside", where=speech.name,
                        expected="speech with matching transcripts", fix="the report says why each was left aside")
    return np.array(kept, np.int64)


def _fault(recognizer: Recognizer, labels: list[int], seconds: float) -> str:
    if not recognizer.is_ctc:
        longest = min(MOST_TOKENS, recognizer.model.config.max_target_positions)
        if seconds > recognizer.features.seconds:
            return f"{seconds:.1f} s: Whisper hears {recognizer.features.seconds:g} s at most"
        return f"the text has {len(labels)} tokens: Whisper writes {longest} at most" if len(labels) > longest else ""
    if not labels:
        return "the text is empty"
    needed = len(labels) + sum(a == b for a, b in pairwise(labels))
    frames = recognizer.features.num_frames(round(seconds * RATE_HZ))
    return f"{len(labels)} characters in {seconds:.2f} s: the audio has {frames} frames and the text needs {needed}" \
        if needed > frames else ""


class TrainingBatches:
    """The samples of each optimizer step, for one of `world` processes; `len()` is the number of steps of an epoch.

    A step is a pure function of the speech, the seed and its number. Broken samples are left out, told and remembered.
    """

    def __init__(self, speech: Speech, recognizer: Recognizer, *, effective_batch: int, seed: int, problem: Problem,
                 rank: int = 0, world: int = 1):
        self.speech, self.recognizer, self.rank, self.world = speech, recognizer, rank, world
        self.kept = usable(speech, recognizer, problem)
        self.order = GroupedOrder(np.asarray(speech.seconds)[self.kept], effective_batch, seed=seed)
        self.stream = Stream([Source(speech.name, speech.fingerprint, self.order)], seed=seed,
                             problem=lambda item, reason: problem(self._named(item), reason))

    def __len__(self) -> int:
        return len(self.order)

    def load(self, *, workers: int, stop: int | None = None) -> Iterator[Loaded]:
        """Yield this process's examples of each step from the position on, made ahead; close it to end the workers."""
        return self.stream.load(self._read, rank=self.rank, world=self.world, workers=workers, max_bytes=AHEAD_BYTES,
                                num_bytes=self._num_bytes, stop=stop)

    def acknowledge(self, loaded: Loaded, broken: Sequence[tuple[int, str]]) -> None:
        """Move on, after the optimizer step; `broken` are those of all processes."""
        self.stream.acknowledge(loaded, broken)

    @property
    def position(self) -> int:
        return self.stream.position

    def state(self) -> dict[str, Any]:
        return self.stream.state()

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue where a state says. Raises: ChangedError when it belongs to other data or settings."""
        self.stream.load_state(state)

    def _read(self, source: str, sample: int) -> Example:
        return read_example(self.speech, self.recognizer, int(self.kept[sample]))

    def _num_bytes(self, source: str, sample: int) -> float:
        return 4.0 * RATE_HZ * float(self.order.seconds[sample])

    def _named(self, item: str) -> str:
        return self.speech.where(int(self.kept[int(item.rsplit(" ", 1)[1])]))


def read_examples(speech: Speech, recognizer: Recognizer, numbers: Sequence[int], *, workers: int,
                  problem: Problem) -> Iterator[tuple[int, Example | None]]:
    """Yield (number, example) in the order given, made ahead; None for a broken one, which is told."""
    def make(k: int) -> Example | BrokenSampleError:
        try:
            return read_example(speech, recognizer, int(numbers[k]))
        except BrokenSampleError as error:
            return error
    with closing(prefetch(make, 0, len(numbers), workers=workers, ahead=4 * max(1, workers), max_bytes=AHEAD_BYTES,
                          num_bytes=lambda k: 4.0 * RATE_HZ * float(speech.seconds[numbers[k]]))) as made:
        for number, example in zip(numbers, made, strict=True):
            if isinstance(example, BrokenSampleError):
                problem(speech.where(int(number)), example.what)
                example = None
            yield int(number), example
