"""Faults of a disk: every OSError turned into one clear error, free space, folder sync."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from colabkit.core.errors import StateError

_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_DENIED = {errno.EACCES, errno.EPERM}
_LOST = {
    getattr(errno, name)
    for name in ("ENOTCONN", "EIO", "ESTALE", "ETIMEDOUT", "ECONNABORTED", "EHOSTDOWN")
    if hasattr(errno, name)
}
# What a network mount says when it is away for a moment: the same call may do a second later.
PASSING = _LOST | {getattr(errno, name) for name in ("EAGAIN", "ECONNRESET", "EREMOTEIO") if hasattr(errno, name)}
RETRY_SECONDS = (0.2, 1.0, 3.0)  # a mount that is away for a moment gets so many more chances
_Result = TypeVar("_Result")
_GONE = {errno.ENOENT, errno.ENOTDIR}
UNSUPPORTED = {
    getattr(errno, name)
    for name in ("ENOSYS", "ENOTSUP", "EOPNOTSUPP", "EINVAL", "ENOLCK", "ENOTTY")
    if hasattr(errno, name)
}


def in_units(num_bytes: float) -> str:
    """Write a byte count for people: '512 bytes', '3.2 MiB', '1.5 GiB'."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if abs(num_bytes) >= size:
            return f"{num_bytes / size:.1f} {unit}"
    return f"{int(num_bytes)} bytes"


def nearest_existing(path: str | os.PathLike) -> Path:
    """Find the closest ancestor of `path` (or itself) that exists; a mount that is dead exists."""
    place = Path(os.path.abspath(path))
    while place != place.parent:
        try:
            os.stat(place)
            break
        except (FileNotFoundError, NotADirectoryError):
            place = place.parent
        except OSError:
            break  # os.path.exists would call it missing, and the disk below it would be meant
    return place


def free_bytes(path: str | os.PathLike) -> int:
    """Count the bytes this user may still write on the disk that holds `path`, which need not exist yet."""
    try:
        return shutil.disk_usage(nearest_existing(path)).free
    except OSError as error:
        raise disk_fault(error, path, "read the free space") from error


def require_free(path: str | os.PathLike, num_bytes: int, doing: str) -> None:
    """Raise StateError before starting `doing` if fewer than `num_bytes` are free where `path` lies."""
    free = free_bytes(path)
    if free < num_bytes:
        raise StateError(
            f"Cannot {doing}: too little free disk",
            got=f"{in_units(free)} free",
            expected=f"at least {in_units(num_bytes)}",
            where=path,
            fix=_make_room(path, num_bytes - free),
        )


def sync_folder(path: str | os.PathLike) -> None:
    """Make renames and new names in a folder durable; does nothing where folders cannot be synced."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError as error:
        if os.name == "nt" or error.errno in UNSUPPORTED:
            return
        raise disk_fault(error, path, "make a folder durable") from error
    try:
        os.fsync(handle)
    except OSError as error:
        # Folders on some FUSE and network mounts have no fsync (EINVAL, EBADF): nothing to wait for there.
        if error.errno not in UNSUPPORTED | {errno.EBADF}:
            raise disk_fault(error, path, "make a folder durable") from error
    finally:
        os.close(handle)


def disk_fault(error: OSError, path: str | os.PathLike, doing: str, needed_bytes: int | None = None) -> StateError:
    """Turn an OSError into the StateError a user can act on; raise it `from error`.

    `doing` continues "Cannot ...", e.g. "write the ledger". The result carries `.errno`.
    """
    code = error.errno
    got: str | None = None
    expected = ""
    if code in _FULL:
        reason, got = "the disk or its quota is full", _free_or_unknown(path)
        expected = f"{in_units(needed_bytes)} of room" if needed_bytes else ""
        fix = _make_room(path, needed_bytes)
    elif code == errno.EROFS:
        reason = "the file system is read-only"
        fix = "choose a folder you can write: --state /another/folder (or set COLABKIT_STATE)"
    elif code in _DENIED:
        reason = "permission denied"
        fix = (
            f"give yourself the right: chmod -R u+rwX '{nearest_existing(path)}'; "
            "or choose another folder: --state /another/folder"
        )
    elif code in _LOST:
        reason = f"the disk or mounted folder does not answer ({error.strerror})"
        fix = (
            "if this is Google Drive: from google.colab import drive; drive.mount('/content/drive', "
            "force_remount=True), else check the mount; then run the same command again"
        )
    elif code in _GONE:
        reason = "the file or its folder is not there"
        fix = (
            f"check that '{nearest_existing(path)}' is the folder you mean and that its disk or Drive is "
            "mounted, then run the same command again"
        )
    elif code == errno.ENAMETOOLONG:
        reason, fix = "the name is too long", "choose a shorter name, or a shorter state folder: --state /s"
    elif code in {errno.EMFILE, errno.ENFILE}:
        reason, fix = "too many open files", "raise the limit (ulimit -n 4096) or use fewer workers"
    elif code in {errno.EEXIST, errno.EISDIR, errno.ENOTEMPTY}:
        reason, fix = "something else has this name", f"move it away: mv '{path}' '{path}.moved'"
    else:
        reason = error.strerror or str(error) or type(error).__name__
        fix = "run `colabkit check` to see the state folder and its disk, then run the same command again"
    fault = StateError(f"Cannot {doing}: {reason}", got=got, expected=expected, where=path, fix=fix)
    fault.errno = code
    return fault


def patiently(act: Callable[[], _Result]) -> _Result:
    """Do what can be done twice, again after a moment where a mount was away; then its error is raised."""
    for pause in (*RETRY_SECONDS, None):
        try:
            return act()
        except (OSError, StateError) as error:
            if pause is None or getattr(error, "errno", None) not in PASSING:
                raise
            time.sleep(pause)
    raise AssertionError("the last try returns or raises")


@contextmanager
def faults_told(path: str | os.PathLike, doing: str) -> Iterator[None]:
    """Turn an OSError of the system into the StateError a user can act on; libraries raise it for other faults, too."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise disk_fault(error, error.filename or path, doing) from error


def _make_room(path: str | os.PathLike, num_bytes: int | None) -> str:
    room = f"free {in_units(max(1, num_bytes))}" if num_bytes else "make room"
    return (
        f"{room} on the disk of '{nearest_existing(path)}' (on Google Drive empty the trash too) "
        "or choose another folder: --state /another/folder"
    )


def _free_or_unknown(path: str | os.PathLike) -> str:
    try:
        return f"{in_units(shutil.disk_usage(nearest_existing(path)).free)} free"
    except OSError:
        return "an unknown amount free"
