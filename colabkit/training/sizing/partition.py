"""The samples of a step to parts that fit, cut where another part costs less than the padding it saves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

RATIO = 1.12  # the lengths of a bucket differ by that much
_SHORTEST_SECONDS = 1e-3


def bucket_of(seconds: float) -> int:
    """Return the number of the bucket of a length: the first whose `edge_seconds` is not below it."""
    return math.ceil(math.log(max(seconds, _SHORTEST_SECONDS)) / math.log(RATIO) - 1e-9)


def edge_seconds(bucket: int) -> float:
    """Return the longest length of a bucket."""
    return RATIO**bucket


def cut(seconds: Sequence[float], limit: Callable[[float], int], pass_seconds: float = math.inf) -> list[list[int]]:
    """Return the numbers of the samples by part, longest first; limit(longest of the part) says how many may be in one.

    A part takes the time of its padded seconds and of `pass_seconds` more, whatever is in it: returned is what takes
    least in all. Without `pass_seconds`, the fewest parts, and of those the ones that pad least. Samples of one length
    are dealt out evenly, in their order.
    """
    if not len(seconds):
        return []
    order = sorted(range(len(seconds)), key=lambda i: -seconds[i])  # stable: equal lengths keep their order
    longest = np.array([seconds[i] for i in order], dtype=float)
    if longest[0] == longest[-1]:
        return [part.tolist() for part in np.array_split(order, -(-len(order) // max(1, limit(float(longest[0])))))]
    one_part = min(pass_seconds, longest.sum() + longest[0] * len(order) + 1.0)  # more than any padding can save
    cost, size = np.zeros(len(order) + 1), np.zeros(len(order), dtype=int)
    for first in range(len(order) - 1, -1, -1):
        most = min(max(1, limit(float(longest[first]))), len(order) - first)
        costs = one_part + longest[first] * np.arange(1, most + 1) + cost[first + 1 : first + most + 1]
        size[first] = 1 + int(costs.argmin())
        cost[first] = costs[size[first] - 1]
    parts, first = [], 0
    while first < len(order):
        parts.append(order[first : first + size[first]])
        first += size[first]
    return parts


def tally(
    steps: Iterable[Sequence[float]], limit: Callable[[float], int], pass_seconds: float = math.inf
) -> tuple[int, float, float]:
    """Return (parts, seconds that go through the network, seconds of these that are padding), over steps of samples.

    `steps`: the lengths of each one's samples in seconds.
    """
    num_parts, padded, heard = 0, 0.0, 0.0
    for seconds in steps:
        for part in cut(seconds, limit, pass_seconds):
            num_parts += 1
            padded += len(part) * max(seconds[i] for i in part)
            heard += sum(seconds[i] for i in part)
    return num_parts, padded, padded - heard
