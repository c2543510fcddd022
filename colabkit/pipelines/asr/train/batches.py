"""Transcribed speech to the samples of optimizer steps: so many, or so many seconds, of similar length; resumable.

batches = TrainingBatches(speech, recognizer, effective_batch=32, seed=0)
for loaded in batches.load(workers=2):
    ...                                  # one optimizer step with loaded.values
    batches.acknowledge(loaded)          # only now has the stream moved on
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from colabkit.core.errors import DataError
from colabkit.pipelines.asr import RATE_HZ
from colabkit.pipelines.asr.model.examples import AHEAD_BYTES, Example, Problem, Speech, read_example
from colabkit.pipelines.asr.model.recognizer import Recognizer
from colabkit.pipelines.asr.model.whisper import MOST_TOKENS
from colabkit.training.sizing.partition import tally
from colabkit.training.stream.batch_plan import GroupedOrder, length_order
from colabkit.training.stream.stream import Loaded, Order, Source, Stream

NUM_DESCRIBED = 100  # steps
NUM_TOLD = 10  # samples left aside that are named; the others are counted


def usable(speech: Speech, recognizer: Recognizer, problem: Problem) -> np.ndarray:
    """Return the numbers of the samples that can be trained on, telling the others.

    The others' texts are too long for their audio or the model. CTC writes at most one character a frame, and a frame
    between two that are the same. Shape: (sample,) int64.
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
        raise DataError(
            "No sample can be trained on",
            got=f"{len(speech.seconds)} samples, {told} left aside",
            where=speech.name,
            expected="speech with matching transcripts",
            fix="the report says why each was left aside",
        )
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
    return (
        f"{len(labels)} characters in {seconds:.2f} s: the audio has {frames} frames and the text needs {needed}"
        if needed > frames
        else ""
    )


class TrainingBatches:
    """The samples of each optimizer step, for one of `world` processes; `len()` is the number of steps of an epoch.

    A step is a pure function of the speech, the seed and its number. Broken samples are left out, told and remembered.
    Raises: UsageError where not one of `effective_batch` and `effective_seconds` is given, or a sample is longer.
    """

    def __init__(
        self,
        speech: Speech,
        recognizer: Recognizer,
        *,
        effective_batch: int | None = None,
        effective_seconds: float | None = None,
        seed: int,
        problem: Problem,
        rank: int = 0,
        world: int = 1,
    ):
        self.speech, self.recognizer, self.rank, self.world = speech, recognizer, rank, world
        self.kept = usable(speech, recognizer, problem)
        self.seconds, self.problem = np.asarray(speech.seconds)[self.kept], problem
        self._take(
            length_order(self.seconds, effective_batch=effective_batch, effective_seconds=effective_seconds, seed=seed),
            seed,
        )
        # The order that runs of earlier versions began with, and go on with.
        self._narrow = GroupedOrder(self.seconds, effective_batch, seed=seed) if effective_batch else None

    def _take(self, order: Order, seed: int) -> None:
        self.order = order
        self.stream = Stream(
            [Source(self.speech.name, self.speech.fingerprint, order)],
            seed=seed,
            problem=lambda item, reason: self.problem(self._named(item), reason),
        )

    def __len__(self) -> int:
        return len(self.order)

    def describe(self, capacity: Callable[[float], int], pass_seconds: float) -> str:
        """Say what the first steps are in this process: parts, seconds of audio, and how much of that is padding."""
        first = [self.order.batch(0, k)[self.rank :: self.world] for k in range(min(NUM_DESCRIBED, len(self)))]
        num_parts, padded, padding = tally([self.seconds[one].tolist() for one in first], capacity, pass_seconds)
        return (
            f"{len(self)} steps an epoch; the first {len(first)}: {padded / len(first):.0f} s of audio in "
            f"{num_parts / len(first):.1f} parts, {padding / max(padded, 1e-9):.1%} of it padding"
        )

    def load(self, *, workers: int, stop: int | None = None) -> Iterator[Loaded]:
        """Yield this process's examples of each step from the position on, made ahead; close it to end the workers."""
        return self.stream.load(
            self._read,
            rank=self.rank,
            world=self.world,
            workers=workers,
            max_bytes=AHEAD_BYTES,
            num_bytes=self._num_bytes,
            stop=stop,
        )

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
        if self._narrow is not None:
            begun = Stream([Source(self.speech.name, self.speech.fingerprint, self._narrow)], seed=self.stream.seed)
            if begun.plan == state.get("plan"):
                self._take(self._narrow, self.stream.seed)
        self.stream.load_state(state)

    def _read(self, source: str, sample: int) -> Example:
        return read_example(self.speech, self.recognizer, int(self.kept[sample]))

    def _num_bytes(self, source: str, sample: int) -> float:
        return 4.0 * RATE_HZ * float(self.seconds[sample])

    def _named(self, item: str) -> str:
        return self.speech.where(int(self.kept[int(item.rsplit(" ", 1)[1])]))
