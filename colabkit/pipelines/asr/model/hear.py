"""Hearing of many samples: their texts and losses, batched by length, whatever fits into memory at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from colabkit.pipelines.asr.evaluate.decode import greedy
from colabkit.pipelines.asr.model.examples import Example, Problem, Speech, collate, read_examples
from colabkit.pipelines.asr.model.recognizer import Recognizer
from colabkit.pipelines.asr.model.whisper import write
from colabkit.training.sizing.out_of_memory import clean_up, is_out_of_memory, release
from colabkit.training.sizing.partition import cut

GROUP_SAMPLES = 128  # read before they are sorted into batches
Decode = Callable[[np.ndarray], str]  # log-probabilities (T, C) of one sample -> its text


@dataclass(frozen=True, slots=True)
class Heard:
    """The text of one sample, and its loss by token, NaN where it was not asked for."""

    text: str
    loss: float = float("nan")


def hear(
    recognizer: Recognizer,
    speech: Speech,
    numbers: Sequence[int],
    *,
    capacity: Callable[[float], int],
    problem: Problem,
    decode: Decode | None = None,
    with_loss: bool = False,
    workers: int = 1,
    advance: Callable[[int], object] | None = None,
) -> list[Heard | None]:
    """Return what is heard in these samples, in their order; None for a broken one, which is told.

    `capacity(seconds)`: how many samples of that length go through at once; fewer where memory runs out. `decode` makes
    texts of log-probabilities; without it the likeliest token of each frame counts. `advance` is told how many are
    done.
    """
    was_training = recognizer.model.training
    recognizer.model.eval()
    # what takes most memory comes first
    order = sorted(range(len(numbers)), key=lambda i: -float(speech.seconds[numbers[i]]))
    found: list[Heard | None] = [None] * len(numbers)
    held: list[tuple[int, Example]] = []

    def flush() -> None:
        for place, heard in zip(
            [i for i, _ in held], _hear_all(recognizer, [e for _, e in held], capacity, decode, with_loss), strict=True
        ):
            found[place] = heard
        held.clear()

    try:
        examples = read_examples(speech, recognizer, [numbers[i] for i in order], workers=workers, problem=problem)
        for done, (place, (_, example)) in enumerate(zip(order, examples, strict=True), 1):
            if example is not None:
                held.append((place, example))
            if len(held) == GROUP_SAMPLES or done == len(order):
                flush()
            if advance is not None:
                advance(1)
        return found
    finally:
        recognizer.model.train(was_training)


def _hear_all(
    recognizer: Recognizer,
    examples: list[Example],
    capacity: Callable[[float], int],
    decode: Decode | None,
    with_loss: bool,
) -> list[Heard]:
    found: dict[int, Heard] = {}
    waiting = cut([example.seconds for example in examples], capacity)
    while waiting:
        part = waiting.pop(0)
        try:
            heard = hear_batch(recognizer, [examples[i] for i in part], decode=decode, with_loss=with_loss)
        except RuntimeError as error:
            if len(part) == 1 or not is_out_of_memory(error):
                raise
            release(error)
            clean_up()
            waiting = [part[: len(part) // 2], part[len(part) // 2 :], *waiting]
            continue
        found |= dict(zip(part, heard, strict=True))
    return [found[i] for i in range(len(examples))]


@torch.no_grad()
def hear_batch(
    recognizer: Recognizer, examples: Sequence[Example], *, decode: Decode | None = None, with_loss: bool = False
) -> list[Heard]:
    """Return what is heard in samples that go through the model at once; the model is in evaluation mode."""
    inputs = collate(recognizer, examples)
    labels, num_samples = [e.labels for e in examples], [e.num_samples for e in examples]
    losses = [float("nan")] * len(examples)
    if recognizer.is_ctc:
        log_probs_BTC = recognizer.log_probs(inputs)
        if with_loss:
            losses = recognizer.ctc_losses(log_probs_BTC, labels, num_samples).tolist()
        decode = decode or (lambda log_probs_TC: greedy(log_probs_TC, recognizer.coder).text)
        texts = [
            decode(one[: recognizer.features.num_frames(n)])
            for one, n in zip(log_probs_BTC.cpu().numpy(), num_samples, strict=True)
        ]
    else:
        if with_loss:
            losses = recognizer.losses(inputs, labels, num_samples).tolist()
        texts = write(recognizer.model, recognizer.coder, inputs)
    return [Heard(text, loss / max(1, len(one))) for text, loss, one in zip(texts, losses, labels, strict=True)]
