"""A local folder as a place: read by many threads at once; written whole, with true conditional puts between processes."""

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

from colabkit.core.disk import disk_fault, patiently
from colabkit.core.errors import ColabkitError, DataError, StateError, UsageError
from colabkit.core.files import TEMPORARY_PREFIX, path_hint
from colabkit.io.places.http.client import Listed, StoredObject
from colabkit.io.places.http.links import changed
from colabkit.io.places.http.patience import Patience
from colabkit.io.places.http.per_process import PerProcess
from colabkit.io.places.names import absent, check_name, check_range, is_listed, joined, other_version, shorter
from colabkit.io.places.place import is_hidden, taken

_MOST_OPEN_FILES = 128
_DEADLINE_SECONDS = 30.0
_SHAKY = {getattr(errno, name) for name in ("EIO", "ESTALE", "ETIMEDOUT", "ENOTCONN", "EAGAIN") if hasattr(errno, name)}
_BLOCK_BYTES = 1 << 20
_LOCK = f"{TEMPORARY_PREFIX}lock"  # beside the objects of a folder, held while one of them is compared and replaced
_NOT_THERE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
T = TypeVar("T")


class _OpenFile:
    """A descriptor that closes when the last reader lets go of it, so that none reads another file through its number."""

    __slots__ = ("handle", "__weakref__")

    def __init__(self, path: Path):
        self.handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))

    def __del__(self):
        if hasattr(self, "handle"):
            os.close(self.handle)


class _OpenFiles:
    """The files of one process that are kept open, the ones used last."""

    def __init__(self):
        self.files: OrderedDict[str, _OpenFile] = OrderedDict()
        self.lock = threading.Lock()


class LocalStore:
    """A folder. Links are followed; hidden files and unfinished ones are left out."""

    def __init__(self, folder: str | os.PathLike):
        path = Path(os.path.expanduser(folder))
        if not path.is_dir():
            raise _no_folder(path, os.fspath(folder))
        self.root = Path(os.path.realpath(path))
        self.address = os.fspath(self.root)
        self._versions: dict[str, str] = {}
        self._open = PerProcess(_OpenFiles)

    def __repr__(self) -> str:
        return f"LocalStore({self.address!r})"

    def list(self) -> list[StoredObject]:
        """Return all files below the folder, sorted by name. Raises: DataError for a folder or name that cannot be read."""
        found = sorted(_walk_files(self.root, "", ()), key=lambda o: o.name)
        self._versions = {o.name: o.version for o in found}
        return found

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        """Return bytes start..stop of a file, or to its end. Raises: DataError when it vanished, shrank or changed."""
        if start < 0 or (stop is not None and stop < start):
            raise ValueError(f"{name}: there is no range {start}..{stop}")
        patience = Patience(_DEADLINE_SECONDS, cap_seconds=5.0)  # mounted folders (Drive, NFS) fail now and then
        while True:
            try:
                return self._read(name, start, stop)
            except OSError as error:
                with self._open.get().lock:
                    self._open.get().files.pop(name, None)
                if error.errno not in _SHAKY:
                    raise _cannot_read(error, self.root / name) from error
                patience.wait(f"{type(error).__name__} ({error.strerror})", os.fspath(self.root / name))

    def close(self) -> None:
        """Close the open files; a later read opens them again."""
        self._open.drop()

    def _read(self, name: str, start: int, stop: int | None) -> bytes:
        opened = self._opened(name)
        if stop is None:
            stop = max(start, os.fstat(opened.handle).st_size)
        content = os.pread(opened.handle, stop - start, start)
        while len(content) < stop - start:  # a read may bring less, and 2 GiB at most
            more = os.pread(opened.handle, stop - start - len(content), start + len(content))
            if not more:
                raise DataError("The data is shorter than the index says", got=f"{os.fstat(opened.handle).st_size} bytes",
                                expected=f"at least {stop} bytes", where=self.root / name,
                                fix="it changed, or was cut, after it was indexed: index the data again")
            content += more
        return content

    def _opened(self, name: str) -> _OpenFile:
        ours = self._open.get()
        with ours.lock:
            found = ours.files.get(name)
            if found:
                ours.files.move_to_end(name)
                return found
        if ".." in name.split("/") or os.path.isabs(name):
            raise UsageError("This name leads out of the folder", got=name, where=self.root, fix="index the data again")
        opened = _OpenFile(self.root / name)
        now, then = _version(os.fstat(opened.handle)), self._versions.get(name)
        if then not in (None, now):
            raise changed(os.fspath(self.root / name), f"size and time {now}", then)
        with ours.lock:
            ours.files[name] = opened
            if len(ours.files) > _MOST_OPEN_FILES:
                ours.files.popitem(last=False)
        return opened


def _walk_files(folder: Path, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[StoredObject]:
    """Yield the files of a folder and those below it; a link back to a folder above is not followed."""
    try:
        found = os.stat(folder)
        if (found.st_dev, found.st_ino) in above:
            return
        above = (*above, (found.st_dev, found.st_ino))
        with os.scandir(folder) as entries:
            for entry in entries:
                if not is_hidden(entry.name):
                    yield from _visit(entry, prefix + entry.name, above)
    except OSError as error:
        raise _cannot_read(error, Path(error.filename or folder)) from error


def _visit(entry: os.DirEntry, name: str, above: tuple[tuple[int, int], ...]) -> Iterator[StoredObject]:
    try:
        about = entry.stat()
    except FileNotFoundError:
        logging.getLogger(__name__).warning("%s is a link that leads nowhere, or was just removed: left out", entry.path)
        return
    if stat.S_ISDIR(about.st_mode):
        yield from _walk_files(Path(entry.path), name + "/", above)
    elif stat.S_ISREG(about.st_mode):
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise DataError("A file's name is not valid UTF-8", got=os.fsencode(name), where=os.path.dirname(entry.path),
                            fix="rename it, for example with convmv -f latin1 -t utf8 --notest") from error
        yield StoredObject(name, about.st_size, _version(about))


def _cannot_read(error: OSError, path: Path) -> DataError:
    gone = error.errno in (errno.ENOENT, errno.ENOTDIR)
    fixes = {errno.EACCES: f"give yourself the right to read: chmod -R u+rX '{path}'",
             errno.EMFILE: "raise the limit: ulimit -n 4096"}
    return DataError("The data vanished: it was there when it was indexed" if gone else "Cannot read the data",
                     got=error.strerror or type(error).__name__, where=path,
                     fix="put it back or mount its disk again, or index the data again" if gone else
                     fixes.get(error.errno, "check the disk or mount, then run the same command again"))


def _no_folder(path: Path, given: str) -> UsageError:
    if path.exists():
        return UsageError("The address is a file, not a folder", got=given, fix=f"give the folder that holds it: {path.parent}")
    fix = path_hint(path)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", given):
        fix += f"; for a dataset of the Hub write hub:{given}"
    return UsageError("There is no such folder", got=given, fix=fix)


class FolderObjects:
    """Objects in a folder, which is made with the first object.

    A put is a temporary file that takes its place at once: readers see the old object or the new one, never a part. The
    version of an object is its size and time as LocalStore tells it; each put has a time of its own, to the nanosecond.
    """

    def __init__(self, folder: str | os.PathLike):
        self.root = Path(os.path.realpath(os.path.expanduser(folder)))
        self.address = os.fspath(self.root)
        if self.root.exists() and not self.root.is_dir():
            raise UsageError("This is a file, no folder for objects", got=self.address, fix="give the folder that holds it")

    def __repr__(self) -> str:
        return f"FolderObjects({self.address!r})"

    def below(self, prefix: str) -> FolderObjects:
        """Return the objects below a prefix of these."""
        return FolderObjects(self.root / joined("", prefix)) if prefix.strip("/") else self

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Yield the files below a prefix, sorted as buckets sort them; links are followed, hidden files left out."""
        return (StoredObject(found.name, found.size, found.version) for found in self.scan(prefix))

    def scan(self, prefix: str = "") -> Iterator[Listed]:
        """Yield what `list` yields, with the times of writing."""
        prefix = joined("", prefix)
        start = self.root / prefix
        for name, found in self._told(lambda: _walk(start, f"{prefix}/" if prefix else ""), prefix or "."):
            if is_listed(name, prefix):
                yield Listed(name, found.st_size, _version(found), found.st_mtime)

    def find(self, name: str) -> StoredObject | None:
        """Return size and version of an object, None when it is not there."""
        path = self._path(name)

        def look() -> StoredObject | None:
            try:
                found = os.stat(path)
            except _NOT_THERE:
                return None
            return StoredObject(name, found.st_size, _version(found)) if stat.S_ISREG(found.st_mode) else None
        return self._told(look, name)

    def get(self, name: str, start: int = 0, stop: int | None = None, *, version: str = "") -> bytes:
        """Return bytes start..stop. Raises: DataError when it is not there or shorter, ChangedError on another version."""
        check_range(name, start, stop)
        path = self._path(name)

        def read() -> bytes | None:
            try:
                with open(path, "rb") as file:
                    is_now = _version(os.fstat(file.fileno()))
                    if version and is_now != version:
                        raise other_version(name, self.address, is_now, version)
                    file.seek(start)
                    return file.read() if stop is None else file.read(stop - start)
            except _NOT_THERE:
                return None
        content = self._told(read, name)
        if content is None:
            raise absent(name, self.address)
        if stop is not None and len(content) != stop - start:
            raise shorter(name, self.address, start + len(content), stop)
        return content

    def get_if_there(self, name: str) -> tuple[bytes, str] | None:
        """Return content and version, None when it is not there."""
        path = self._path(name)

        def read() -> tuple[bytes, str] | None:
            try:
                with open(path, "rb") as file:
                    return file.read(), _version(os.fstat(file.fileno()))
            except _NOT_THERE:
                return None
        return self._told(read, name)

    def put(self, name: str, content: bytes | Path, *, only_if_absent: bool = False, only_if_version: str = "") -> str:
        """Write an object whole and return its version. Raises: Taken, StateError."""
        path = self._path(name)
        write = _put_if_absent if only_if_absent else _put_over
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
        self._told(lambda: path.unlink(missing_ok=True), name)
        if path.parent.name.startswith(TEMPORARY_PREFIX):  # a folder for trying things out: nothing of it stays
            self._told(lambda: _remove_if_empty(path.parent), name)

    def _path(self, name: str) -> Path:
        return self.root / check_name(name, self.address)

    def _told(self, act: Callable[[], T], name: str) -> T:
        try:
            return patiently(act)
        except ColabkitError:
            raise
        except OSError as error:
            raise disk_fault(error, error.filename or self.root, f"read {name}") from error


def _walk(folder: Path, prefix: str, above: tuple = ()) -> Iterator[tuple[str, os.stat_result]]:
    try:
        found = os.stat(folder)
        with os.scandir(folder) as entries:
            names = sorted((entry.name + "/" * entry.is_dir(), entry) for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return
    identity = (found.st_dev, found.st_ino)
    if identity in above:  # a link back up: its files are listed already
        return
    for name, entry in names:
        if name.endswith("/"):
            yield from _walk(Path(entry.path), prefix + name, (*above, identity))
            continue
        try:
            about = entry.stat()
        except FileNotFoundError:
            continue  # removed since
        if stat.S_ISREG(about.st_mode):
            yield prefix + name, about


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
        os.utime(file.fileno(), ns=(now, now))  # the system's own times are milliseconds apart: two puts could have the same
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


def _put_over(partial: Path, path: Path) -> None:
    os.replace(partial, path)


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
            raise StateError("Objects of a folder cannot be replaced by their version on this system", where=path.parent,
                             expected="file locks", fix="use a folder on Linux or macOS, or a bucket")
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _version(found: os.stat_result) -> str:
    return f"{found.st_size}-{found.st_mtime_ns}"
