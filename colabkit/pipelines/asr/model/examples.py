"""Examples that a recognizer learns from and is scored on: read, prepared, collated, and their losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from colabkit.core.errors import BrokenSampleError
from colabkit.core.prefetch import prefetch
from colabkit.pipelines.asr import RATE_HZ
from colabkit.pipelines.asr.model.recognizer import Recognizer

AHEAD_BYTES = 1 << 30  # of audio read and not used yet
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
        raise BrokenSampleError(
            error.what, got=error.got, expected=error.expected, where=speech.where(number), fix=error.fix
        ) from error
    return Example(inputs, torch.tensor(recognizer.coder.encode(speech.texts[number])), len(wave))


def collate(recognizer: Recognizer, examples: Sequence[Example]) -> dict[str, Any]:
    """Return the model's arguments for these samples, padded, on the model's device; labels are not among them."""
    inputs = recognizer.features.collate([example.inputs for example in examples])
    return {name: value.to(recognizer.device, non_blocking=True) for name, value in inputs.items()}


def losses(recognizer: Recognizer, examples: Sequence[Example]) -> torch.Tensor:
    """Return the loss of each sample, summed over its tokens. Shape: (B,)."""
    return recognizer.losses(
        collate(recognizer, examples), [e.labels for e in examples], [e.num_samples for e in examples]
    )


def read_examples(
    speech: Speech, recognizer: Recognizer, numbers: Sequence[int], *, workers: int, problem: Problem
) -> Iterator[tuple[int, Example | None]]:
    """Yield (number, example) in the order given, made ahead; None for a broken one, which is told."""

    def make(k: int) -> Example | BrokenSampleError:
        try:
            return read_example(speech, recognizer, int(numbers[k]))
        except BrokenSampleError as error:
            return error

    with closing(
        prefetch(
            make,
            0,
            len(numbers),
            workers=workers,
            ahead=4 * max(1, workers),
            max_bytes=AHEAD_BYTES,
            num_bytes=lambda k: 4.0 * RATE_HZ * float(speech.seconds[numbers[k]]),
        )
    ) as made:
        for number, example in zip(numbers, made, strict=True):
            if isinstance(example, BrokenSampleError):
                problem(speech.where(int(number)), example.what)
                example = None
            yield int(number), example
