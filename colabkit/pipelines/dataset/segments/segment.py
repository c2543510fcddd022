"""Segment: a few seconds of one voice, what is known of it, and what its name alone says: the key, and the channel."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

_NUMBER_AT_END = re.compile(r"\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A few seconds of one voice.

    key: its name, unique in a dataset. wave: (sample,) float32 in [-1, 1]. codes: (codebook, frame) uint16 or None.
    metadata: everything else that is known, as text.
    """

    key: str
    wave: np.ndarray
    rate_hz: int
    speaker: str = ""
    channel: str = ""
    text: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    codes: np.ndarray | None = None

    @property
    def seconds(self) -> float:
        return len(self.wave) / self.rate_hz


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
