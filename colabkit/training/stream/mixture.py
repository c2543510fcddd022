"""Several sources mixed by weight: pick n is a pure function of (seed, n), and every source has its own epochs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from colabkit.core.config import digest
from colabkit.core.errors import UsageError
from colabkit.core.permutation import uniform

_LEAST_BLOCK = 64
_LARGEST_BLOCK = 1 << 16

Schedule = Sequence[tuple[int, Sequence[float]]]  # from pick number on: weights of the sources


class Mixture:
    """Says of pick n which source it comes from, and how many picks of that source came before.

    `schedule` holds (first pick, weights) in order, the first at 0: a curriculum is a schedule of more than one line.
    Picks come in blocks, at whose ends every source has its share to within one pick. Inside a block a source's picks
    are spread evenly, each at a random place of its stretch: so the shares of two sources are exact to two picks at any
    time, those of more sources to a few. A weight of zero rests a source.
    """

    def __init__(self, num_sources: int, schedule: Schedule, *, seed: int):
        _require_schedule(num_sources, schedule)
        self.num_sources, self.seed = num_sources, seed
        self.schedule = [(int(first), tuple(float(w) for w in weights)) for first, weights in schedule]
        self._phases: list[_Phase] = []
        counts = np.zeros(num_sources, np.int64)
        for number, (first, weights) in enumerate(self.schedule):
            if self._phases:
                counts = counts + self._phases[-1].counts(first - self._phases[-1].first)
            self._phases.append(_Phase(first, np.array(weights), counts, (seed, number)))

    def pick(self, n: int) -> tuple[int, int]:
        """Return (source, ordinal within that source) of pick n."""
        phase = next(p for p in reversed(self._phases) if p.first <= n)
        return phase.pick(n - phase.first)

    def counts(self, n: int) -> np.ndarray:
        """Return how many of the first n picks come from each source. Shape: (source,) int64."""
        phase = next(p for p in reversed(self._phases) if p.first <= n)
        return phase.before + phase.counts(n - phase.first)

    def identity(self) -> str:
        return digest(["mixture", self.num_sources, self.schedule, self.seed])


class _Phase:
    """Picks with fixed weights."""

    def __init__(self, first: int, weights: np.ndarray, before: np.ndarray, key: tuple[int, int]):
        self.first, self.before, self.key = first, before, key
        shares = weights / weights.sum()
        # Below two picks a block, rounding could make a source's count go down from one block to the next.
        self.block = int(min(max(_LEAST_BLOCK, np.ceil(4 / shares[shares > 0].min())), _LARGEST_BLOCK))
        # Parts of a block in fixed point, so that counts at any block are exact integers.
        self.bounds = [int(bound) for bound in np.round(np.cumsum(shares) * 2**32)]
        self.bounds[-1] = 2**32
        self._shown: tuple[int, np.ndarray] | None = None

    def _counts_at(self, block_number: int) -> np.ndarray:
        total = block_number * self.block
        sums = np.array([total * bound >> 32 for bound in self.bounds], np.int64)
        return np.diff(sums, prepend=0)

    def _sources(self, block_number: int) -> np.ndarray:
        shown = self._shown
        if shown is None or shown[0] != block_number:
            num_each = self._counts_at(block_number + 1) - self._counts_at(block_number)
            in_order = np.repeat(np.arange(len(num_each)), num_each)
            ordinals = np.concatenate([np.arange(num) for num in num_each])
            times = (ordinals + uniform(np.arange(self.block), *self.key, block_number)) / num_each[in_order]
            shown = block_number, in_order[np.argsort(times, kind="stable")]
            self._shown = shown  # a pair is replaced whole: threads see one or the other
        return shown[1]

    def counts(self, n: int) -> np.ndarray:
        number, rest = divmod(n, self.block)
        return self._counts_at(number) + np.bincount(self._sources(number)[:rest], minlength=len(self.before))

    def pick(self, n: int) -> tuple[int, int]:
        number, place = divmod(n, self.block)
        sources = self._sources(number)
        source = int(sources[place])
        ordinal = self.before[source] + self._counts_at(number)[source] + np.count_nonzero(sources[:place] == source)
        return source, int(ordinal)


def _require_schedule(num_sources: int, schedule: Schedule) -> None:
    starts = [first for first, _ in schedule]
    if not starts or starts[0] != 0 or starts != sorted(set(starts)):
        raise UsageError(
            "Cannot mix sources",
            got=f"weights that start at {starts}",
            expected="the first at 0, the others later and in order",
            fix="correct the schedule",
        )
    for first, weights in schedule:
        weights = np.asarray(weights, float)
        if weights.shape != (num_sources,) or not np.isfinite(weights).all() or weights.min() < 0 or not weights.sum():
            raise UsageError(
                "Cannot mix sources",
                got=f"weights {weights.tolist()} from {first} on",
                expected=f"{num_sources} weights, none negative, not all zero",
                fix="give one weight a source",
            )
        shares = weights[weights > 0] / weights.sum()
        if shares.min() * _LARGEST_BLOCK < 4:
            raise UsageError(
                "A weight is too small beside the others",
                got=weights.tolist(),
                expected=f"shares of at least {4 / _LARGEST_BLOCK:.1e}",
                fix="raise it, or set it to 0",
            )
