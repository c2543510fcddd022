"""A folder as a store: files kept open, read at their place by many threads at once."""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from colabkit.core.errors import DataError, UsageError
from colabkit.io.audio_source import path_hint
from colabkit.io.stores.links import changed
from colabkit.io.stores.patience import Patience
from colabkit.io.stores.per_process import PerProcess
from colabkit.io.stores.store import StoredObject, is_hidden

_MOST_OPEN_FILES = 128
_DEADLINE_SECONDS = 30.0
_SHAKY = {getattr(errno, name) for name in ("EIO", "ESTALE", "ETIMEDOUT", "ENOTCONN", "EAGAIN") if hasattr(errno, name)}


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
        found = sorted(_walk(self.root, "", ()), key=lambda o: o.name)
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


def _walk(folder: Path, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[StoredObject]:
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
        yield from _walk(Path(entry.path), name + "/", above)
    elif stat.S_ISREG(about.st_mode):
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise DataError("A file's name is not valid UTF-8", got=os.fsencode(name), where=os.path.dirname(entry.path),
                            fix="rename it, for example with convmv -f latin1 -t utf8 --notest") from error
        yield StoredObject(name, about.st_size, _version(about))


def _version(about: os.stat_result) -> str:
    return f"{about.st_size}-{about.st_mtime_ns}"


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
