"""Word n-gram model with interpolated modified Kneser-Ney smoothing, kept as ARPA text that other tools read as well.

Source: S. Chen and J. Goodman 1998, "An empirical study of smoothing techniques for language modeling", section 3.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from colabkit.core import files
from colabkit.core.errors import DataError, UsageError

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
_USUAL_DISCOUNTS = np.array([0.5, 1.0, 1.5])  # where there is too little text to estimate them
_NEVER = -99.0  # log10, as ARPA writes zero
_LN10 = math.log(10)

State = tuple[int, ...]  # the last words, by their numbers


class NgramModel:
    """Scores words after the words before them, in natural logarithms.

    Level k holds the (k + 1)-grams: sorted keys (place of the first k words on the level below, times the number of
    words, plus the last word), log probabilities and back-off weights. Shapes: (ngram,).
    """

    def __init__(
        self, words: list[str], keys: list[np.ndarray], log_probs: list[np.ndarray], backoffs: list[np.ndarray]
    ):
        self.words, self.keys, self.log_probs, self.backoffs = words, keys, log_probs, backoffs
        self.numbers = {word: i for i, word in enumerate(words)}
        self.order = len(keys)

    @classmethod
    def train(cls, texts: Iterable[str], order: int = 3) -> NgramModel:
        """Estimate a model of clean sentences. Raises: UsageError for an order below 1, DataError for no words."""
        if order < 1:
            raise UsageError(
                "This is no order of an n-gram model",
                got=order,
                expected="1 or more",
                where="evaluate.ngram_order",
                fix="set evaluate.ngram_order=3",
            )
        numbers = {BEGIN: 0, END: 1, UNKNOWN: 2}
        stream, places = [], []
        for text in texts:
            words = text.split()
            if words:
                stream += [0, *(numbers.setdefault(w, len(numbers)) for w in words), 1]
                places += range(len(words) + 2)
        if not stream:
            raise DataError(
                "Cannot make a language model",
                got="no words",
                expected="texts with words",
                fix="choose another decoder: evaluate.decoder=beam",
            )
        return cls(
            list(numbers), *_estimate(np.array(stream, np.int64), np.array(places, np.int64), len(numbers), order)
        )

    def begin(self) -> State:
        """Return the state before the first word."""
        return (self.numbers[BEGIN],) if self.order > 1 and BEGIN in self.numbers else ()

    def score(self, state: State, word: str) -> tuple[float, State]:
        """Return the log probability of a word in a state, and the state after it."""
        number = self.numbers.get(word, self.numbers[UNKNOWN])
        return self._log_prob(state, number), (*state, number)[-(self.order - 1) :] if self.order > 1 else ()

    def end(self, state: State) -> float:
        """Return the log probability that the sentence ends here."""
        return self._log_prob(state, self.numbers[END]) if END in self.numbers else 0.0

    def _log_prob(self, state: State, word: int) -> float:
        backoff = 0.0
        for start in range(len(state) + 1):
            context = self._find(state[start:])
            if context is None:
                continue
            level = len(state) - start
            place = self._place(level, context * len(self.words) + word)
            if place is not None:
                return backoff + float(self.log_probs[level][place])
            if level:
                backoff += float(self.backoffs[level - 1][context])
        return backoff + _NEVER * _LN10

    def _find(self, state: State) -> int | None:
        """Return the place of some words on their level; the empty state is at 0."""
        place = 0
        for level, word in enumerate(state):
            place = self._place(level, place * len(self.words) + word)
            if place is None:
                return None
        return place

    def _place(self, level: int, key: int) -> int | None:
        keys = self.keys[level]
        place = int(keys.searchsorted(key))
        return place if place < len(keys) and keys[place] == key else None

    def _ngrams(self, level: int) -> list[str]:
        if not level:
            return [self.words[int(key)] for key in self.keys[0]]
        below = self._ngrams(level - 1)
        return [
            f"{below[int(key) // len(self.words)]} {self.words[int(key) % len(self.words)]}" for key in self.keys[level]
        ]

    def save(self, path: str | os.PathLike) -> None:
        """Write ARPA text. Format: https://cmusphinx.github.io/wiki/arpaformat"""
        lines = ["\\data\\", *(f"ngram {k + 1}={len(keys)}" for k, keys in enumerate(self.keys))]
        for level in range(self.order):
            lines += ["", f"\\{level + 1}-grams:"]
            log_probs, backoffs = self.log_probs[level] / _LN10, self.backoffs[level] / _LN10
            for ngram, log_prob, backoff in zip(self._ngrams(level), log_probs, backoffs, strict=True):
                lines.append(f"{log_prob:.7g}\t{ngram}" + (f"\t{backoff:.7g}" if level < self.order - 1 else ""))
        files.write_atomic(path, "\n".join([*lines, "", "\\end\\", ""]))

    @classmethod
    def load(cls, path: str | os.PathLike) -> NgramModel:
        """Read ARPA text of any tool. Raises: DataError for a damaged file."""
        from colabkit.pipelines.asr.evaluate.arpa import read_arpa

        return read_arpa(Path(path), cls)


def _estimate(stream: np.ndarray, places: np.ndarray, num_words: int, order: int):
    """Return keys, log probabilities and back-off weights of every level.

    `ids[k]` is the number of the (k + 1)-gram that ends at each place of the stream, -1 where a sentence begins too
    late for it.
    """
    ids, keys, suffixes = [stream], [np.arange(num_words)], [None]
    counts = [np.bincount(stream, minlength=num_words)]
    for level in range(1, order):
        ends = np.flatnonzero(places >= level)
        key = ids[-1][ends - 1] * num_words + stream[ends]
        unique, first, number, count = np.unique(key, return_index=True, return_inverse=True, return_counts=True)
        found = np.full(len(stream), -1, np.int64)
        found[ends] = number
        suffixes.append(ids[-1][ends[first]])  # the n-gram without its first word
        counts.append(count)
        keys.append(unique)
        ids.append(found)
    # lower orders count the words that an n-gram was seen after, not how often it was seen
    for level in range(order - 1):
        begins = _begins_sentence(keys, level, num_words)
        different = np.bincount(suffixes[level + 1], minlength=len(keys[level]))
        counts[level] = np.where(begins, counts[level], different)
    return _smooth(keys, counts, suffixes, num_words)


def _begins_sentence(keys: list[np.ndarray], level: int, num_words: int) -> np.ndarray:
    """Say of each n-gram of a level whether its first word is <s>. Shape: (ngram,) bool."""
    first = keys[level]
    for below in range(level, 0, -1):
        first = keys[below - 1][first // num_words]
    return first == 0


def _smooth(keys: list[np.ndarray], counts: list[np.ndarray], suffixes: list, num_words: int):
    log_probs, backoffs, lower = [], [], None
    counts[0] = np.where(np.arange(num_words) == 0, 0, counts[0])  # <s> is never said
    for level, (key, count) in enumerate(zip(keys, counts, strict=True)):
        context, num_contexts = (
            (key // num_words, len(keys[level - 1])) if level else (np.zeros(num_words, np.int64), 1)
        )
        discount = _discounts(count)[np.minimum(count, 3)]
        total, freed = np.bincount(context, count, num_contexts), np.bincount(context, discount, num_contexts)
        gamma = np.divide(freed, total, out=np.ones(num_contexts), where=total > 0)
        share = np.divide(count - discount, total[context], out=np.zeros(len(count)), where=total[context] > 0)
        # Below the unigrams every word but <s> is as likely as any other, unknown ones among them.
        lower = share + gamma[context] * (lower[suffixes[level]] if level else 1 / (num_words - 1))
        if level:
            backoffs.append(np.log(gamma))
        else:
            lower[0] = 0.0
        log_probs.append(np.log(np.maximum(lower, 10**_NEVER)))
    backoffs.append(np.zeros(len(keys[-1])))
    return keys, log_probs, backoffs


def _discounts(count: np.ndarray) -> np.ndarray:
    """Return what is taken from counts of 0, 1, 2, and 3 or more; equation 26 of Chen and Goodman."""
    n1, n2, n3, n4 = (int(np.sum(count == k)) for k in (1, 2, 3, 4))
    if min(n1, n2, n3, n4):
        y = n1 / (n1 + 2 * n2)
        found = np.array([1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
        if np.all(found > 0) and np.all(found < [1, 2, 3]):
            return np.array([0.0, *found])
    return np.array([0.0, *_USUAL_DISCOUNTS])
