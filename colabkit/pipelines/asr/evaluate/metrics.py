"""Word and character error rates, how sure they are, and which samples went wrong.

Intervals: bootstrap over samples, M. Bisani and H. Ney 2004, "Bootstrap estimates for confidence intervals in ASR
performance evaluation", ICASSP: samples are drawn with replacement, their errors and lengths together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from colabkit.core.errors import UsageError

NUM_RESAMPLES = 2000
_DRAWS_AT_ONCE = 4_000_000  # of the bootstrap: bounds its memory
_KINDS = ("substitutions", "deletions", "insertions")


@dataclass(frozen=True, slots=True)
class Edits:
    """Edits of one kind of unit (words or characters). Shapes: (sample,) int64; `num_units` counts the references'."""

    substitutions: np.ndarray
    deletions: np.ndarray
    insertions: np.ndarray
    num_units: np.ndarray

    @property
    def errors(self) -> np.ndarray:
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Return errors by units of all references; as many errors as units where the references hold none."""
        errors, units = int(self.errors.sum()), int(self.num_units.sum())
        return errors / units if units else float(errors > 0)


@dataclass(frozen=True, slots=True)
class Scores:
    """WER and CER of a set of samples, with everything they are made of."""

    references: tuple[str, ...]
    hypotheses: tuple[str, ...]
    words: Edits
    characters: Edits
    wer_interval: tuple[float, float]
    cer_interval: tuple[float, float]
    confidence: float

    @property
    def wer(self) -> float:
        return self.words.rate

    @property
    def cer(self) -> float:
        return self.characters.rate

    @property
    def exact_fraction(self) -> float:
        """Return the share of samples without any error."""
        return float(np.mean(self.characters.errors == 0))

    def worst(self, num_samples: int) -> list[dict]:
        """Return the rows of the samples with most errors, by word errors, then by their share, then by place."""
        errors, units = self.words.errors, np.maximum(self.words.num_units, 1)
        order = sorted(np.flatnonzero(self.characters.errors), key=lambda i: (-errors[i], -errors[i] / units[i], i))
        return [self.row(int(i)) for i in order[:num_samples]]

    def row(self, i: int) -> dict:
        """Return what is known of one sample."""
        counts = {name: int(getattr(self.words, name)[i]) for name in _KINDS}
        return {
            "sample": i,
            "reference": self.references[i],
            "hypothesis": self.hypotheses[i],
            "wer": int(self.words.errors[i]) / max(int(self.words.num_units[i]), 1),
            "cer": int(self.characters.errors[i]) / max(int(self.characters.num_units[i]), 1),
            "errors": int(self.words.errors[i]),
            **counts,
        }

    def table(self) -> list[dict]:
        """Return a row for every sample."""
        return [self.row(i) for i in range(len(self.references))]

    def to_dict(self) -> dict:
        """Return the totals, for a report."""
        totals = {name: int(getattr(self.words, name).sum()) for name in _KINDS}
        return {
            "wer": self.wer,
            "wer_low": self.wer_interval[0],
            "wer_high": self.wer_interval[1],
            "cer": self.cer,
            "cer_low": self.cer_interval[0],
            "cer_high": self.cer_interval[1],
            "confidence": self.confidence,
            "num_samples": len(self.references),
            "exact_fraction": self.exact_fraction,
            "num_words": int(self.words.num_units.sum()),
            "num_characters": int(self.characters.num_units.sum()),
            **totals,
        }


def score(
    references: Sequence[str],
    hypotheses: Sequence[str],
    *,
    confidence: float = 0.95,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
) -> Scores:
    """Compare hypotheses with references, both cleaned the same way; white space is folded.

    An empty reference counts what was heard in it as insertions. Raises: UsageError for lists of different lengths,
    none at all, or a confidence that is none.
    """
    if len(references) != len(hypotheses) or not references:
        raise UsageError(
            "Cannot score these",
            got=f"{len(references)} references, {len(hypotheses)} hypotheses",
            expected="as many hypotheses as references, at least one",
            fix="pass one hypothesis a reference",
        )
    if not 0 < confidence < 1:
        raise UsageError(
            "This is no confidence",
            got=confidence,
            expected="between 0 and 1",
            where="evaluate.confidence",
            fix="set evaluate.confidence=0.95",
        )
    references, hypotheses = ([" ".join(text.split()) for text in texts] for texts in (references, hypotheses))
    words, characters = _count(references, hypotheses, by_words=True), _count(references, hypotheses, by_words=False)
    rates = resample_rates((words, characters), seed=seed, num_resamples=num_resamples)
    tail = (1 - confidence) / 2
    intervals = [tuple(float(x) for x in np.quantile(rate, [tail, 1 - tail])) for rate in rates]
    return Scores(tuple(references), tuple(hypotheses), words, characters, *intervals, confidence)


def resample_rates(edits: Sequence[Edits], *, seed: int, num_resamples: int) -> np.ndarray:
    """Return error rates of resampled sets, all of one resample on the same draw. Shape: (len(edits), resample)."""
    number = len(edits[0].num_units)
    rng, rates = np.random.default_rng(seed), np.empty((len(edits), num_resamples))
    step = max(1, _DRAWS_AT_ONCE // number)
    for start in range(0, num_resamples, step):
        chosen = rng.integers(0, number, (min(step, num_resamples - start), number))
        for k, edit in enumerate(edits):
            errors, units = edit.errors[chosen].sum(1), edit.num_units[chosen].sum(1)
            rates[k, start : start + len(chosen)] = np.where(units > 0, errors / np.maximum(units, 1), errors > 0)
    return rates


def _count(references: list[str], hypotheses: list[str], *, by_words: bool) -> Edits:
    import jiwer

    pairs = np.flatnonzero([bool(r) for r in references])  # jiwer refuses empty references
    counts = np.zeros((3, len(references)), np.int64)
    split = (lambda text: text.split()) if by_words else list
    for i in np.flatnonzero([not r for r in references]):
        counts[2, i] = len(split(hypotheses[i]))
    if len(pairs):
        process = jiwer.process_words if by_words else jiwer.process_characters
        found = process([references[i] for i in pairs], [hypotheses[i] for i in pairs])
        for i, chunks in zip(pairs, found.alignments, strict=True):
            for chunk in chunks:
                if chunk.type == "insert":
                    counts[2, i] += chunk.hyp_end_idx - chunk.hyp_start_idx
                elif chunk.type != "equal":
                    counts[0 if chunk.type == "substitute" else 1, i] += chunk.ref_end_idx - chunk.ref_start_idx
    return Edits(*counts, np.array([len(split(r)) for r in references], np.int64))
