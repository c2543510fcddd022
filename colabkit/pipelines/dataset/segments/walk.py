"""Go through all segments of a place in order: loose files, or shards by their index, a few megabytes at a time."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from colabkit.core.errors import DataError
from colabkit.core.prefetch import prefetch
from colabkit.io.places.place import Place
from colabkit.io.samples.index import FILE_NAME, SampleIndex
from colabkit.pipelines.dataset.segments.read import describe, is_segment, read_segment
from colabkit.pipelines.dataset.segments.segment import Segment

_GROUP_BYTES = 8 << 20  # of a shard, read at once
_SUFFIXES = {b"fLaC": ".flac", b"RIFF": ".wav", b"OggS": ".ogg", b"PK\x03\x04": ".npz"}


def segment_rows(
    place: Place | str | os.PathLike,
    *,
    default_rate_hz: int | None = None,
    workers: int = 2,
    problem: Callable[[str, str], None] | None = None,
) -> Iterator[Segment]:
    """Yield every segment below a place in the order of its names, or of its index where there is one.

    Segments that cannot be read are told to `problem(name, reason)` and left out; without it the first one raises.
    Raises: DataError for a place without segments, and for shards without an index.
    """
    objects = opened(place)
    index, sizes = look(objects)
    pieces = _groups(index) if index is not None else list(sizes)
    reader = _Reader(objects, index, pieces, default_rate_hz)
    with closing(prefetch(reader, 0, len(pieces), workers=workers)) as made:
        for found in made:
            for segment, name, fault in found:
                if fault is None:
                    yield segment
                elif problem is None:
                    raise fault
                else:
                    problem(name, str(fault))


def opened(place: Place | str | os.PathLike) -> Place:
    """Return objects as they are, an address opened."""
    if isinstance(place, (str, Path)):
        from colabkit.io.places import open_place

        return open_place(os.fspath(place))
    return place  # type: ignore[return-value]


def look(objects: Place) -> tuple[SampleIndex | None, dict[str, int]]:
    """Return the index of a place's shards, or where there is none the names and sizes of its loose segments, sorted.

    Raises: DataError for a place with neither, and for shards whose index is not there or speaks of other ones.
    """
    sizes = {found.name: found.size for found in objects.list()}
    shards = [name for name in sizes if name.lower().endswith(".tar")]
    if FILE_NAME in sizes:
        index = SampleIndex.from_bytes(objects.get(FILE_NAME), f"{FILE_NAME} of {objects.address}")
        for shard in index.shards:
            if sizes.get(shard.name) != shard.size:
                raise DataError(
                    "A shard is not what the index beside it says",
                    where=f"{shard.name} of {objects.address}",
                    got=f"{sizes.get(shard.name, 'no')} bytes",
                    expected=f"{shard.size} bytes",
                    fix="copy or upload the shard again",
                )
        return index, {}
    loose = {name: sizes[name] for name in sorted(sizes) if is_segment(name)}
    if not loose:
        raise DataError(
            "There are no segments here",
            got="shards without their index" if shards else f"{len(sizes)} other files",
            expected=f"npz or audio files, or shards with {FILE_NAME}",
            where=objects.address,
            fix=f"copy {FILE_NAME} beside the shards" if shards else "correct the address, or build segments first",
        )
    return None, loose


@dataclass(frozen=True)
class _Reader:
    """Reads piece k: one loose file, or neighbours in a shard. Returns (segment, name, fault) of each."""

    objects: Place
    index: SampleIndex | None
    pieces: list
    default_rate_hz: int | None

    def __call__(self, k: int) -> list[tuple[Segment | None, str, DataError | None]]:
        if self.index is None:
            return [
                _tried(
                    lambda: read_segment(
                        self.objects.get(self.pieces[k]), self.pieces[k], default_rate_hz=self.default_rate_hz
                    ),
                    self.pieces[k],
                )
            ]
        arrays, numbers = self.index.arrays, self.pieces[k]
        shard = self.index.shards[arrays["shard"][numbers[0]]].name
        first = int(arrays["offset"][numbers[0]])
        content = self.objects.get(shard, first, int(arrays["offset"][numbers[-1]] + arrays["length"][numbers[-1]]))
        return [_tried(lambda i=i: self._read(i, content, first), f"{self.index.keys[i]} in {shard}") for i in numbers]

    def _read(self, i: int, content: bytes, first: int) -> Segment:
        start = int(self.index.arrays["offset"][i]) - first
        payload = content[start : start + int(self.index.arrays["length"][i])]
        key = self.index.keys[i]
        if zlib.crc32(payload) != self.index.arrays["crc32"][i]:
            raise DataError(
                "A segment is not what the index says",
                got=f"checksum {zlib.crc32(payload):08x}",
                where=key,
                expected=f"{self.index.arrays['crc32'][i]:08x}",
                fix="copy or upload the shard again",
            )
        return from_shard(
            payload,
            key,
            {name: text[i] for name, text in self.index.columns.items()},
            default_rate_hz=self.default_rate_hz,
        )


def from_shard(payload: bytes, key: str, columns: dict[str, str], *, default_rate_hz: int | None = None) -> Segment:
    """Read a segment out of a shard: its key is the index's, whatever is in it. Raises: DataError."""
    segment = read_segment(payload, key + _SUFFIXES.get(bytes(payload[:4]), ".mp3"), default_rate_hz=default_rate_hz)
    return describe(segment, columns) if columns else segment


def _tried(read: Callable[[], Segment], name: str) -> tuple[Segment | None, str, DataError | None]:
    try:
        return read(), name, None
    except DataError as error:
        return None, name, error


def _groups(index: SampleIndex) -> list[list[int]]:
    """Cut the samples into neighbours that are read at once, in the order of the index."""
    shards, offsets, lengths = (index.arrays[name] for name in ("shard", "offset", "length"))
    if index.arrays["codec"].any():
        raise DataError(
            "Segments in compressed shards cannot be read one by one",
            where=index.address,
            expected="tar shards",
            fix="write them again with build_segments or ShardWriter",
        )
    groups: list[list[int]] = []
    start = 0
    for i in range(len(index)):
        stop = int(offsets[i] + lengths[i])
        if groups and shards[i] == shards[groups[-1][0]] and start <= offsets[i] and stop - start <= _GROUP_BYTES:
            groups[-1].append(i)
        else:
            groups.append([i])
            start = int(offsets[i])
    return groups
