"""Outputs of cutting: loose npz files in folders of their channels, or indexed tar shards; both go on after a kill.

What one recording gave is kept first as a whole, under a hidden folder; a record of it is written last, and from then
on the recording is done. Shards are packed from what is kept, in the order of the recordings: the same recordings, the
same bytes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from colabkit.core import files
from colabkit.core.disk import disk_fault
from colabkit.core.errors import ChangedError, DataError, StateError
from colabkit.io.samples import Samples
from colabkit.io.samples.index import FILE_NAME, SampleIndex
from colabkit.io.samples.shards import SHARD_BYTES, ShardWriter, flac_bytes, pcm_bytes
from colabkit.pipelines.dataset.segments.npz import write_npz
from colabkit.pipelines.dataset.segments.segment import Segment

WORK = f"{files.TEMPORARY_PREFIX}building"  # hidden: never listed, uploaded or read as segments
Layout = Literal["npz", "flac", "pcm"]
_SPOOL_SHARD_BYTES = 32 << 20  # what one recording being cut holds in memory


@dataclass(frozen=True, slots=True)
class Kept:
    """What is known of a recording that is done."""

    name: str  # of its record
    record: Mapping[str, object]


class SegmentFolder(Protocol):
    """A folder that segments are written into, one recording after another.

    `identity` names a recording and its version.
    """

    def spool(self, identity: str) -> Spool:
        """Begin a recording anew; its spool takes segments and is closed with a record."""

    def kept(self, identity: str) -> Kept | None:
        """Return the record of a recording whose segments are all here, None when it is to be cut."""

    def take(self, identity: str) -> None:
        """Pack what was kept of the next recording. Recordings come in their order."""

    def finish(self) -> None:
        """Write what is left. From then on the folder is whole."""


class Spool(Protocol):
    """Takes the segments of one recording."""

    def add(self, segment: Segment) -> None:
        """Write one segment."""

    def close(self, record: Mapping[str, object]) -> None:
        """Write the record: the recording is done."""


class _Records:
    """One record a recording, written when it is done, and the settings all of them were made with."""

    def __init__(self, folder: Path, settings: Mapping[str, object]):
        self.folder, self.work = folder, folder / WORK
        try:
            (self.work / "records").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_fault(error, folder, "make the folder of segments") from error
        self.settings = files.plain(dict(settings))
        begun = self.work / "settings.json"
        if begun.exists():
            _sweep(folder)
            require_same(files.read_json(begun), self.settings, folder)
        files.write_json(begun, self.settings)

    def path(self, identity: str) -> Path:
        return self.work / "records" / f"{_hash(identity.partition(chr(0))[0])}-{_hash(identity)}.json"

    def outdated(self, identity: str) -> list[Path]:
        """Return the records of the same recording as it was before."""
        path = self.path(identity)
        return [p for p in path.parent.glob(path.name.partition("-")[0] + "-*.json") if p != path]

    def read(self, identity: str) -> Kept | None:
        path = self.path(identity)
        if not path.exists():
            return None
        try:
            record = files.read_json(path)
        except StateError:  # cut off by a crash of the machine: the recording is cut again
            return None
        return Kept(path.stem, record) if isinstance(record, dict) else None


class NpzFolder:
    """Loose npz files, KEY.npz each: the layout of old.

    Every file is whole; those of a recording cut anew are replaced.
    """

    def __init__(self, folder: Path, settings: Mapping[str, object], *, dtype: str = "float32", deflate: bool = False):
        self.records, self.folder, self.dtype, self.deflate = _Records(folder, settings), folder, dtype, deflate

    def spool(self, identity: str) -> _NpzSpool:
        return _NpzSpool(self, identity)

    def kept(self, identity: str) -> Kept | None:
        return self.records.read(identity)

    def take(self, identity: str) -> None:
        """Nothing to pack: each segment is in its place."""

    def finish(self) -> None:
        """Nothing is left."""


class _NpzSpool:
    def __init__(self, output: NpzFolder, identity: str):
        self.output, self.identity = output, identity
        self.folders: set[Path] = set()
        for record in output.records.outdated(identity):
            self._remove_before()
            files.remove_generation(record)

    def add(self, segment: Segment) -> None:
        path = self.output.folder / _inside(f"{segment.key}.npz")
        if path.parent not in self.folders:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise disk_fault(error, path.parent, "make a folder for segments") from error
            self.folders.add(path.parent)
        files.write_atomic(
            path, write_npz(segment, dtype=self.output.dtype, deflate=self.output.deflate), durable=False
        )

    def _remove_before(self) -> None:
        """Remove the segments of the recording as it was: cut anew, it may have others."""
        path = self.output.folder / _inside(self.identity.partition("\0")[0])
        if path.parent.is_dir():
            for name in os.listdir(path.parent):
                if (
                    name.startswith(path.name + "__")
                    and name[len(path.name) + 2 : -4].isdecimal()
                    and name.endswith(".npz")
                ):
                    files.remove_generation(path.parent / name)

    def close(self, record: Mapping[str, object]) -> None:
        for folder in self.folders:
            files.sync_folder(folder)
        files.write_json(self.output.records.path(self.identity), record)


class ShardFolder:
    """Indexed tar shards (io/samples/shards.py): FLAC or PCM, with what is known of each segment in the index.

    On the disk lie the shards and what is kept of the recordings that are not packed whole yet.
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, object], *, kind: Layout = "flac", shard_bytes: int = SHARD_BYTES
    ):
        self.records, self.folder, self.kind = _Records(folder, settings), folder, kind
        self.packed = self.records.work / "packed.json"
        done = files.read_json(self.packed) if self.packed.exists() else {"order": [], "shards": 0, "item": 0}
        assert isinstance(done, dict)
        self.order: list[str] = done["order"]  # recordings that finished shards hold, the last one perhaps in part
        self.item = done["item"]  # segments of that last one that they hold
        parts = [SampleIndex.load(self._part(n)) for n in range(done["shards"])]
        self.writer = ShardWriter(folder, shard_bytes=shard_bytes, begun=parts)
        self.taken: list[str] = []

    def spool(self, identity: str) -> _ShardSpool:
        return _ShardSpool(self, identity)

    def kept(self, identity: str) -> Kept | None:
        kept = self.records.read(identity)
        is_packed = kept is not None and kept.name in self.order[:-1]
        return kept if kept is None or is_packed or (self._spool(kept.name) / FILE_NAME).exists() else None

    def take(self, identity: str) -> None:
        name, place = self.records.path(identity).stem, len(self.taken)
        self.taken.append(name)
        if place < len(self.order) and self.order[place] != name:
            raise ChangedError(
                "The recordings are others than when these shards were begun",
                got=identity.partition("\0")[0],
                expected="the same recordings in the same order",
                where=self.folder,
                fix="put them back, or name another folder for the segments",
            )
        if place < len(self.order) - 1:
            return
        skip = self.item if place == len(self.order) - 1 else 0
        for number, (key, content, columns) in enumerate(self._items(name)):
            if number < skip:
                continue
            shards = len(self.writer.shards)
            self.writer.add(key, content, ".flac" if self.kind == "flac" else ".wav", columns)
            if len(self.writer.shards) > shards:
                self._commit(number)

    def finish(self) -> None:
        if len(self.taken) < len(self.order):
            raise ChangedError(
                "Recordings are missing that these shards were begun with",
                got=f"{len(self.taken)} recordings",
                expected=f"{len(self.order)} or more",
                where=self.folder,
                fix="put them back, or name another folder for the segments",
            )
        self.writer.close()  # what is kept stays until the build is recorded as done: a kill here packs it again

    def _commit(self, item: int) -> None:
        """Record that the shard just finished ends before an item of the recording taken last."""
        number = len(self.writer.shards) - 1
        self.writer.finished(number).save(self._part(number))
        before, self.order, self.item = self.order, list(self.taken), item
        files.write_json(self.packed, {"order": self.order, "shards": number + 1, "item": item})
        for name in self.order[max(0, len(before) - 1) : -1]:
            files.remove_generation(self._spool(name))

    def _items(self, name: str) -> Iterator[tuple[str, bytes, dict[str, str]]]:
        spool = self._spool(name)
        samples = Samples(SampleIndex.load(spool / FILE_NAME).at(str(spool)))
        columns = {column: text.to_list() for column, text in samples.index.columns.items()}
        with closing(samples.store):
            for i, key in enumerate(samples.index.keys.to_list()):
                yield key, samples.read_bytes(i), {column: values[i] for column, values in columns.items() if values[i]}

    def _spool(self, name: str) -> Path:
        return self.records.work / "spool" / name

    def _part(self, number: int) -> Path:
        return self.records.work / f"part-{number:05d}.safetensors"


class _ShardSpool:
    def __init__(self, output: ShardFolder, identity: str):
        self.output, self.record_path = output, output.records.path(identity)
        folder = output._spool(self.record_path.stem)
        files.remove_generation(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_fault(error, folder, "make a folder for segments") from error
        self.writer = ShardWriter(folder, shard_bytes=_SPOOL_SHARD_BYTES)

    def add(self, segment: Segment) -> None:
        encode, suffix = (flac_bytes, ".flac") if self.output.kind == "flac" else (pcm_bytes, ".wav")
        self.writer.add(segment.key, encode(segment.wave, segment.rate_hz), suffix, index_columns(segment))

    def close(self, record: Mapping[str, object]) -> None:
        self.writer.close()
        files.write_json(self.record_path, record)


def require_same(then: object, now: Mapping[str, object], folder: Path) -> None:
    """Raise ChangedError where segments were made with other settings than those of now."""
    before = then if isinstance(then, dict) else {}
    changed = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    if changed:
        raise ChangedError(
            "These segments were made with other settings",
            where=folder,
            got=", ".join(f"{name}={before.get(name)}" for name in changed),
            expected=", ".join(f"{name}={now.get(name)}" for name in changed),
            fix="set them as they were, or name another folder for the segments",
        )


def index_columns(segment: Segment) -> dict[str, str]:
    """Return what an index says of a segment: speaker, channel, text, and all of its metadata, a column each."""
    columns = {**segment.metadata, "speaker": segment.speaker, "channel": segment.channel, "text": segment.text}
    return {name: value for name, value in columns.items() if value}


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _sweep(folder: Path) -> None:
    """Remove the unfinished files that a kill left behind: of shards they may be large."""
    for place, folders, names in os.walk(folder):
        if place.endswith(WORK):
            folders[:] = [name for name in folders if name != "spool"]  # emptied before it is written again
        for name in names:
            if name.startswith(files.TEMPORARY_PREFIX) and name.endswith(".tmp"):
                files.remove_generation(Path(place, name))


def _inside(name: str) -> str:
    if name.startswith("/") or ".." in name.split("/") or "\0" in name:
        raise DataError(
            "This name leads out of the folder of segments",
            got=name,
            expected="a plain name",
            fix="rename the recording",
        )
    return name
