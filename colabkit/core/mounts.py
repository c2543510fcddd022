"""Look at a path that may lie on a mount which never answers: a dead Drive or NFS freezes whoever touches it."""

from __future__ import annotations

import errno
import inspect
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PATIENCE_SECONDS = 2.0
# File systems of this machine's own disks and memory; everything else (fuse.*, nfs, cifs, 9p ...) may hang.
_LOCAL = frozenset(
    "apfs aufs bcachefs btrfs devtmpfs exfat ext2 ext3 ext4 f2fs fuse.fuse-overlayfs fuse.lxcfs hfs jfs ntfs "
    "ntfs3 overlay proc ramfs reiserfs rootfs squashfs sysfs tmpfs vfat xfs zfs".split()
)
_MOST_LINKS = 40
_frozen: list[subprocess.Popen] = []


@dataclass(frozen=True, slots=True)
class Look:
    """What was found at a path; `fault` says why it cannot be used, "" if it can or is not there yet."""

    exists: bool = False
    is_folder: bool = False
    can_write: bool = False  # into it, or into the folder it would be made in
    free_bytes: int = 0  # on the disk that holds it or will hold it
    fault: str = ""


def look(path: str | os.PathLike, timeout_seconds: float = PATIENCE_SECONDS, root: str | os.PathLike = "/") -> Look:
    """Look at one path in at most `timeout_seconds`; see `look_at_all`."""
    return look_at_all([path], timeout_seconds, root)[0]


def look_at_all(
    paths: Iterable[str | os.PathLike], timeout_seconds: float = PATIENCE_SECONDS, root: str | os.PathLike = "/"
) -> list[Look]:
    """Look at several paths at once, all together in at most `timeout_seconds`; one that does not answer has a fault.

    A path on a disk of this machine is looked at directly, any other one by a process of its own. A thread would not
    do: one that waits in a frozen mount cannot be killed, and keeps its whole process from ending, after main() too.
    """
    deadline = time.monotonic() + timeout_seconds
    names = [os.path.abspath(path) for path in paths]
    table = mounted(root)
    asked = [_look_of(*_find(name)) if is_local(name, root, table) else _ask(name) for name in names]
    return [found if isinstance(found, Look) else _answer(found, deadline, timeout_seconds) for found in asked]


def is_local(
    path: str | os.PathLike, root: str | os.PathLike = "/", table: list[tuple[str, str]] | None = None
) -> bool:
    """Tell whether a path lies on a disk of this machine, without touching any other.

    False where the system has no table of mounts to ask.
    """
    table = mounted(root) if table is None else table
    return bool(table) and _other_mount(path, table) is None


def other_mount(path: str | os.PathLike, root: str | os.PathLike = "/") -> tuple[str, str] | None:
    """Return (mount point, file system) of the network or user-space mount that a path lies on, without touching it.

    None for a disk of this machine, and where the system has no table of mounts to ask.
    """
    table = mounted(root)
    return _other_mount(path, table) if table else None


def _other_mount(path: str | os.PathLike, table: list[tuple[str, str]]) -> tuple[str, str] | None:
    """Follow a path's links by hand, and stop at the first mount that is not of this machine."""
    rest = list(reversed(Path(os.path.abspath(path)).parts[1:]))
    place, links = "/", 0
    holding = _holding(place, table)
    if holding[1] not in _LOCAL:
        return holding
    while rest:
        part = rest.pop()
        if part == "..":
            place = os.path.dirname(place)
            continue
        inside = os.path.join(place, part)
        holding = _holding(inside, table)
        if holding[1] not in _LOCAL:
            return holding
        try:
            target = os.readlink(inside)  # its folder is local: this cannot hang
        except OSError:
            place = inside  # no link, or nothing there
            continue
        links += 1
        if links > _MOST_LINKS:
            return None  # a loop of links on a local disk: touching it fails at once
        place = "/" if target.startswith("/") else place
        rest += reversed([p for p in target.split("/") if p not in ("", ".")])
    return None


def _holding(place: str, table: list[tuple[str, str]]) -> tuple[str, str]:
    """Return the mount that holds a place: the deepest one; of two at one point the later is on top."""
    holding = [
        (len(point), order)
        for order, (point, _) in enumerate(table)
        if place == point or place.startswith(point.rstrip("/") + "/")
    ]
    return table[max(holding)[1]] if holding else (place, "")


def mounted(root: str | os.PathLike) -> list[tuple[str, str]]:
    """List (mount point, file system) of this process, oldest first; empty where the system does not tell."""
    try:
        lines = Path(root, "proc/self/mounts").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []
    fields = [line.split(" ") for line in lines]
    return [
        (re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), row[1]), row[2]) for row in fields if len(row) > 2
    ]


def _find(path: str) -> tuple[int, ...]:
    """Return (errno, exists, is a folder, can be written, free bytes); the other process runs its source alone."""
    import errno
    import os
    import shutil

    place = path
    try:
        while True:
            try:
                os.stat(place)
                break
            except (FileNotFoundError, NotADirectoryError):  # os.path.exists would call a dead mount missing, too
                place = os.path.dirname(place)
        is_folder = os.path.isdir(place)
        if place != path and not is_folder:
            return errno.ENOTDIR, 0, 0, 0, 0
        can_write = os.access(place, os.W_OK | os.X_OK)
        return 0, int(place == path), int(is_folder), int(can_write), shutil.disk_usage(place).free
    except OSError as error:
        return error.errno or -1, 0, 0, 0, 0


def _script() -> str:
    return f"import sys\n{inspect.getsource(_find)}\nprint(*_find(sys.argv[1]))"


def _ask(path: str) -> subprocess.Popen | Look:
    try:
        # No site, no environment: what they name may lie on the dead mount itself.
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _script(), path],
            stdin=subprocess.DEVNULL,
            cwd="/",
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
    except OSError as error:
        return Look(fault=f"could not be looked at: {error.strerror}")


def _answer(asked: subprocess.Popen, deadline: float, timeout_seconds: float) -> Look:
    try:
        said = asked.communicate(timeout=max(0.01, deadline - time.monotonic()))[0].split()
    except subprocess.TimeoutExpired:
        asked.kill()
        asked.stdout.close()
        _frozen.append(asked)  # never waited for: it ends when the mount answers or is taken away
        return Look(fault=f"no answer within {timeout_seconds:g} seconds")
    return _look_of(*map(int, said)) if len(said) == 5 else Look(fault="could not be looked at")


def _look_of(code: int, exists: int, is_folder: int, can_write: int, free_bytes: int) -> Look:
    if not code:
        return Look(bool(exists), bool(is_folder), bool(can_write), free_bytes)
    reason = os.strerror(code)
    return Look(fault=f"the mount is dead ({reason})" if code in (errno.ENOTCONN, errno.ESTALE) else reason)
