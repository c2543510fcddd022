"""Names of segments, and what they alone say: the key, and the channel."""

from __future__ import annotations

import posixpath
import re

_NUMBER_AT_END = re.compile(r"\d+")


def key_of(name: str) -> str:
    """Return a name without its suffix: two files of one stem are one segment."""
    return posixpath.splitext(name)[0]


def key_of_whole(name: str, suffixes: tuple[str, ...]) -> str:
    """Return a name without its suffix where that is one of these; a key of a shard may hold dots and has none."""
    return key_of(name) if name.lower().endswith(suffixes) else name


def channel_of(name: str) -> str:
    """Return the channel that a file's name says: its first folder, else what stands before the first "__" or "_".

    A name that has neither says none: "".

        channel_of("Atheer/2024/0001.npz") == "Atheer"
        channel_of("Thmanyah__0001.npz") == "Thmanyah"
        channel_of("ZadTVchannel_0001.npz") == "ZadTVchannel"
    """
    folder, slash, _ = name.lstrip("/").partition("/")
    if slash:
        return folder
    stem = key_of(folder)
    separator = "__" if "__" in stem.lstrip("_") else "_"
    channel, found, _ = stem.lstrip("_").partition(separator)
    return channel if found and not _NUMBER_AT_END.fullmatch(channel) else ""
