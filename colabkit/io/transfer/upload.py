"""A folder into a bucket: what is there is not sent again, what fails is counted, the manifest is written last."""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from colabkit.core.disk import disk_fault, in_units
from colabkit.core.errors import DataError
from colabkit.core.table import Table
from colabkit.core.teller import Teller
from colabkit.io.places.bucket import ONE_PIECE_BYTES
from colabkit.io.places.place import Place
from colabkit.io.transfer.channels import wanted_places
from colabkit.io.transfer.local_files import LocalFiles, existing_folder, scan_folder
from colabkit.io.transfer.manifest import Manifest, make_manifest, read_manifest, write_manifest
from colabkit.io.transfer.workers import raise_failures, work_through

_LARGE_BYTES = 8 << 20
_LARGE_AT_A_TIME = 4  # of the files that a thread holds whole in memory
_PAGE_OBJECTS = 1000
_BLOCK_BYTES = 1 << 20
_CLOCK_SECONDS = 1.0  # stores tell times in whole seconds


@dataclass(frozen=True)
class Uploaded:
    """What an upload did, of `num_files` that are wanted.

    `changed_there` are objects that are not any more what was uploaded.
    """

    num_files: int = 0
    num_skipped: int = 0
    num_sent: int = 0
    num_bytes: int = 0
    num_left: int = 0  # of a dry run: what would be sent
    seconds: float = 0.0
    workers: int = 0
    reason: str = ""
    changed_there: tuple[str, ...] = field(default=(), repr=False)

    def table(self) -> Table:
        """Return it for people."""
        rate = self.num_bytes / self.seconds if self.seconds else 0.0
        rows = [
            ["files", self.num_files],
            ["there already", self.num_skipped],
            ["sent", self.num_sent],
            ["bytes", in_units(self.num_bytes)],
            ["speed", f"{in_units(rate)}/s"],
            ["threads", f"{self.workers}: {self.reason}" if self.workers else "none were needed"],
        ]
        rows += [["would be sent", self.num_left]] if self.num_left else []
        rows += [["changed in the store since", len(self.changed_there)]] if self.changed_there else []
        return Table(["upload", ""], rows)


@dataclass
class _Plan:
    """What to send, what the store's manifest says of the rest, and what was found out by listing."""

    files: LocalFiles  # all that are wanted
    to_send: np.ndarray  # places in files
    manifest: Manifest | None
    listed: Manifest | None = None  # what is there without standing in the manifest
    changed_there: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)  # in the manifest, not in the store


def upload_folder(
    folder: str | os.PathLike,
    objects: Place,
    *,
    pattern: str = "*",
    workers: int | None = None,
    limit: int | None = None,
    channels: Sequence[str] = (),
    channel_of: Callable[[str], str] | None = None,
    dry_run: bool = False,
    skip_existing: bool = True,
    check: bool = False,
    teller: Teller = Teller(),
) -> Uploaded:
    """Send the files of a folder under their names, and write the manifest UPLOADED.parquet when all are there.

    Skipped is what the manifest has with the same size and time, or, where the manifest does not know it, what a
    listing shows with the same size and a later time than the file's. `check` lists in any case: objects that are
    missing are sent again, objects that changed are told. Channels: see io/transfer/channels.py.

    Raises: UsageError (keys, rights), DataError listing what failed after all others were sent, Unreachable,
    StateError.
    """
    folder = existing_folder(folder)
    with ThreadPoolExecutor(1) as pool:  # the manifest comes while the disk is looked at
        reading = pool.submit(read_manifest, objects)
        files = scan_folder(folder)
        files = files.taken(
            wanted_places(files.names, pattern=pattern, channels=channels, limit=limit, channel_of=channel_of)
        )
        manifest = reading.result()
    plan = _planned(files, objects, manifest, skip_existing, check)
    if plan.changed_there:
        teller.say(
            f"{len(plan.changed_there)} objects changed in the store since they were uploaded, such as "
            f"{plan.changed_there[0]}: they are left as they are"
        )
    done = Uploaded(
        num_files=len(files), num_skipped=len(files) - len(plan.to_send), changed_there=tuple(plan.changed_there)
    )
    if dry_run:
        size = int(files.sizes[plan.to_send].sum())
        teller.say(f"dry run: {len(plan.to_send)} of {len(files)} files would be sent, {in_units(size)}")
        return replace(done, num_left=len(plan.to_send))
    if not len(plan.to_send) and plan.listed is None and not plan.gone:
        teller.say(f"all {len(files)} files are there: nothing to send")
        return done
    sending = _Sending(files.taken(plan.to_send), objects)
    worked = work_through(
        len(sending), sending.name_of, sending.send, title="upload", unit="files", workers=workers, teller=teller
    )
    raise_failures(worked.failures, "uploaded", objects.address, worked.num_done + done.num_skipped)
    newer = sending.manifest() if plan.listed is None else plan.listed.merged(sending.manifest())
    if len(newer) or plan.gone:
        write_manifest(objects, plan.manifest, newer, plan.gone)
    return replace(
        done,
        num_sent=worked.num_done,
        num_bytes=worked.num_bytes,
        seconds=worked.seconds,
        workers=worked.workers,
        reason=worked.reason,
    )


def _planned(files: LocalFiles, objects: Place, manifest: Manifest | None, skip_existing: bool, check: bool) -> _Plan:
    every = np.arange(len(files))
    if not skip_existing:
        return _Plan(files, every, manifest)
    to_send = every
    if manifest is not None:
        places = manifest.places_of(files.names)
        same = (
            (places >= 0) & (manifest.sizes[places] == files.sizes) & (manifest.mtimes_ns[places] == files.mtimes_ns)
            if len(manifest)
            else np.zeros(len(files), bool)
        )
        to_send = np.flatnonzero(~same)
    known = len(manifest) if manifest is not None else 0
    # A listing costs a request for each thousand objects: no more than it can spare.
    if check or len(to_send) > max(1, known / _PAGE_OBJECTS):
        return _with_listing(_Plan(files, to_send, manifest), objects)
    return _Plan(files, to_send, manifest)


def _with_listing(plan: _Plan, objects: Any) -> _Plan:
    """Leave out what a listing shows to be there, and find out what is not any more what was uploaded."""
    files, manifest = plan.files, plan.manifest
    waiting = dict(zip(files.names.take(plan.to_send).to_pylist(), plan.to_send.tolist(), strict=True))
    known = (
        dict(zip(manifest.names.to_pylist(), manifest.versions.to_pylist(), strict=True))
        if manifest is not None
        else {}
    )
    there: list[tuple[int, str]] = []
    seen: set[str] = set()
    for found in objects.list():
        if known.get(found.name):
            seen.add(found.name)
            if found.version != known[found.name] and found.name not in waiting:
                plan.changed_there.append(found.name)
        place = waiting.get(found.name)
        if (
            place is not None
            and found.size == files.sizes[place]
            and found.stored_seconds + _CLOCK_SECONDS > files.mtimes_ns[place] / 1e9
            and found.version != known.get(found.name)
        ):
            there.append((place, found.version))
    plan.gone = [name for name, version in known.items() if version and name not in seen]
    again = np.flatnonzero(np.isin(files.names.to_pylist(), plan.gone)) if plan.gone else np.empty(0, np.int64)
    skipped = np.array([place for place, _ in there], np.int64)
    plan.to_send = np.union1d(np.setdiff1d(plan.to_send, skipped), again)
    if there:
        plan.listed = make_manifest(
            files.names.take(skipped).to_pylist(),
            files.sizes[skipped],
            files.mtimes_ns[skipped],
            np.full(len(there), -1),
            [version for _, version in there],
        )
    return plan


class _Sending:
    """Reads and sends single files, and keeps what the manifest is to say of them."""

    def __init__(self, files: LocalFiles, objects: Place):
        order = np.argsort(np.array(files.names.to_pylist(), object)) if len(files) else np.empty(0, np.int64)
        self.files, self.objects = files.taken(order), objects
        self.names: list[str] = self.files.names.to_pylist()
        self._folder = os.fspath(files.folder)
        self._sizes, self._mtimes = self.files.sizes.copy(), self.files.mtimes_ns.copy()
        self._crc32, self._versions = np.full(len(files), -1, np.int64), [""] * len(files)
        self._large = threading.Semaphore(_LARGE_AT_A_TIME)

    def __len__(self) -> int:
        return len(self.names)

    def name_of(self, place: int) -> str:
        return self.names[place]

    def send(self, place: int) -> int:
        """Send one file and return its size. Raises: ColabkitError."""
        if self._sizes[place] < _LARGE_BYTES:
            return self._send(place)
        with self._large:
            return self._send(place)

    def _send(self, place: int) -> int:
        name = self.names[place]
        path = f"{self._folder}/{name}"
        try:
            with open(path, "rb", buffering=0) as file:
                found = os.fstat(file.fileno())
                if found.st_size > ONE_PIECE_BYTES:
                    content: bytes | Path = Path(path)
                    crc32 = _crc32_of(file)
                else:
                    content = file.readall()
                    crc32 = zlib.crc32(content)
                after = os.fstat(file.fileno())
        except OSError as error:
            raise disk_fault(error, path, f"read {name}") from error
        if (found.st_size, found.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise DataError(
                "A file changed while it was read",
                got=name,
                where=path,
                fix="wait until nothing writes to the folder any more",
            )
        self._versions[place] = self.objects.put(name, content)
        self._sizes[place], self._mtimes[place], self._crc32[place] = found.st_size, found.st_mtime_ns, crc32
        return found.st_size

    def manifest(self) -> Manifest:
        """Return what was sent, when all of it was."""
        return make_manifest(self.names, self._sizes, self._mtimes, self._crc32, self._versions)


def _crc32_of(file: Any) -> int:
    crc32 = 0
    while block := file.read(_BLOCK_BYTES):
        crc32 = zlib.crc32(block, crc32)
    return crc32
