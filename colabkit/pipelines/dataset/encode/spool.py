"""The spool of what is fetched ahead: files on the disk that prove themselves whole."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from colabkit.core.disk import disk_fault, faults_told, free_bytes

_FOOTER = struct.Struct("<QI4s")
_MARK = b"CKSP"
_SUFFIX = ".part"


class Spool:
    """Payloads by name, files in a folder of its own. Safe for many threads.

    They outlive the process: one that was cut short is known by its end, and not used.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        with faults_told(self.folder, "make room for what is fetched ahead"):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._block = max(4096, os.statvfs(self.folder).f_frsize)

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
