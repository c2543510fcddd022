"""The layout of a dataset: which segments make which shard of which split, by the segments and the settings alone.

A segment's split follows from a hash of its speaker, so data that is added moves nobody. Rows stand in the order of the
objects they lie in, so each is read once from one end to the other; data added behind leaves the full shards before as
they are. A shard's name holds a hash of all that its bytes follow from: one that is there under its name is the one
that is wanted.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np

from colabkit.core.errors import DataError, UsageError
from colabkit.pipelines.dataset.encode.pieces import cut
from colabkit.pipelines.dataset.publish.table import Rows

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 1
FOLDER = "data"
_HEADER_BYTES = 8192  # of an audio file, at most
_SPLIT = re.compile(r"\W+")
SHARD_NAME = re.compile(rf"{FOLDER}/[0-9a-f]{{8}}/\w+-\d{{5}}-of-\d{{5}}-(?P<id>[0-9a-f]{{16}})\.parquet")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishSettings:
    """What the shards' bytes follow from, besides the segments.

    split_by "speaker": shares of the speakers by hash; "channel": a split for each channel; "none": all is train.
    shard_bytes: of a shard before compression, 16 bit samples counted. audio_format "flac": what is not FLAC becomes
    it; "as_is": audio files as they lie there; an npz is no audio file and becomes FLAC.
    """

    split_by: Literal["speaker", "channel", "none"] = "speaker"
    test_fraction: float = 0.05
    validation_fraction: float = 0.0
    seed: int = 0
    shard_bytes: int = 500_000_000
    with_audio: bool = True
    with_codes: bool = True
    audio_format: Literal["flac", "as_is"] = "flac"
    channels: tuple[str, ...] = ()
    limit: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ShardPlan:
    """One shard. rows: numbers into the table, (row,) int64. `most_bytes` bounds the file."""

    name: str
    id: str
    split: str
    number: int
    rows: np.ndarray
    most_bytes: int


@dataclass(frozen=True, slots=True)
class DatasetPlan:
    """All shards in the order they are made; `folder` holds them in the repository and names the plan."""

    shards: tuple[ShardPlan, ...]
    folder: str
    rate_hz: int | None  # None: segments differ
    num_codebooks: int  # 0: without codes
    num_doubles: int

    @property
    def num_rows(self) -> int:
        return sum(len(shard.rows) for shard in self.shards)

    def splits(self, count: Callable[[ShardPlan], int] = lambda shard: len(shard.rows)) -> dict[str, int]:
        """Return how many segments each split holds; `count` tells of a shard how many are in it."""
        names = dict.fromkeys(shard.split for shard in self.shards)
        return {name: sum(count(shard) for shard in self.shards if shard.split == name) for name in names}


def make_plan(
    rows: Rows,
    settings: PublishSettings,
    *,
    choose: Callable[[str, object, str], object] = lambda name, value, reason: value,
) -> DatasetPlan:
    """Return the shards to publish. Raises: UsageError for settings that cannot be, DataError when nothing is left."""
    _check(settings)
    table = rows.table
    order, num_doubles = _order(rows, settings)
    splits = _splits(table, order, settings, choose)
    num_codebooks = int(rows.codec["num_codebooks"]) if rows.codec and settings.with_codes else 0
    sizes = _sizes(table, settings, num_codebooks)
    rates = np.unique(table["rate_hz"].to_numpy()[order])
    rate_hz = int(rates[0]) if len(rates) == 1 and rates[0] > 0 else None
    about = json.dumps(
        [
            FORMAT,
            settings.with_audio,
            settings.audio_format,
            num_codebooks,
            rate_hz,
            rows.codec.get("fingerprint", "") if num_codebooks else "",
        ]
    )
    parts: list[tuple[str, int, int, np.ndarray, str]] = []
    for split in sorted(set(splits.tolist()), key=_split_order):
        chosen = order[splits == split]
        cuts = cut(sizes[chosen], settings.shard_bytes)
        for number, (start, stop) in enumerate(pairwise((0, *cuts))):
            part = chosen[start:stop]
            parts.append((split, number, len(cuts), part, _identity(rows, part, about, num_codebooks)))
    folder = f"{FOLDER}/{hashlib.sha256(json.dumps([[p[0], p[4]] for p in parts]).encode()).hexdigest()[:8]}"
    shards = tuple(
        ShardPlan(
            f"{folder}/{split}-{number:05d}-of-{count:05d}-{identity}.parquet",
            identity,
            split,
            number,
            part,
            int(sizes[part].sum() * 1.02) + (1 << 20),
        )
        for split, number, count, part, identity in parts
    )
    return DatasetPlan(shards, folder, rate_hz, num_codebooks, num_doubles)


def share(name: str, seed: int) -> float:
    """Return the place in [0, 1) that a name has for ever."""
    return (
        int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode("utf-8", "surrogateescape")).digest()[:8], "big") / 2**64
    )


def _check(settings: PublishSettings) -> None:
    held_out = settings.test_fraction + settings.validation_fraction
    if settings.test_fraction < 0 or settings.validation_fraction < 0 or held_out >= 1:
        raise UsageError(
            "These splits cannot be",
            expected="shares from 0 that leave some for train",
            where="publish",
            got=f"test {settings.test_fraction}, validation {settings.validation_fraction}",
            fix="for example publish.test_fraction=0.05",
        )
    if settings.shard_bytes < 1:
        raise UsageError(
            "Shards cannot be so small",
            got=settings.shard_bytes,
            expected="some megabytes",
            where="publish",
            fix="for example publish.shard_mb=500",
        )
    if not (settings.with_audio or settings.with_codes):
        raise UsageError(
            "Neither audio nor codes are to be published",
            where="publish",
            expected="one of them, or both",
            fix="publish with audio, with codes, or both",
        )


def _order(rows: Rows, settings: PublishSettings) -> tuple[np.ndarray, int]:
    """Return the rows that are wanted, in the order they lie in; of those with one key the first."""
    import pyarrow.compute as pc

    table = rows.table
    order = pc.sort_indices(
        table, sort_keys=[("object", "ascending"), ("offset", "ascending"), ("key", "ascending")]
    ).to_numpy()
    order = order.astype(np.int64)
    codes = table["key"].combine_chunks().take(order).dictionary_encode().indices.to_numpy()
    first = np.zeros(len(order), bool)
    first[np.unique(codes, return_index=True)[1]] = True
    order, num_doubles = order[first], int((~first).sum())
    if settings.channels:
        known = table["channel"].combine_chunks().dictionary_encode()
        names = known.dictionary.to_pylist()
        if missing := sorted(set(settings.channels) - set(names)):
            raise UsageError(
                "No segment is of this channel",
                got=", ".join(missing),
                where="publish.channels",
                expected="one of " + ", ".join(sorted(names)[:20]),
                fix="correct the list of channels",
            )
        wanted = np.array([name in settings.channels for name in names])
        order = order[wanted[known.indices.to_numpy()][order]]
    order = order[: settings.limit]
    if not len(order):
        raise DataError(
            "There is nothing to publish",
            got=f"{len(rows)} segments, none of them wanted",
            where="publish",
            expected="at least one",
            fix="change publish.channels or publish.limit, or encode some segments first",
        )
    return order, num_doubles


def _splits(table: pa.Table, order: np.ndarray, settings: PublishSettings, choose: Callable) -> np.ndarray:
    """Return the split of each row. Shape: (row,) str."""
    test, validation = settings.test_fraction, settings.test_fraction + settings.validation_fraction
    if settings.split_by == "none" or settings.split_by == "speaker" and not validation:
        return np.full(len(order), "train", object)
    column = table[settings.split_by].combine_chunks().take(order).dictionary_encode()
    names, indices = column.dictionary.to_pylist(), column.indices.to_numpy()
    if settings.split_by == "channel":
        return np.array(_split_names(names), object)[indices]

    def place(name: str) -> str:
        found = share(name, settings.seed)
        return "test" if found < test else "validation" if found < validation else "train"

    splits = np.array([place(f"speaker/{name}") for name in names], object)[indices]
    if "" in names:
        unknown = indices == names.index("")
        if not table["num_samples"].to_numpy()[order].any():
            raise UsageError(
                "The speakers of loose files are not known before the files are read",
                got="split_by=speaker",
                where="publish.split_by",
                expected="codes, or shards with their index",
                fix="encode first, or set publish.split_by=none",
            )
        choose(
            "publish.split_by", "key", f"{int(unknown.sum())} segments do not say their speaker: their own names decide"
        )
        keys = table["key"].combine_chunks().take(order[unknown]).to_pylist()
        splits[unknown] = [place(f"key/{key}") for key in keys]
    there = sorted(set(splits.tolist()), key=_split_order)
    wanted = ["train", *(["validation"] if settings.validation_fraction else []), *(["test"] if test else [])]
    if missing := [split for split in wanted if split not in there]:
        choose(
            "publish.splits",
            ", ".join(there),
            f"of {len(names)} speakers the hash of none falls into {', '.join(missing)}",
        )
    return splits


def _split_names(channels: list[str]) -> list[str]:
    """Return a name of a split for each channel: letters, digits and "_", all different."""
    names = [_SPLIT.sub("_", channel).strip("_") or "unknown" for channel in channels]
    return [
        name if names.count(name) == 1 else f"{name}_{hashlib.sha256(channel.encode()).hexdigest()[:6]}"
        for name, channel in zip(names, channels, strict=True)
    ]


def _split_order(split: str) -> tuple[int, str]:
    usual = ("train", "validation", "test")
    return (usual.index(split) if split in usual else len(usual), split)


def _sizes(table: pa.Table, settings: PublishSettings, num_codebooks: int) -> np.ndarray:
    """Return a bound of the bytes that each row takes before compression. Shape: (row,) int64."""
    import pyarrow.compute as pc

    samples, length = table["num_samples"].to_numpy(), table["length"].to_numpy()
    sizes = np.full(len(samples), 256, np.int64)
    if settings.with_audio:
        known = length if settings.audio_format == "as_is" else np.where(samples > 0, 2 * samples, length)
        sizes += np.where(known > 0, known, 4 * samples) + _HEADER_BYTES
    if num_codebooks:
        sizes += 2 * num_codebooks * table["num_frames"].to_numpy()
    for name in ("text", "metadata", "key", "speaker", "channel"):
        sizes += pc.binary_length(table[name]).to_numpy()
    return sizes


def _identity(rows: Rows, part: np.ndarray, about: str, num_codebooks: int) -> str:
    """Return a hash of all that a shard's bytes follow from; a checksum counts before the version of what it is of."""
    taken = rows.take(part)
    digest = hashlib.sha256(about.encode())
    crc32 = taken["crc32"].to_numpy()
    for name in ("key", "speaker", "channel", "text", "metadata", "object", "version"):
        values = taken[name].to_pylist()
        if name == "version":
            values = ["" if sum_ >= 0 else value for value, sum_ in zip(values, crc32.tolist(), strict=True)]
        digest.update(json.dumps(values).encode())
    for name in ("offset", "length", "crc32", "num_samples", "rate_hz"):
        digest.update(np.ascontiguousarray(taken[name].to_numpy(), np.int64).tobytes())
    if num_codebooks:
        codes = taken["codes"].combine_chunks()
        digest.update(np.ascontiguousarray(taken["num_frames"].to_numpy(), np.int64).tobytes())
        digest.update(np.ascontiguousarray(codes.flatten().to_numpy(zero_copy_only=False)).tobytes())
    return digest.hexdigest()[:16]
