"""The quota of disk: chosen from what is free, and checked against what the work needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from colabkit.core.disk import in_units
from colabkit.core.errors import UsageError
from colabkit.pipelines.dataset.codecs.codec import Codec
from colabkit.pipelines.dataset.encode.credits import quota_setting
from colabkit.pipelines.dataset.encode.pieces import Piece
from colabkit.pipelines.dataset.encode.spool import Spool
from colabkit.pipelines.dataset.store.items import Items

_SHARE_OF_FREE = 0.7  # others write, too
_MOST_BYTES = 24 << 30  # more in flight makes nothing faster
_JOURNAL_BYTES = 1 << 20  # an empty journal and its log
_SLACK = 1.25  # of pages that are not full, and of the log beside the database
_ROW_BYTES = 900  # a row of the journal beside its codes
_LEAST_BYTES_PER_SECOND = 16_000  # of audio as it is stored: then an item's codes are at most so and so many


@dataclass(frozen=True, slots=True)
class Quota:
    """`total` bytes of disk at most: `journal` of them for the journal, `segments` for what is fetched ahead."""

    total: int
    journal: int

    @property
    def segments(self) -> int:
        return self.total - self.journal


def choose_quota(
    spool: Spool,
    items: Items,
    pieces: list[Piece],
    codec: Codec,
    *,
    where: Path,
    quota_bytes: int | None,
    used_bytes: int,
    choose: Callable[[str, Any, str], Any],
) -> Quota:
    """Return what the flow may use of where the spool is (`where` on the disk), where it uses `used_bytes` already.

    Raises: UsageError when less is given or free than the work needs, with how much that is.
    """
    free, scratch = spool.free() + used_bytes, f"the disk of {spool.folder}"
    lengths = items.length
    # Of the journal to the segments.
    ratio = _SLACK * (
        _ROW_BYTES / max(1.0, float(lengths.mean()))
        + (2 * codec.num_codebooks * codec.frame_rate_hz / _LEAST_BYTES_PER_SECOND)
    )
    largest_piece = max((int(lengths[p.start : p.stop].sum()) for p in pieces), default=0)
    fixed = _JOURNAL_BYTES + int(2 * largest_piece * ratio)
    typical = spool.cost(int(np.percentile(lengths, 90))) if len(lengths) else 0
    least = int((fixed + 2 * typical) * (1 + ratio)) + 4096
    if quota_bytes is None:
        wanted = int(min(_SHARE_OF_FREE * free, _MOST_BYTES, (fixed + 1.1 * float(lengths.sum())) * (1 + ratio)))
        quota_bytes = max(wanted, min(least, free))
        reason = f"{in_units(free)} are free in {scratch}, {in_units(items.num_bytes)} are to pass through" + (
            f"; {in_units(_MOST_BYTES)} are enough" if quota_bytes == _MOST_BYTES else ""
        )
        quota_bytes = int(choose("quota_bytes", quota_bytes, reason))
    elif quota_bytes > free:
        quota_bytes = int(
            choose(
                "quota_bytes",
                int(0.95 * free),
                f"{in_units(quota_bytes)} were given, but no more than {in_units(free)} are free in {scratch}",
            )
        )
    if quota_bytes < least:
        raise UsageError(
            "The disk quota can hold nothing useful",
            got=in_units(quota_bytes),
            where=where,
            expected=f"at least {least} bytes ({in_units(least)}): two segments, and the journal of two pieces of "
            f"{in_units(largest_piece)}",
            fix=f"{quota_setting(least)} or more; smaller pieces (encode.piece_mib) need less",
        )
    journal = fixed + int(ratio * (quota_bytes - fixed) / (1 + ratio))
    return Quota(quota_bytes, journal)
