"""Which names are wanted: by pattern, by channel, by number.

A name is of a channel when its first folder is called so, or when its file name begins with the channel's name and one of
"_", "-", "." or a space: both "Atheer/000001.npz" and "Atheer_000001.npz" are of Atheer. Whoever keeps the channel elsewhere,
such as in the metadata of each file, gives `channel_of`, which is asked for each name.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from colabkit.core.errors import UsageError


def wanted_places(names: Any, *, pattern: str = "*", channels: Sequence[str] = (), limit: int | None = None,
                  channel_of: Callable[[str], str] | None = None) -> np.ndarray:
    """Return where the wanted names stand in an Arrow array, sorted by name where `limit` takes the first ones alone.

    The pattern is that of a shell, for the whole name. Raises: UsageError when channels are given and none has a file.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    if limit is not None and limit < 0:
        raise UsageError("The limit is negative", got=limit, expected="a number of files", fix="leave it out for all of them")
    keep = pc.invert(pc.equal(names, "UPLOADED.parquet"))
    if re.fullmatch(r"\*\.?[\w.]+", pattern):
        keep = pc.and_(keep, pc.ends_with(names, pattern[1:]))
    elif pattern not in ("*", "**", "**/*"):
        fits = re.compile(fnmatch.translate(pattern)).match
        keep = pc.and_(keep, pa.array([fits(name) is not None for name in names.to_pylist()], pa.bool_()))
    places = np.flatnonzero(keep.to_numpy(zero_copy_only=False)) if len(names) else np.empty(0, np.int64)
    if channels:
        kept = names.take(places)
        if channel_of is not None:
            fits_channel = np.array([channel_of(name) in channels for name in kept.to_pylist()], bool)
        else:
            any_of = "|".join(map(re.escape, channels))
            found = pc.match_substring_regex(kept, rf"^(?:{any_of})(?:/|(?:[_. -][^/]*)?$)")
            fits_channel = found.to_numpy(zero_copy_only=False) if len(kept) else np.empty(0, bool)
        if not fits_channel.any():
            raise UsageError("No file is of these channels", got=list(channels), expected=_known(kept),
                             fix="correct the channels: they are the names of the first folders, or how file names begin")
        places = places[fits_channel]
    if limit is not None and limit < len(places):
        order = np.argsort(np.array(names.take(places).to_pylist(), object))[:limit] if limit else np.empty(0, np.int64)
        places = places[order]
    return places


def _known(names: Any) -> str:
    first = {re.split(r"[/_. -]", name, maxsplit=1)[0] for name in names.slice(0, 5000).to_pylist()}
    return "one of " + ", ".join(sorted(first)[:10]) if first else "a folder with files in it"
