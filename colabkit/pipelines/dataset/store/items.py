"""Items to encode: segments as columns, from the listing of a source, its upload manifest and its shard indexes."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from colabkit.core.errors import ChangedError, DataError, UsageError
from colabkit.io.places.place import Place
from colabkit.io.samples.index import FILE_NAME, SampleIndex
from colabkit.io.transfer import manifest
from colabkit.io.transfer.channels import beginning_of
from colabkit.pipelines.dataset.segments.segment import channel_of, key_of

UPLOADED = manifest.NAME
_NO_CRC32 = -1


@dataclass(frozen=True, slots=True)
class Item:
    """One segment: bytes offset..offset + length of an object.

    `crc32` is -1 and `num_samples` 0 where nobody has said.
    """

    key: str
    object: str
    offset: int
    length: int
    is_whole: bool
    version: str
    crc32: int
    num_samples: int
    rate_hz: int
    columns: str  # JSON of what an index knows of it

    @property
    def identity(self) -> str:
        return f"{self.key}\0{self.object}\0{self.offset}\0{self.length}\0{self.version}"


@dataclass(slots=True)
class Items:
    """Segments as columns, all of one length."""

    keys: list[str]
    objects: list[str]
    versions: list[str]
    columns: list[str]
    offset: np.ndarray
    length: np.ndarray
    is_whole: np.ndarray
    crc32: np.ndarray
    num_samples: np.ndarray
    rate_hz: np.ndarray

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, i: int) -> Item:
        return Item(
            self.keys[i],
            self.objects[i],
            int(self.offset[i]),
            int(self.length[i]),
            bool(self.is_whole[i]),
            self.versions[i],
            int(self.crc32[i]),
            int(self.num_samples[i]),
            int(self.rate_hz[i]),
            self.columns[i],
        )

    @property
    def num_bytes(self) -> int:
        return int(self.length.sum())

    @property
    def seconds(self) -> float | None:
        """Return the audio's length, None where it is not known of all."""
        if not len(self) or not self.num_samples.all():
            return None
        return float((self.num_samples / np.maximum(self.rate_hz, 1)).sum())

    def places(self) -> Iterator[tuple[str, int, str]]:
        """Yield what makes each segment another one: object, offset, version."""
        return zip(self.objects, self.offset.tolist(), self.versions, strict=True)

    def take(self, chosen: np.ndarray) -> Items:
        """Return some of them. chosen: numbers in the order wanted, or a mask. Shape: (item,)."""
        chosen = np.arange(len(self))[chosen]
        numbers = chosen.tolist()
        return Items(
            *([values[i] for i in numbers] for values in (self.keys, self.objects, self.versions, self.columns)),
            *(values[chosen] for values in self._arrays()),
        )

    def _arrays(self) -> tuple[np.ndarray, ...]:
        return self.offset, self.length, self.is_whole, self.crc32, self.num_samples, self.rate_hz

    @classmethod
    def join(cls, parts: Sequence[Items]) -> Items:
        """Put several one after another."""
        texts = (
            [value for part in parts for value in getattr(part, name)]
            for name in ("keys", "objects", "versions", "columns")
        )
        arrays = (
            (np.concatenate(column) for column in zip(*(part._arrays() for part in parts), strict=True))
            if parts
            else (np.zeros(0, kind) for kind in (np.int64, np.int64, bool, np.int64, np.int64, np.int32))
        )
        return cls(*texts, *arrays)

    @classmethod
    def whole(
        cls, names: Sequence[str], sizes: Sequence[int], versions: Sequence[str], crc32: np.ndarray | None = None
    ) -> Items:
        """Return the items of objects that are one segment each."""
        number = len(names)
        return cls(
            [key_of(name) for name in names],
            list(names),
            list(versions),
            [""] * number,
            np.zeros(number, np.int64),
            np.asarray(sizes, np.int64),
            np.ones(number, bool),
            np.full(number, _NO_CRC32, np.int64) if crc32 is None else crc32.astype(np.int64),
            np.zeros(number, np.int64),
            np.zeros(number, np.int32),
        )


@dataclass(frozen=True, slots=True)
class Listing:
    """What lies in a source. `mark` is the version of the upload manifest it was read from, "" where it was listed."""

    names: list[str]
    sizes: list[int]
    versions: list[str]
    crc32: np.ndarray | None
    mark: str


def read_source(source: Place, *, listed: bool = False, problem: Callable[[str, str], None]) -> tuple[Items, str]:
    """Return all segments of a source in the order of their names, and the version of its upload manifest.

    One request where the upload has left a manifest, else (or when `listed`) a listing; and one for each index of
    shards.
    Raises: DataError when there is none, or two have one name; ChangedError for an index that does not fit its shards.
    """
    from colabkit.pipelines.dataset.segments.read import is_segment

    listing = _listing(source, listed)
    loose = [i for i, name in enumerate(listing.names) if is_segment(name) and not name.endswith(FILE_NAME)]
    chosen = np.asarray(loose, np.int64)
    parts = [
        Items.whole(
            [listing.names[i] for i in loose],
            [listing.sizes[i] for i in loose],
            [listing.versions[i] for i in loose],
            None if listing.crc32 is None else listing.crc32[chosen],
        )
    ]
    places = {name: i for i, name in enumerate(listing.names)}
    parts += [
        _of_index(source, name, listing, places) for name in listing.names if posixpath.basename(name) == FILE_NAME
    ]
    items = Items.join(parts)
    if not len(items):
        raise DataError(
            "There is nothing to encode",
            got=f"{len(listing.names)} objects",
            where=source.address,
            expected=f"segments (npz or audio files), or shards with their {FILE_NAME}",
            fix="upload segments first, or correct the address",
        )
    if len(set(items.keys)) < len(items):
        items = _without_doubles(items, problem)
    return items, listing.mark


def choose_items(items: Items, channels: Sequence[str], limit: int | None, where: str) -> Items:
    """Return the items of some channels, at most `limit`. Raises: UsageError when no segment is of a channel."""
    if channels:
        named = re.compile(beginning_of(channels))
        of = [_channel(items, i, named) for i in range(len(items))]
        if missing := sorted(set(channels) - set(of)):
            known = {channel_of(name) for name in items.objects[:: max(1, len(items) // 5000)]} | set(of)
            raise UsageError(
                "No segment is of this channel",
                got=", ".join(missing),
                where=where,
                expected="one of " + ", ".join(sorted(known - {""})[:20]),
                fix="correct the list of channels",
            )
        items = items.take(np.asarray([channel in set(channels) for channel in of]))
    return items if limit is None or limit >= len(items) else items.take(np.arange(limit))


def _channel(items: Items, i: int, named: re.Pattern) -> str:
    """Return what the index says is an item's channel, else which of those that are asked for its name says."""
    if items.columns[i] and (told := json.loads(items.columns[i]).get("channel")):
        return told
    match = named.match(items.objects[i] if items.is_whole[i] else items.keys[i])
    return match[1] if match else ""


def _listing(source: Place, listed: bool) -> Listing:
    found = None if listed else manifest.read_manifest(source)
    if found is None:
        objects = list(source.list())
        return Listing([o.name for o in objects], [o.size for o in objects], [o.version for o in objects], None, "")
    order = np.argsort(np.asarray(found.names.to_pylist(), object)) if len(found) else np.zeros(0, np.int64)
    names, versions = found.names.to_pylist(), found.versions.to_pylist()
    numbers = order.tolist()
    return Listing(
        [names[i] for i in numbers],
        found.sizes[order].tolist(),
        [versions[i] for i in numbers],
        found.crc32[order],
        found.version,
    )


def _of_index(source: Place, name: str, listing: Listing, places: dict[str, int]) -> Items:
    """Return the items of the shards that an index describes."""
    folder = posixpath.dirname(name)
    index = SampleIndex.from_bytes(source.get(name), f"{source.address}/{name}")
    objects = [posixpath.join(folder, shard.name) for shard in index.shards]
    for shard, whole in zip(index.shards, objects, strict=True):
        size = listing.sizes[places[whole]] if whole in places else None
        if size != shard.size:
            raise ChangedError(
                "The index of the shards does not fit them",
                where=f"{source.address}/{whole}",
                got="no such object" if size is None else f"{size} bytes",
                expected=f"{shard.size} bytes",
                fix="upload the shards again with their index",
            )
    if index.arrays["codec"].any():
        raise DataError(
            "The index describes compressed samples",
            where=f"{source.address}/{name}",
            expected="tar shards",
            fix="write the shards with colabkit's ShardWriter",
        )
    order = np.lexsort((index.arrays["offset"], index.arrays["shard"]))
    arrays = {key: values[order] for key, values in index.arrays.items()}
    keys, numbers = index.keys.to_list(), order.tolist()
    texts = {column: text.to_list() for column, text in index.columns.items()}
    shards = arrays["shard"].tolist()
    return Items(
        [posixpath.join(folder, keys[i]) for i in numbers],
        [objects[s] for s in shards],
        [listing.versions[places[objects[s]]] for s in shards],
        [json.dumps({c: t[i] for c, t in texts.items() if t[i]}, ensure_ascii=False, sort_keys=True) for i in numbers],
        arrays["offset"].astype(np.int64),
        arrays["length"].astype(np.int64),
        np.zeros(len(keys), bool),
        arrays["crc32"].astype(np.int64),
        arrays["frames"].astype(np.int64),
        arrays["rate_hz"].astype(np.int32),
    )


def _without_doubles(items: Items, problem: Callable[[str, str], None]) -> Items:
    seen: set[str] = set()
    kept = np.ones(len(items), bool)
    for i, key in enumerate(items.keys):
        kept[i] = key not in seen
        seen.add(key)
        if not kept[i]:
            problem(f"{items.objects[i]} ({key})", "another segment has this name already; this one is left out")
    return items.take(kept)
