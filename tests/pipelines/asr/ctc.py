"""CTC's mapping from frames to tokens, written down by itself: what decoders are judged by."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby


def collapse(frames: Iterable[int], blank: int = 0) -> list[int]:
    """Return the tokens that a path through the frames stands for: repetitions are one, then blanks go.

    Source: Graves et al. 2006, Connectionist Temporal Classification, the mapping B.
    """
    return [int(token) for token, _ in groupby(int(i) for i in frames) if token != blank]
