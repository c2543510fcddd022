"""A bounded cache on disk before a store: the ranges used last, each checked when it is read back."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from colabkit.core import files
from colabkit.core.errors import StateError, UsageError
from colabkit.io.places.http.per_process import PerProcess
from colabkit.io.places.pinned import Pinned
from colabkit.io.places.place import StoredObject

_TAIL = struct.Struct("<QI4s")  # length of the content, CRC-32 of it, mark
_MARK = b"ckr1"
_NAME = re.compile(r"[0-9a-f]{30}\.range")
_OLD_SECONDS = 3600.0  # an unfinished file this old belongs to nobody, on whatever machine it was begun
# Other processes write too, and are seen when the folder is looked through again: up to eight keep within the budget.
_FULL, _ROOMY, _BETWEEN_LOOKS = 7 / 8, 3 / 4, 1 / 64


class Cached:
    """A pinned place whose ranges are kept in `folder`, at most `max_bytes` of them, the ones used last.

    Several processes may share the folder; it survives kills. A range of an object that has changed is not found again,
    since its version is part of its name: that is what `versions` says (object name -> version), or else a listing.
    When the disk is full or fails, the cache goes off with one warning and reading goes on. Raises: UsageError for a
    budget of zero.
    """

    def __init__(
        self, store: Pinned, folder: str | os.PathLike, max_bytes: int, versions: Mapping[str, str] | None = None
    ):
        if max_bytes <= 0:
            raise UsageError(
                "A cache needs room",
                got=f"{max_bytes} bytes",
                expected="more than 0",
                fix="give it a budget, or use the store without a cache",
            )
        self.store, self.folder, self.max_bytes = store, Path(os.path.abspath(folder)), int(max_bytes)
        self.address = store.address
        self._versions = dict(versions) if versions is not None else None
        self._shelf = PerProcess(partial(_Shelf, self.folder, self.max_bytes))
        self._shelf.get()

    def __repr__(self) -> str:
        return f"Cached({self.store!r}, {str(self.folder)!r}, {self.max_bytes})"

    def list(self) -> list[StoredObject]:
        """Return what the store lists."""
        found = self.store.list()
        self._versions = {o.name: o.version for o in found}
        return found

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        """Return bytes start..stop, from the cache or through it. Raises: as the store does."""
        shelf = self._shelf.get()
        if self._versions is None:
            with shelf.listing:  # by one thread
                if self._versions is None:
                    self.list()
        version = self._versions.get(name)
        if version is None or shelf.is_off:
            return self.store.read(name, start, stop)
        key = self._key(name, version, start, stop)
        content = shelf.take(key)
        if content is None:
            content = self.store.read(name, start, stop)
            shelf.put(key, content)
        return content

    def forget(self, name: str, start: int = 0, stop: int | None = None) -> None:
        """Drop a range whose content turned out to be wrong, so that the next read fetches it again."""
        version = (self._versions or {}).get(name)
        if version is not None:
            self._shelf.get().drop(self._key(name, version, start, stop))

    is_folder = False  # even over one: what is read is looked for here first

    @property
    def counts(self) -> dict[str, int]:
        """What this process did: hits, misses, written, evicted, corrupt; and what the store counts."""
        shelf = self._shelf.get()
        own = {f"cache_{name}": shelf.counts[name] for name in ("hits", "misses", "written", "evicted", "corrupt")}
        return {**self.store.counts, **own}

    def close(self) -> None:
        """Close the store; the cached files stay."""
        self.store.close()

    def _key(self, name: str, version: str, start: int, stop: int | None) -> str:
        text = "\n".join((self.address, name, version, str(start), str(stop)))
        return hashlib.sha256(text.encode()).hexdigest()[:32]


class _Shelf:
    """The cached files as one process sees them: folder/ab/cdef....range, last used when last modified."""

    def __init__(self, folder: Path, max_bytes: int):
        self.folder, self.max_bytes = folder, max_bytes
        self.counts: Counter[str] = Counter()
        self.is_off = False
        self.listing = threading.Lock()
        self._lock = threading.Lock()  # over the sums below; held while evicting, so that one thread does it
        self._used_bytes = self._unseen_bytes = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with self._lock:
                self._look_through(remove_unfinished=True)
        except OSError as error:
            raise files.disk_fault(error, folder, "use the cache folder") from error

    def take(self, key: str) -> bytes | None:
        """Return a kept range, or None. One that is cut or damaged is removed."""
        path = self._path(key)
        try:
            with open(path, "rb", buffering=0) as opened:
                raw = opened.readall()
                os.utime(opened.fileno())
        except FileNotFoundError:
            raw = None
        except OSError as error:
            self._turn_off(error)
            raw = None
        if raw is not None:
            content, tail = memoryview(raw)[: -_TAIL.size], raw[-_TAIL.size :]
            if tail == _tail(content, key):
                self.counts["hits"] += 1
                return raw[: -_TAIL.size]
            self.counts["corrupt"] += 1
            logging.getLogger(__name__).warning("%s was damaged: removed, and fetched again", path)
            self.drop(key)
        self.counts["misses"] += 1
        return None

    def put(self, key: str, content: bytes) -> None:
        """Keep a range, unless it is so large that it would drive out most others."""
        size = len(content) + _TAIL.size
        if self.is_off or size > self.max_bytes / 4:
            return
        path = self._path(key)
        try:
            path.parent.mkdir(exist_ok=True, parents=True)
            with self._lock:
                self._used_bytes += size
                self._unseen_bytes += size
                if self._used_bytes > _FULL * self.max_bytes or self._unseen_bytes > _BETWEEN_LOOKS * self.max_bytes:
                    self._look_through(coming_bytes=size)
            files.write_atomic(path, content + _tail(content, key), durable=False)
            self.counts["written"] += 1
        except (OSError, StateError) as error:
            if error.errno != errno.ENOENT:  # the folder was removed just now: the next write makes it again
                self._turn_off(error)

    def drop(self, key: str) -> None:
        _remove(self._path(key))

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key[2:]}.range"

    def _turn_off(self, error: Exception) -> None:
        with self._lock:
            was_off, self.is_off = self.is_off, True
        if not was_off:
            logging.getLogger(__name__).warning(
                "the cache in %s is off from now on, and reading goes on without it: %s",
                self.folder,
                str(error).splitlines()[0],
            )

    def _look_through(self, *, coming_bytes: int = 0, remove_unfinished: bool = False) -> None:
        """Sum up what all processes have written, and remove what was used longest ago when that is too much."""
        kept: list[tuple[int, int, str]] = []
        for inner in os.scandir(self.folder):
            if len(inner.name) == 2 and inner.is_dir(follow_symlinks=False):
                for entry in _entries(inner.path):
                    if _NAME.fullmatch(entry.name):
                        kept += _time_and_size(entry)
                    elif remove_unfinished and entry.name.startswith(files.TEMPORARY_PREFIX) and _is_left_over(entry):
                        _remove(entry.path)
        used = sum(size for _, size, _ in kept) + coming_bytes
        if used > _FULL * self.max_bytes:
            for _, size, path in sorted(kept):
                if used <= _ROOMY * self.max_bytes:
                    break
                _remove(path)
                self.counts["evicted"] += 1
                used -= size
        self._used_bytes, self._unseen_bytes = used, 0


def _tail(content: bytes | memoryview, key: str) -> bytes:
    return _TAIL.pack(len(content), zlib.crc32(content, zlib.crc32(key.encode())), _MARK)


def _entries(folder: str) -> list[os.DirEntry]:
    try:
        return list(os.scandir(folder))
    except FileNotFoundError:  # another process or person removed it
        return []


def _time_and_size(entry: os.DirEntry) -> list[tuple[int, int, str]]:
    try:
        about = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return []
    return [(about.st_mtime_ns, about.st_size, entry.path)]


def _is_left_over(entry: os.DirEntry) -> bool:
    """Tell whether nobody writes this unfinished file any more. Its name holds the writer's process id."""
    writer = re.search(r"-(\d+)-[0-9a-f]+\.tmp$", entry.name)
    about = _time_and_size(entry)
    if not writer or not about or about[0][0] / 1e9 < time.time() - _OLD_SECONDS:
        return True
    try:
        os.kill(int(writer[1]), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False  # somebody else's process
    return int(writer[1]) == 0


def _remove(path: str | os.PathLike) -> None:
    with suppress(FileNotFoundError):  # another process was faster
        os.unlink(path)
