"""Voice-cloning pairs: a target and a reference, another segment of the same speaker.

Which ones they are follows from names and a seed.

What a model is given is the reference's text and the target's, then the reference's codes and the target's; it learns
from the target's codes alone. A row that is too long is left aside whole: a cut one would lose the end by which a model
learns to stop.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from colabkit.core.errors import DataError, UsageError
from colabkit.pipelines.dataset.publish.table import Rows

IGNORED = -100  # what torch's cross-entropy leaves out
_TRIES = 16  # references that are looked at when one is too long
_MEDIANS = 4  # times the median speaker's, that one speaker may have


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSettings:
    """Which pairs are made.

    channel: where the reference comes from. most_per_speaker: 0 chooses 4 times the median speaker's.
    most_tokens: of text, codes and frame of a row together.
    """

    most_tokens: int = 2048
    shortest_reference_seconds: float = 1.0
    longest_reference_seconds: float = 12.0
    pairs_per_segment: int = 1
    channel: Literal["any", "same", "other"] = "any"
    most_per_speaker: int = 0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Pairs:
    """target, reference: numbers into the table; num_tokens of each pair.

    Shape: (pair,). left_out: segments by reason.
    """

    target: np.ndarray
    reference: np.ndarray
    num_tokens: np.ndarray
    left_out: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.target)


def choose_pairs(
    rows: Rows,
    settings: PairSettings,
    *,
    text_tokens: np.ndarray,
    overhead_tokens: int,
    choose: Callable[[str, object, str], object] = lambda name, value, reason: value,
) -> Pairs:
    """Return pairs in the order of their targets' names.

    text_tokens: (row,) of each text, -1 where a text cannot be used.
    Raises: UsageError for limits that cannot be; DataError for segments without codes.
    """
    _check(rows, settings)
    found = _Choosing(rows, settings, text_tokens, overhead_tokens)
    groups = found.speakers()
    counts = [len(group) for group in groups if len(group) > 1]
    most = settings.most_per_speaker
    if not most and counts:
        most = max(1, int(_MEDIANS * np.median(counts)))
        if max(counts) > most:
            choose("pairs.most_per_speaker", most, f"{_MEDIANS} times the median speaker's; the most is {max(counts)}")
    for group in groups:
        found.pair(group, most)
    order = np.lexsort((np.asarray(found.numbers, np.int64), found.ranks[np.asarray(found.targets, np.int64)]))
    columns = (np.asarray(values, np.int64)[order] for values in (found.targets, found.references, found.tokens))
    return Pairs(*columns, dict(found.left_out))


def masked_labels(token_ids: Sequence[int], first_code: int, num_reference_codes: int) -> list[int]:
    """Return labels for a row of tokens: ignored up to the codes and over the reference's.

    The codes begin at `first_code`.
    """
    start = first_code + num_reference_codes
    return [IGNORED] * start + list(token_ids[start:])


class _Choosing:
    """Goes through the speakers; keeps what was chosen as plain numbers."""

    def __init__(self, rows: Rows, settings: PairSettings, text_tokens: np.ndarray, overhead_tokens: int):
        table, self.settings, self.overhead = rows.table, settings, overhead_tokens
        self.text_tokens = np.asarray(text_tokens, np.int64)
        self.code_tokens = table["num_frames"].to_numpy().astype(np.int64) * int(rows.codec["num_codebooks"])
        self.seconds = table["seconds"].to_numpy()
        keys = table["key"].to_pylist()
        self.hashes = np.array([_hash(key, settings.seed) for key in keys], np.uint64)
        self.ranks = np.empty(len(keys), np.int64)
        self.ranks[np.argsort(np.array(keys, object), kind="stable")] = np.arange(len(keys))
        self.speaker = table["speaker"].combine_chunks().dictionary_encode()
        self.channel = table["channel"].combine_chunks().dictionary_encode().indices.to_numpy()
        self.left_out: Counter[str] = Counter()
        self.targets: list[int] = []
        self.references: list[int] = []
        self.tokens: list[int] = []
        self.numbers: list[int] = []

    def speakers(self) -> list[np.ndarray]:
        """Return the usable rows of each speaker, in the order of hashes of their names."""
        names, indices = self.speaker.dictionary.to_pylist(), self.speaker.indices.to_numpy()
        usable = np.ones(len(indices), bool)
        for reason, bad in (
            ("no speaker is stated", np.isin(indices, [i for i, name in enumerate(names) if not name])),
            ("no text that can be used", self.text_tokens < 0),
            ("no codes", self.code_tokens <= 0),
        ):
            if count := int((usable & bad).sum()):
                self.left_out[reason] += count
            usable &= ~bad
        chosen = np.flatnonzero(usable)
        chosen = chosen[np.lexsort((self.ranks[chosen], self.hashes[chosen], indices[chosen]))]
        return np.split(chosen, np.flatnonzero(np.diff(indices[chosen])) + 1) if len(chosen) else []

    def pair(self, group: np.ndarray, most: int) -> None:
        """Pair the segments of one speaker, at most `most` of them."""
        if len(group) < 2:
            self.left_out["the only segment of its speaker"] += len(group)
            return
        if len(group) > most > 0:
            self.left_out["its speaker has enough"] += len(group) - most
        seconds = self.seconds[group]
        settings = self.settings
        fits = (seconds >= settings.shortest_reference_seconds) & (seconds <= settings.longest_reference_seconds)
        candidates = group[fits]
        by_channel = {c: candidates[self._of_channel(candidates, c)] for c in np.unique(self.channel[group]).tolist()}
        for target in group[: most or None].tolist():
            self._pair_one(target, by_channel[int(self.channel[target])])

    def _of_channel(self, candidates: np.ndarray, channel: int) -> np.ndarray:
        kind = self.settings.channel
        same = self.channel[candidates] == channel
        return same if kind == "same" else ~same if kind == "other" else np.ones(len(candidates), bool)

    def _pair_one(self, target: int, candidates: np.ndarray) -> None:
        alone = self.overhead + int(self.text_tokens[target] + self.code_tokens[target])
        if alone > self.settings.most_tokens:
            self.left_out[f"longer than {self.settings.most_tokens} tokens by itself"] += 1
            return
        start, number = int(self.hashes[target] % np.uint64(max(1, len(candidates)))), 0
        others = 0
        for step in range(min(len(candidates), _TRIES + self.settings.pairs_per_segment)):
            reference = int(candidates[(start + step) % len(candidates)])
            if reference == target:
                continue
            others += 1
            # one for what joins the texts
            tokens = alone + 1 + int(self.text_tokens[reference] + self.code_tokens[reference])
            if tokens > self.settings.most_tokens:
                continue
            for values, value in (
                (self.targets, target),
                (self.references, reference),
                (self.tokens, tokens),
                (self.numbers, number),
            ):
                values.append(value)
            number += 1
            if number == self.settings.pairs_per_segment:
                return
        if not number:
            self.left_out[
                f"longer than {self.settings.most_tokens} tokens with a reference"
                if others
                else "no reference of its speaker fits"
            ] += 1


def _check(rows: Rows, settings: PairSettings) -> None:
    if (
        not 0 <= settings.shortest_reference_seconds < settings.longest_reference_seconds
        or settings.pairs_per_segment < 1
    ):
        raise UsageError(
            "These pairs cannot be",
            where="pairs",
            expected="shortest below longest, at least one pair a segment",
            got=f"{settings.shortest_reference_seconds} to {settings.longest_reference_seconds} s, "
            f"{settings.pairs_per_segment} pairs",
            fix="correct the settings of pairs",
        )
    if not rows.codec:
        raise DataError(
            "Pairs need codes",
            got="segments without codes",
            expected="an encoded store",
            where="pairs",
            fix="encode first: run the step before",
        )


def _hash(key: str, seed: int) -> int:
    return int.from_bytes(
        hashlib.blake2b(f"{seed}/{key}".encode("utf-8", "surrogateescape"), digest_size=8).digest(), "big"
    )
