"""The spool of what is fetched ahead: on the disk, in files that prove themselves whole, or in memory."""

from __future__ import annotations

import os
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from colabkit.core.disk import disk_fault, free_bytes

_FOOTER = struct.Struct("<QI4s")
_MARK = b"CKSP"
_SUFFIX = ".part"


class Spool(Protocol):
    """Payloads by name. Safe for many threads. `where` says in words where they lie."""

    where: str

    def free(self) -> int:
        """Return how many bytes are free there."""

    def cost(self, num_bytes: int) -> int:
        """Return what a payload takes of the disk."""

    def put(self, name: str, content: bytes) -> None:
        """Keep a payload. Raises: OSError."""

    def take(self, name: str) -> bytes | None:
        """Return a payload, None when it is not there or not whole."""

    def drop(self, name: str) -> None:
        """Let a payload go."""

    def names(self) -> Iterator[tuple[str, int]]:
        """Yield names of what lies there with what it takes of the disk."""


class DiskSpool:
    """Files in a folder of its own.

    They outlive the process: one that was cut short is known by its end, and not used.
    """

    def __init__(self, folder: Path):
        self.folder, self.where = Path(folder), f"the disk of {folder}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._block = max(4096, os.statvfs(self.folder).f_frsize)
        except OSError as error:
            raise disk_fault(error, self.folder, "make room for what is fetched ahead") from error

    def free(self) -> int:
        """Return how many bytes are free on the disk."""
        return free_bytes(self.folder)

    def cost(self, num_bytes: int) -> int:
        """Return the whole blocks that a payload takes."""
        return -(-(num_bytes + _FOOTER.size) // self._block) * self._block

    def put(self, name: str, content: bytes) -> None:
        """Write a payload; of one that did not fit, nothing is left. Raises: OSError."""
        path = self._path(name)
        try:
            with open(path, "wb", buffering=0) as file:
                for block in (memoryview(content), _FOOTER.pack(len(content), zlib.crc32(content), _MARK)):
                    done = 0
                    while done < len(block):
                        done += file.write(block[done:])
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def take(self, name: str) -> bytes | None:
        """Return a payload, None when it is not there or not whole."""
        try:
            with open(self._path(name), "rb", buffering=0) as file:
                payload = file.read(max(0, os.fstat(file.fileno()).st_size - _FOOTER.size))
                footer = file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise disk_fault(error, self._path(name), "read what was fetched ahead") from error
        is_whole = len(footer) == _FOOTER.size and _FOOTER.unpack(footer) == (len(payload), zlib.crc32(payload), _MARK)
        return payload if is_whole else None

    def drop(self, name: str) -> None:
        """Remove a payload; none is there is fine."""
        self._path(name).unlink(missing_ok=True)

    def names(self) -> Iterator[tuple[str, int]]:
        """Yield what lies there; files that are not ours are left alone."""
        with os.scandir(self.folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.endswith(_SUFFIX):
                    yield entry.name.removesuffix(_SUFFIX), self.cost(max(0, entry.stat().st_size - _FOOTER.size))

    def _path(self, name: str) -> Path:
        return self.folder / (name + _SUFFIX)


class MemorySpool:
    """Payloads in memory, for machines with more of it than of disk; nothing is left for the next run."""

    where = "this machine's memory"

    def __init__(self) -> None:
        self._payloads: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def free(self) -> int:
        """Return how many bytes of memory are free, without what the system could let go."""
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

    def cost(self, num_bytes: int) -> int:
        """Return the bytes of a payload."""
        return max(1, num_bytes)

    def put(self, name: str, content: bytes) -> None:
        """Keep a payload."""
        with self._lock:
            self._payloads[name] = content

    def take(self, name: str) -> bytes | None:
        """Return a payload, None when it is not there."""
        with self._lock:
            return self._payloads.get(name)

    def drop(self, name: str) -> None:
        """Let a payload go."""
        with self._lock:
            self._payloads.pop(name, None)

    def names(self) -> Iterator[tuple[str, int]]:
        """Yield what lies there."""
        with self._lock:
            yield from [(name, self.cost(len(content))) for name, content in self._payloads.items()]
