"""A Google Drive in memory that behaves as badly as real ones are reported to: the medium generations are tried on.

A machine sees its own cache; what it does there goes up later, in order. Losing the machine loses what had not gone up:
the file that was on its way is there in part, or twice, or not at all. Removed files lie in a trash that counts.
"""

from __future__ import annotations

import errno
import hashlib
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from colabkit.runs.medium import Medium

TRANSPORT = (errno.EIO, errno.ENOTCONN, errno.EOPNOTSUPP, errno.ETIMEDOUT)


@dataclass
class Weather:
    """How bad it is: shares of operations that fail, and of uploads that are lost for good; lags in operations."""

    fault_share: float = 0.0
    outage_share: float = 0.0  # of operations that begin an outage
    outage_operations: int = 40
    full_share: float = 0.0  # ENOSPC and EDQUOT
    garbled_share: float = 0.0  # files of which other bytes come back
    lost_share: float = 0.0  # uploads that never happen; Drive goes on calling such a file local
    lag_operations: int = 0
    stale_share: float = 0.0  # listings that are older than the last change


class EmulatedDrive(Medium):
    """See the module. `machine_lost()` ends the machine; the same object is then what the next one mounts."""

    name = "Google Drive"
    is_remote = True

    def __init__(self, weather: Weather | None = None, seed: int = 0, quota_bytes: int = 1 << 40):
        self.weather, self.dice, self.quota_bytes = weather or Weather(), random.Random(seed), quota_bytes
        self.files: dict[Path, bytes] = {}  # as this machine sees them
        self.folders: set[Path] = set()
        self.stored: dict[Path, bytes] = {}  # as another machine would
        self.trash: list[bytes] = []
        self.num_operations = self.num_faults = 0
        self._outage_until = 0
        self.num_machines_lost = 0
        self._queue: list[tuple[int, str, Path, bytes]] = []
        self._never: set[Path] = set()
        self._old_names: dict[Path, list[str]] = {}

    # What a machine does

    def names(self, folder: Path) -> list[str]:
        self._operate()
        now = sorted(
            {
                path.relative_to(folder).parts[0]
                for path in (*self.files, *self.folders)
                if path != folder and path.is_relative_to(folder)
            }
        )
        if self.dice.random() < self.weather.stale_share:
            return self._old_names.get(folder, [])
        self._old_names[folder] = now
        return now

    def make_folder(self, folder: Path) -> None:
        self._operate()
        if folder in self.folders:
            raise FileExistsError(errno.EEXIST, "File exists", str(folder))
        self.folders |= {folder, folder.parent}

    def write(self, path: Path, chunks: Iterable[bytes | memoryview]) -> tuple[int, str]:
        if path in self.files:
            raise FileExistsError(errno.EEXIST, "File exists", str(path))
        data = b""
        for chunk in chunks:
            data += bytes(chunk)
            self.files[path] = data  # what stays if the next piece fails
            self._operate(writes=True)
        if self.used_bytes > self.quota_bytes:
            raise OSError(errno.EDQUOT, "Disk quota exceeded", str(path))
        size, sha256 = len(data), hashlib.sha256(data).hexdigest()
        if data and self.dice.random() < self.weather.garbled_share:
            self.files[path] = data[: self.dice.randrange(len(data))]
        self._upload("write", path, self.files[path])
        return size, sha256

    def overwrite(self, path: Path, data: bytes) -> None:
        self._operate(writes=True)
        self.files[path] = data
        self._upload("write", path, data)

    def chunks(self, path: Path) -> Iterator[bytes]:
        self._operate()
        if path not in self.files:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        yield self.files[path]

    def remove(self, folder: Path) -> None:
        inside = [path for path in self.files if path.is_relative_to(folder)]
        for path in sorted(inside, key=lambda path: path.suffix != ".json"):
            self._operate()
            self.files[path] = b""
            self._upload("write", path, b"")
            self._operate()
            del self.files[path]
            self._upload("remove", path, b"")
        self._operate()
        self.folders.discard(folder)

    def free_bytes(self, folder: Path) -> int:
        return max(0, self.quota_bytes - self.used_bytes)

    def is_uploaded(self, path: Path) -> bool:
        return path not in self._never and not any(p == path for _, _, p, _ in self._queue) and path in self.stored

    def of_this_machine(self) -> Mount:
        """Return what this machine mounts: dead as soon as the machine is lost."""
        return Mount(self)

    # What Drive does

    @property
    def used_bytes(self) -> int:
        return sum(map(len, self.stored.values())) + sum(map(len, self.trash))

    def settle(self) -> None:
        """Let everything go up that ever will."""
        self.num_operations += self.weather.lag_operations + 1
        self._go_up()

    def machine_lost(self) -> None:
        """End the machine: another sees only what had gone up, and the file on its way as it happened to be."""
        self.num_machines_lost += 1
        if self._queue:
            _, kind, path, data = self._queue[0]
            if kind == "write" and path not in self.stored and self.dice.random() < 0.7:
                part = data[: self.dice.randrange(len(data) + 1)]
                twice = path.parent.with_name(path.parent.name + " (1)") / path.name
                self.stored[twice if self.dice.random() < 0.3 else path] = part
        self._queue.clear()
        self._never.clear()
        self._old_names = {path.parent.parent: [] for path in self.stored}
        self.files = dict(self.stored)
        self.folders = {parent for path in self.stored for parent in (path.parent, path.parent.parent)}
        self._outage_until = 0

    def _operate(self, writes: bool = False) -> None:
        self.num_operations += 1
        self._go_up()
        weather = self.weather
        if self.dice.random() < weather.outage_share:
            self._outage_until = self.num_operations + self.dice.randrange(1, weather.outage_operations + 1)
        if self.num_operations < self._outage_until or self.dice.random() < weather.fault_share:
            self.num_faults += 1
            raise OSError(self.dice.choice(TRANSPORT), "transport fault")
        if writes and self.dice.random() < weather.full_share:
            self.num_faults += 1
            raise OSError(self.dice.choice((errno.ENOSPC, errno.EDQUOT)), "no room")

    def _upload(self, kind: str, path: Path, data: bytes) -> None:
        if kind == "write" and data and self.dice.random() < self.weather.lost_share:
            self._never.add(path)
            return
        self._never.discard(path)
        due = self.num_operations + (
            self.dice.randrange(self.weather.lag_operations + 1) if self.weather.lag_operations else 0
        )
        self._queue.append((max([due, *(d for d, *_ in self._queue[-1:])]), kind, path, data))
        self._go_up()

    def _go_up(self) -> None:
        while self._queue and self._queue[0][0] <= self.num_operations:
            _, kind, path, data = self._queue.pop(0)
            if kind == "write":
                self.stored[path] = data
            elif path in self.stored:
                self.trash.append(self.stored.pop(path))


class Mount(Medium):
    """A drive as one machine sees it; what still runs in a test after the machine was lost reaches nothing."""

    name, is_remote = EmulatedDrive.name, True

    def __init__(self, drive: EmulatedDrive):
        self._drive, self._machine = drive, drive.num_machines_lost

    def _alive(self) -> EmulatedDrive:
        if self._drive.num_machines_lost != self._machine:
            raise OSError(errno.ENOTCONN, "the machine is lost")
        return self._drive

    def names(self, folder: Path) -> list[str]:
        return self._alive().names(folder)

    def make_folder(self, folder: Path) -> None:
        self._alive().make_folder(folder)

    def write(self, path: Path, chunks: Iterable[bytes | memoryview]) -> tuple[int, str]:
        return self._alive().write(path, chunks)

    def overwrite(self, path: Path, data: bytes) -> None:
        self._alive().overwrite(path, data)

    def chunks(self, path: Path) -> Iterator[bytes]:
        yield from self._alive().chunks(path)

    def remove(self, folder: Path) -> None:
        self._alive().remove(folder)

    def free_bytes(self, folder: Path) -> int:
        return self._alive().free_bytes(folder)

    def is_uploaded(self, path: Path) -> bool:
        return self._alive().is_uploaded(path)
