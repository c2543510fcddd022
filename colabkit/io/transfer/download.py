"""Objects of a place into a folder, within a quota: what is there is not fetched again, and checksums are looked at."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from colabkit.core.disk import disk_fault, free_bytes, in_units
from colabkit.core.errors import DataError, UsageError
from colabkit.core.files import TEMPORARY_PREFIX
from colabkit.core.table import Table
from colabkit.core.teller import Teller
from colabkit.io.places.names import check_name
from colabkit.io.places.place import Place
from colabkit.io.transfer.channels import wanted_places
from colabkit.io.transfer.local_files import scan_folder
from colabkit.io.transfer.manifest import Manifest, make_manifest, read_manifest
from colabkit.io.transfer.workers import raise_failures, work_through

_SPARE_BYTES = 64 << 20  # of the disk that nobody shall fill to the last byte
_BLOCK_BYTES = 64 << 20  # of a large object that is fetched at a time


@dataclass(frozen=True)
class Downloaded:
    """What a download did; `num_files` are all that are wanted."""

    num_files: int = 0
    num_skipped: int = 0
    num_fetched: int = 0
    num_bytes: int = 0
    num_left: int = 0  # of a dry run: what would be fetched
    seconds: float = 0.0
    workers: int = 0
    reason: str = ""

    def table(self) -> Table:
        """Return it for people."""
        rate = self.num_bytes / self.seconds if self.seconds else 0.0
        rows = [
            ["objects", self.num_files],
            ["there already", self.num_skipped],
            ["fetched", self.num_fetched],
            ["bytes", in_units(self.num_bytes)],
            ["speed", f"{in_units(rate)}/s"],
            ["threads", f"{self.workers}: {self.reason}" if self.workers else "none were needed"],
        ]
        return Table(["download", ""], rows + ([["would be fetched", self.num_left]] if self.num_left else []))


def download(
    objects: Place,
    folder: str | os.PathLike,
    *,
    pattern: str = "*",
    channels: Sequence[str] = (),
    channel_of: Callable[[str], str] | None = None,
    limit: int | None = None,
    skip_existing: bool = True,
    dry_run: bool = False,
    quota_bytes: int | None = None,
    workers: int | None = None,
    teller: Teller = Teller(),
) -> Downloaded:
    """Fetch objects into a folder, under their names.

    What is there is told by the manifest of the upload, else by a listing.

    Skipped are files of the same size and, with a manifest, of the same time. With a manifest checksums are compared,
    and an object that changed since the upload is a failure. Nothing is begun that `quota_bytes` (of the whole folder)
    or the disk cannot hold. Raises: UsageError, DataError listing what failed after all others are there, Unreachable,
    StateError.
    """
    found = _there(objects)
    found = _taken(
        found, wanted_places(found.names, pattern=pattern, channels=channels, limit=limit, channel_of=channel_of)
    )
    root = Path(os.path.expanduser(folder))
    here = scan_folder(root) if root.is_dir() else None
    missing = np.arange(len(found))
    if here is not None and skip_existing and len(here):
        places = make_manifest(here.names, here.sizes, here.mtimes_ns, here.sizes, here.names).places_of(found.names)
        same = (
            (places >= 0)
            & (here.sizes[places] == found.sizes)
            & ((here.mtimes_ns[places] == found.mtimes_ns) | (found.mtimes_ns == 0))
        )
        missing = np.flatnonzero(~same)
    wanted = _taken(found, missing)
    size = int(wanted.sizes.sum())
    _check_room(root, size, int(here.sizes.sum()) if here is not None else 0, quota_bytes)
    done = Downloaded(num_files=len(found), num_skipped=len(found) - len(missing))
    if dry_run:
        teller.say(f"dry run: {len(missing)} of {len(found)} objects would be fetched, {in_units(size)}")
        return replace(done, num_left=len(missing))
    if not len(missing):
        teller.say(f"all {len(found)} objects are there: nothing to fetch")
        return done
    fetching = _Fetching(wanted, objects, root)
    worked = work_through(
        len(wanted), fetching.name_of, fetching.fetch, title="download", unit="objects", workers=workers, teller=teller
    )
    raise_failures(worked.failures, "downloaded", objects.address, worked.num_done + done.num_skipped)
    return replace(
        done,
        num_fetched=worked.num_done,
        num_bytes=worked.num_bytes,
        seconds=worked.seconds,
        workers=worked.workers,
        reason=worked.reason,
    )


def _there(objects: Place) -> Manifest:
    """Return what can be fetched; times are 0 and checksums -1 where only a listing tells."""
    found = read_manifest(objects)
    if found is not None:
        return found
    listed = [(one.name, one.size, one.version) for one in objects.list()]
    zeros, (names, sizes, versions) = (
        np.zeros(len(listed), np.int64),
        zip(*listed, strict=True) if listed else ((), (), ()),
    )
    return make_manifest(names, sizes, zeros, zeros - 1, versions)


def _taken(manifest: Manifest, places: np.ndarray) -> Manifest:
    return Manifest(
        manifest.names.take(places),
        manifest.sizes[places],
        manifest.mtimes_ns[places],
        manifest.crc32[places],
        manifest.versions.take(places),
        manifest.version,
    )


def _check_room(root: Path, size: int, here: int, quota_bytes: int | None) -> None:
    fix = "fetch less (--limit, --channel), give another folder, or encode without keeping the audio"
    if quota_bytes is not None and here + size > quota_bytes:
        raise UsageError(
            "The download does not fit into the quota: nothing was fetched",
            where=root,
            fix=fix,
            got=f"{in_units(size)} to fetch, {in_units(here)} there",
            expected=f"at most {in_units(quota_bytes)}",
        )
    free = free_bytes(root)
    if size + _SPARE_BYTES > free:
        raise UsageError(
            "The download does not fit on the disk: nothing was fetched",
            got=f"{in_units(free)} free",
            expected=f"{in_units(size + _SPARE_BYTES)}",
            where=root,
            fix=fix,
        )


class _Fetching:
    """Fetches single objects into files that take their names when they are whole."""

    def __init__(self, wanted: Manifest, objects: Place, root: Path):
        self.wanted, self.objects, self.root = wanted, objects, root
        self.names: list[str] = wanted.names.to_pylist()
        self.versions: list[str] = wanted.versions.to_pylist()
        self._made: set[str] = set()

    def name_of(self, place: int) -> str:
        return self.names[place]

    def fetch(self, place: int) -> int:
        """Fetch one object and return its size. Raises: ColabkitError."""
        name, size, crc32 = check_name(self.names[place], self.objects.address), int(self.wanted.sizes[place]), 0
        path = self.root / name
        partial = path.with_name(f"{TEMPORARY_PREFIX}{path.name[:40]}-{os.getpid()}.tmp")
        folder = os.fspath(path.parent)
        try:
            if folder not in self._made:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._made.add(folder)
            with open(partial, "wb", buffering=0) as file:
                for start in range(0, max(size, 1), _BLOCK_BYTES):
                    block = self._get(name, start, size, self.versions[place])
                    crc32 = zlib.crc32(block, crc32)
                    _write_all(file, block)
                expected = int(self.wanted.crc32[place])
                if expected >= 0 and crc32 != expected:
                    raise DataError(
                        "An object has another checksum than what was uploaded",
                        got=f"{name}: {crc32:08x}",
                        expected=f"{expected:08x}",
                        where=self.objects.address,
                        fix="upload it again",
                    )
                if mtime := int(self.wanted.mtimes_ns[place]):
                    os.utime(file.fileno(), ns=(mtime, mtime))
            os.replace(partial, path)
        except OSError as error:
            raise disk_fault(error, path, f"write {name}", needed_bytes=size) from error
        finally:
            partial.unlink(missing_ok=True)
        return size

    def _get(self, name: str, start: int, size: int, version: str) -> bytes:
        if size <= _BLOCK_BYTES:
            block = self.objects.get(name, version=version)
            if len(block) != size:
                raise DataError(
                    "An object has another size than what was listed",
                    got=f"{name}: {len(block)} bytes",
                    expected=f"{size} bytes",
                    where=self.objects.address,
                    fix="run the same command again",
                )
            return block
        return self.objects.get(name, start, min(start + _BLOCK_BYTES, size), version=version)


def _write_all(file: Any, block: bytes) -> None:
    view = memoryview(block)
    while view:
        view = view[file.write(view) :]
