"""Estimate a sum over many files from a stratified sample of them, and say how sure it is.

Source: W. G. Cochran, Sampling Techniques, 3rd ed. 1977: separate ratio estimator (6.10), proportional allocation
(5.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_SIZE_CLASSES = 6  # of each channel: files of about one size hold about as much
_AT_LEAST = 3  # files of a stratum
_Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Estimate:
    """A total, half of its 95 % interval (0 when nothing was left to chance), and the totals of the groups."""

    total: float
    margin: float
    by_group: dict[str, float]


def choose_sample(groups: Sequence[str], sizes: np.ndarray, wanted: int, seed: int = 0) -> np.ndarray:
    """Return the numbers of `wanted` files or a few more, of every group and size; all where there are no more.

    Sorted.
    """
    if wanted >= len(sizes):
        return np.arange(len(sizes))
    draw = np.random.default_rng(seed)
    chosen = []
    for members in _strata(groups, sizes):
        share = min(len(members), max(_AT_LEAST, round(wanted * len(members) / len(sizes))))
        chosen.append(draw.choice(members, share, replace=False))
    return np.sort(np.concatenate(chosen))


def estimate_total(
    groups: Sequence[str], sizes: np.ndarray, chosen: np.ndarray, values: Sequence[float | None]
) -> Estimate | None:
    """Return the total of all files' values from those of the chosen ones, by their ratio to the sizes in each stratum.

    None when a chosen one's value is not known.
    """
    if any(value is None for value in values):
        return None
    known = np.full(len(sizes), np.nan)
    known[chosen] = values
    by_group: dict[str, float] = {}
    variance = 0.0
    for members in _strata(groups, sizes):
        inside, total = members[~np.isnan(known[members])], float(known[members].sum())
        if len(inside) < len(members):
            inside = inside if len(inside) else chosen  # a stratum nobody looked at is taken for like the others
            ratio = known[inside].sum() / max(sizes[inside].sum(), 1)
            total = float(ratio * sizes[members].sum())
            rest = known[inside] - ratio * sizes[inside]
            spread = float(np.square(rest).sum()) / max(len(inside) - 1, 1)
            variance += len(members) ** 2 * max(0.0, 1 - len(inside) / len(members)) * spread / len(inside)
        by_group[groups[members[0]]] = by_group.get(groups[members[0]], 0.0) + total
    return Estimate(sum(by_group.values()), _Z95 * variance**0.5, by_group)


def _strata(groups: Sequence[str], sizes: np.ndarray) -> list[np.ndarray]:
    """Return the numbers of the files in each class of size of each group."""
    names = np.asarray(groups, dtype=str)
    found = []
    for group in np.unique(names):
        members = np.flatnonzero(names == group)
        ordered = members[np.argsort(sizes[members], kind="stable")]
        found += [
            part for part in np.array_split(ordered, min(_SIZE_CLASSES, max(1, len(ordered) // _AT_LEAST))) if len(part)
        ]
    return found
