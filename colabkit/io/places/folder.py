"""A local folder as a place: read by many threads at once; written whole, conditional puts hold between processes."""

from __future__ import annotations

import errno
import logging
import os
import re
import secrets
import shutil
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None

from colabkit.core.disk import PASSING, disk_fault, patiently
from colabkit.core.errors import DataError, StateError, UsageError
from colabkit.core.files import TEMPORARY_PREFIX, path_hint
from colabkit.io.places.http.patience import Patience, Unreachable
from colabkit.io.places.http.per_process import PerProcess
from colabkit.io.places.names import check_name, check_range, is_hidden, is_listed, joined, other_version
from colabkit.io.places.place import Found, Place, StoredObject, taken

_MOST_OPEN_FILES = 128
_DEADLINE_SECONDS = 30.0
_BLOCK_BYTES = 1 << 20
_LOCK = f"{TEMPORARY_PREFIX}lock"  # beside the objects of a folder, held while one of them is compared and replaced
_NOT_THERE = (FileNotFoundError, NotADirectoryError)
T = TypeVar("T")


class Folder(Place):
    """Objects in a folder, which is made with the first of them. Links are followed; what is hidden is left out.

    A put is a temporary file that takes its place at once: readers see the old object or the new one, never a part. The
    version of an object is its size and time; each put has a time of its own, to the nanosecond. With `keeps_open`,
    files that are read by their version stay open until `close`, the ones used last: on a mounted disk opening is slow.
    """

    def __init__(self, folder: str | os.PathLike, *, keeps_open: bool = False):
        self._given = os.fspath(folder)
        self.root = Path(os.path.realpath(os.path.expanduser(folder)))
        self.address = os.fspath(self.root)
        if self.root.exists() and not self.root.is_dir():
            raise UsageError(
                "The address is a file, not a folder",
                got=self._given,
                fix=f"give the folder that holds it: {self.root.parent}",
            )
        self._keeps_open, self._open = keeps_open, PerProcess(_OpenFiles)

    def below(self, prefix: str) -> Folder:
        """Return what is below a prefix."""
        return Folder(self.root / joined("", prefix)) if prefix.strip("/") else self

    def must_exist(self) -> None:
        """Look whether there is such a folder. Raises: UsageError."""
        if self.root.is_dir():
            return
        fix = path_hint(Path(os.path.expanduser(self._given)))
        if re.fullmatch(r"[\w.-]+/[\w.-]+", self._given):
            fix += f"; for a dataset of the Hub write hub:{self._given}"
        raise UsageError("There is no such folder", got=self._given, fix=fix)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Yield the files below a prefix, sorted as buckets sort them.

        Raises: DataError for a name that cannot be told.
        """
        prefix = joined("", prefix)
        for name, found in self._walk(os.path.join(self.address, prefix), f"{prefix}/" if prefix else ""):
            if is_listed(name, prefix):
                yield StoredObject(name, found.st_size, _version(found), found.st_mtime)

    def find(self, name: str) -> StoredObject | None:
        """Return size and version of an object, None when it is not there."""
        found = self._read(os.stat, name)
        return StoredObject(name, found.st_size, _version(found)) if found and stat.S_ISREG(found.st_mode) else None

    def get_if_there(self, name: str, start: int = 0, stop: int | None = None, *, version: str = "") -> Found | None:
        """Return bytes start..stop and their version, None when it is not there. Raises: ChangedError."""
        check_range(name, start, stop)

        def read(path: str) -> Found:
            opened = self._open.get().file(path, version) if version and self._keeps_open else _OpenFile(path)
            if version not in ("", opened.version):
                raise other_version(name, self.address, opened.version, version)
            return Found(opened.between(start, stop), opened.version)

        return self._read(read, name)

    def put(self, name: str, content: bytes | Path, *, only_if_absent: bool = False, only_if_version: str = "") -> str:
        """Write an object whole and return its version. Raises: Taken, StateError."""
        path = self._path(name)
        write = _put_if_absent if only_if_absent else os.replace
        if only_if_version:

            def write(partial: Path, path: Path) -> None:
                with _locked(path.parent / _LOCK):
                    if _version(os.stat(path)) != only_if_version:
                        raise FileExistsError(errno.EEXIST, "another version", os.fspath(path))
                    os.replace(partial, path)

        def put() -> str:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f"{TEMPORARY_PREFIX}{path.name[:40]}-{os.getpid()}-{secrets.token_hex(4)}.tmp")
            try:
                version = _write(partial, content)
                write(partial, path)
            finally:
                partial.unlink(missing_ok=True)
            return version

        try:
            return patiently(put)
        except FileExistsError:
            if only_if_absent or only_if_version:
                raise taken(name, self.address, absent=only_if_absent) from None
            raise
        except OSError as error:
            if only_if_version and isinstance(error, FileNotFoundError) and not path.exists():
                raise taken(name, self.address, absent=False) from None
            at_source = isinstance(content, Path) and error.filename == os.fspath(content)
            doing = f"read {content}" if at_source else f"write {name}"
            raise disk_fault(error, content if at_source else path, doing) from error

    def delete(self, name: str) -> None:
        """Remove an object; one that is not there is none."""
        path = self._path(name)
        try:
            patiently(lambda: path.unlink(missing_ok=True))
            if path.parent.name.startswith(TEMPORARY_PREFIX):  # a folder for trying things out: nothing of it stays
                patiently(lambda: _remove_if_empty(path.parent))
        except OSError as error:
            raise disk_fault(error, path, f"remove {name}") from error

    def close(self) -> None:
        """Close the files that are kept open; a later read opens them again."""
        self._open.drop()

    def _path(self, name: str) -> Path:
        return self.root / check_name(name, self.address)

    def _read(self, act: Callable[[str], T], name: str) -> T | None:
        """Read of a file; None where there is no such file. Raises: Unreachable."""
        path = f"{self.address}/{check_name(name, self.address)}"
        try:
            return self._told(act, path)
        except _NOT_THERE:
            return None

    def _told(self, act: Callable[[str], T], path: str) -> T:
        """Read, again where a mount is away for a moment.

        Raises: Unreachable, FileNotFoundError, NotADirectoryError.
        """
        patience = None
        while True:
            try:
                return act(path)
            except _NOT_THERE:
                raise
            except OSError as error:
                self._open.get().forget(path)
                if error.errno not in PASSING:
                    raise _cannot_read(error, path) from error
                cause = f"{type(error).__name__} ({error.strerror})"
            # Mounted folders (Drive, NFS) fail now and then.
            patience = patience or Patience(_DEADLINE_SECONDS, cap_seconds=5.0)
            patience.wait(cause, path)

    def _walk(
        self, folder: str, prefix: str, above: tuple[tuple[int, int], ...] = ()
    ) -> Iterator[tuple[str, os.stat_result]]:
        """Yield the files of a folder and those below it; a link back to a folder above is not followed."""

        def look(path: str) -> tuple[os.stat_result, list[tuple[str, os.DirEntry]]]:
            with os.scandir(path) as entries:
                return os.stat(path), sorted(
                    (entry.name + "/" * entry.is_dir(), entry) for entry in entries if not is_hidden(entry.name)
                )

        try:
            found, names = self._told(look, folder)
        except _NOT_THERE:
            return
        identity = (found.st_dev, found.st_ino)
        if identity in above:
            return
        for name, entry in names:
            if name.endswith("/"):
                yield from self._walk(entry.path, prefix + name, (*above, identity))
            elif about := self._about(entry):
                yield _readable(prefix + name, entry), about

    def _about(self, entry: os.DirEntry) -> os.stat_result | None:
        """Return what a listing tells of a file; None for what is none."""
        try:
            about = self._told(lambda _: entry.stat(), entry.path)
        except _NOT_THERE:
            logging.getLogger(__name__).warning(
                "%s is a link that leads nowhere, or was just removed: left out", entry.path
            )
            return None
        return about if stat.S_ISREG(about.st_mode) else None


class _OpenFile:
    """A descriptor that closes when its last reader lets go, so that none reads another file through its number."""

    __slots__ = ("handle", "version", "__weakref__")

    def __init__(self, path: str):
        self.handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
        about = os.fstat(self.handle)
        if stat.S_ISDIR(about.st_mode):
            raise FileNotFoundError(errno.ENOENT, "a folder", path)
        self.version = _version(about)

    def __del__(self):
        if hasattr(self, "handle"):
            os.close(self.handle)

    def between(self, start: int, stop: int | None) -> bytes:
        """Return bytes start..stop, fewer where the file ends before."""
        if stop is None:
            stop = max(start, os.fstat(self.handle).st_size)
        content = os.pread(self.handle, stop - start, start)
        while len(content) < stop - start:  # a read may bring less, and 2 GiB at most
            more = os.pread(self.handle, stop - start - len(content), start + len(content))
            if not more:
                break
            content += more
        return content


class _OpenFiles:
    """The files of one process that are kept open, the ones used last."""

    def __init__(self):
        self._files: OrderedDict[str, _OpenFile] = OrderedDict()
        self._lock = threading.Lock()

    def file(self, path: str, version: str) -> _OpenFile:
        """Return a file; the one that is kept only where it is of this version and lies there still.

        Raises: OSError.
        """
        with self._lock:
            if kept := self._files.get(path):
                self._files.move_to_end(path)
        if kept and kept.version == version == _version(os.stat(path)):
            return kept
        opened = _OpenFile(path)
        if opened.version == version:
            with self._lock:
                self._files[path] = opened
                if len(self._files) > _MOST_OPEN_FILES:
                    self._files.popitem(last=False)
        return opened

    def forget(self, path: str) -> None:
        """Keep a file open no longer."""
        with self._lock:
            self._files.pop(path, None)


def _readable(name: str, entry: os.DirEntry) -> str:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            "A file's name is not valid UTF-8",
            got=os.fsencode(name),
            where=os.path.dirname(entry.path),
            fix="rename it, for example with convmv -f latin1 -t utf8 --notest",
        ) from error
    return name


def _cannot_read(error: OSError, path: str) -> Unreachable:
    fixes = {
        errno.EACCES: f"give yourself the right to read: chmod -R u+rX '{path}'",
        errno.EMFILE: "raise the limit: ulimit -n 4096",
    }
    return Unreachable(
        "Cannot read the data",
        got=error.strerror or type(error).__name__,
        where=path,
        fix=fixes.get(error.errno, "check the disk or mount, then run the same command again"),
    )


def _write(partial: Path, content: bytes | Path) -> str:
    """Write a new file onto its disk and return its version."""
    with open(partial, "xb") as file:
        if isinstance(content, Path):
            with open(content, "rb") as source:
                shutil.copyfileobj(source, file, _BLOCK_BYTES)
        else:
            file.write(content)
        file.flush()
        now = time.time_ns()
        # the system's own times are milliseconds apart: two puts could have the same
        os.utime(file.fileno(), ns=(now, now))
        os.fsync(file.fileno())
        return _version(os.fstat(file.fileno()))


def _remove_if_empty(folder: Path) -> None:
    try:
        if {entry.name for entry in os.scandir(folder)} <= {_LOCK}:
            (folder / _LOCK).unlink(missing_ok=True)
            folder.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
            raise


def _put_if_absent(partial: Path, path: Path) -> None:
    """Give a file its name unless there is one: a hard link is made by one process alone."""
    try:
        os.link(partial, path)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
        with _locked(path.parent / _LOCK):  # a disk without hard links, such as a mounted Drive
            if path.exists():
                raise FileExistsError(errno.EEXIST, "there already", os.fspath(path)) from None
            os.replace(partial, path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock file; it ends with the process that holds it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        if fcntl is None:
            raise StateError(
                "Objects of a folder cannot be replaced by their version on this system",
                where=path.parent,
                expected="file locks",
                fix="use a folder on Linux or macOS, or a bucket",
            )
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _version(found: os.stat_result) -> str:
    return f"{found.st_size}-{found.st_mtime_ns}"
