"""Held-out conversations, simulated and real, scored: DER with its parts, JER, frame accuracy, confusion."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from colabkit.pipelines.diarization import FRAME_SECONDS
from colabkit.pipelines.diarization.conversations.simulate import Sample
from colabkit.pipelines.diarization.evaluate.metrics import (
    DiarizationScore,
    frame_accuracy,
    score_many,
    single_speaker_baseline,
)
from colabkit.pipelines.diarization.infer import Diarizer
from colabkit.pipelines.diarization.rttm import Turn, frames_to_turns, turns_to_frames


@dataclass(frozen=True, slots=True)
class Conversation:
    """A labelled conversation to test on; `regions` is what is scored."""

    name: str
    wave: np.ndarray
    turns: list[Turn]
    regions: list[tuple[float, float]]


def conversation(name: str, sample: Sample) -> Conversation:
    """Turn a simulated sample into a conversation whose reference is its own activity."""
    names = [f"voice{i + 1}" for i in range(sample.active.shape[1])]
    return Conversation(
        name,
        sample.wave,
        frames_to_turns(sample.active, FRAME_SECONDS, names),
        [(0.0, len(sample.active) * FRAME_SECONDS)],
    )


def diarize_all(diarizer: Diarizer, conversations: Iterable[Conversation]) -> list[list[Turn]]:
    """Return a hypothesis for each conversation, in order."""
    return [diarizer.diarize(c.wave) for c in conversations]


def pooled(
    conversations: list[Conversation],
    hypotheses: list[list[Turn]],
    *,
    collar_seconds: float,
    skip_overlap: bool = False,
) -> DiarizationScore:
    """Return the pooled score of all conversations."""
    pairs = [(c.turns, h) for c, h in zip(conversations, hypotheses, strict=True)]
    return score_many(
        pairs, uems=[c.regions for c in conversations], collar_seconds=collar_seconds, skip_overlap=skip_overlap
    )


def measure(conversations: list[Conversation], hypotheses: list[list[Turn]], collar_seconds: float) -> dict[str, float]:
    """Return all the report's figures, as fractions: DER and parts with and without collar, baseline, JER, accuracy."""
    with_collar = pooled(conversations, hypotheses, collar_seconds=collar_seconds)
    without = pooled(conversations, hypotheses, collar_seconds=0.0)
    baseline = pooled(
        conversations,
        [single_speaker_baseline(c.turns, c.regions) for c in conversations],
        collar_seconds=collar_seconds,
    )
    total = max(with_collar.total_seconds, 1e-9)
    return {
        "der": with_collar.der,
        "missed": with_collar.missed_seconds / total,
        "false_alarm": with_collar.false_alarm_seconds / total,
        "confusion": with_collar.confusion_seconds / total,
        "der_no_collar": without.der,
        "der_skip_overlap": pooled(conversations, hypotheses, collar_seconds=collar_seconds, skip_overlap=True).der,
        "jer": without.jer,
        "frame_accuracy": _mean_accuracy(conversations, hypotheses),
        "der_single_speaker": baseline.der,
        "times_below_single_speaker": baseline.der / max(with_collar.der, 1e-9),
    }


def _mean_accuracy(conversations: list[Conversation], hypotheses: list[list[Turn]]) -> float:
    accuracies = []
    for c, hypothesis in zip(conversations, hypotheses, strict=True):
        num_frames = int(c.regions[-1][1] / FRAME_SECONDS)
        scored, _ = turns_to_frames([Turn(a, b, "scored") for a, b in c.regions], num_frames, FRAME_SECONDS)
        frames = [turns_to_frames(turns, num_frames, FRAME_SECONDS)[0][scored[:, 0]] for turns in (c.turns, hypothesis)]
        accuracies.append(frame_accuracy(*frames))
    return float(np.mean(accuracies))


def choose_lowest(
    diarize_with: Callable[[float], list[list[Turn]]], conversations: list[Conversation], candidates: Iterable[float]
) -> tuple[float, dict[float, float]]:
    """Return the value of a setting with the lowest DER on validation conversations, and the DER of each."""
    der = {c: pooled(conversations, diarize_with(c), collar_seconds=0.0).der for c in candidates}
    lowest = min(der.values())
    good = [c for c, value in der.items() if value <= lowest + 0.002]
    return good[len(good) // 2], der  # the middle of the flat part: it carries over best
