"""The names that are wanted: by pattern, by channel, by number.

A name is of a channel when its first folder is called so, or when its file name begins with the channel's name and a
separator: "__" where the rest of the name has that, else "_", else "-", "." or a space. Both "Atheer/000001.npz" and
"Atheer_000001.npz" are of Atheer, and "Radio-1_0001.npz" is of Radio-1, not of Radio. Whoever keeps the channel
elsewhere, such as in the metadata of each file, gives `channel_of`, which is asked for each name.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from colabkit.core.errors import UsageError


def wanted_places(
    names: Any,
    *,
    pattern: str = "*",
    channels: Sequence[str] = (),
    limit: int | None = None,
    channel_of: Callable[[str], str] | None = None,
) -> np.ndarray:
    """Return where the wanted names stand in an Arrow array, sorted by name where `limit` takes the first ones alone.

    The pattern is that of a shell, for the whole name. Raises: UsageError when one of the channels has no file.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if limit is not None and limit < 0:
        raise UsageError(
            "The limit is negative", got=limit, expected="a number of files", fix="leave it out for all of them"
        )
    keep = pc.invert(pc.equal(names, "UPLOADED.parquet"))
    if re.fullmatch(r"\*\.?[\w.]+", pattern):
        keep = pc.and_(keep, pc.ends_with(names, pattern[1:]))
    elif pattern not in ("*", "**", "**/*"):
        fits = re.compile(fnmatch.translate(pattern)).match
        keep = pc.and_(keep, pa.array([fits(name) is not None for name in names.to_pylist()], pa.bool_()))
    places = np.flatnonzero(keep.to_numpy(zero_copy_only=False)) if len(names) else np.empty(0, np.int64)
    if channels:
        kept = names.take(places)
        of = np.array([channel_of(name) for name in kept.to_pylist()], object) if channel_of is not None else None
        fits_channel, missing = np.zeros(len(kept), bool), []
        for channel in channels:
            found = (
                pc.match_substring_regex(kept, beginning_of([channel])).to_numpy(zero_copy_only=False)
                if of is None
                else of == channel
            )
            fits_channel |= found
            missing += [] if found.any() else [channel]
        if missing:
            raise UsageError(
                "No file is of this channel" if len(missing) == 1 else "No file is of these channels",
                got=", ".join(missing),
                expected=_known(kept),
                fix="correct the channels: they are the names of the first folders, or how file names begin",
            )
        places = places[fits_channel]
    if limit is not None and limit < len(places):
        order = np.argsort(np.array(names.take(places).to_pylist(), object))[:limit] if limit else np.empty(0, np.int64)
        places = places[order]
    return places


def beginning_of(channels: Sequence[str]) -> str:
    """Return the regular expression of names that are of one of the channels, which is its first group."""
    any_of = "|".join(map(re.escape, sorted(channels, key=len, reverse=True)))
    without_double = "[^_/](?:_?[^_/])*_?"  # "__" would be the separator
    return rf"^_*({any_of})(?:/|__[^/]*$|_(?:{without_double})?$|(?:[. -][^_/]*)?$)"


def _known(names: Any) -> str:
    first = {re.split(r"[/_. -]", name, maxsplit=1)[0] for name in names.slice(0, 5000).to_pylist()}
    return "one of " + ", ".join(sorted(first)[:10]) if first else "a folder with files in it"
