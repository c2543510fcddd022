"""The medium of a state folder: a plain disk, or a mounted Drive that lags, fails and takes its time to upload.

All that generations are kept with goes through these few operations, so that a test can put a failing Drive in their
place.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from colabkit.core import files, mounts
from colabkit.core.errors import StateError

CHUNK_BYTES = 4 << 20
# What a network mount says when it is away, busy or over its quota; the same call may do a minute later.
AWAY = {
    getattr(errno, name)
    for name in (
        "EIO",
        "ENOTCONN",
        "EOPNOTSUPP",
        "ETIMEDOUT",
        "ESTALE",
        "ECONNABORTED",
        "ECONNRESET",
        "EHOSTDOWN",
        "EAGAIN",
        "ENOENT",
        "EBUSY",
        "ENOSPC",
        "EDQUOT",
        "EFBIG",
        "EREMOTEIO",
    )
    if hasattr(errno, name)
}
_NOT_UPLOADED = b"local-"  # what Drive for desktop calls a file that it has not given a name of its own yet
PATIENCE_SECONDS = 300.0
_ASK_SECONDS = 2.0


@contextmanager
def _fault_itself() -> Iterator[None]:
    """Raise the OSError that a told error stands for: whether to wait for a medium is decided by its number."""
    try:
        yield
    except StateError as error:
        if isinstance(error.__cause__, OSError):
            raise error.__cause__ from None
        raise


class Medium:
    """A plain disk of this machine. Paths are absolute; faults are OSError."""

    name = "the disk"
    is_remote = False

    def names(self, folder: Path) -> list[str]:
        """List a folder; a folder that is not there is empty."""
        try:
            return sorted(os.listdir(folder))
        except FileNotFoundError:
            return []

    def make_folder(self, folder: Path) -> None:
        """Make a new folder, and the one it lies in; never more, which could build a shadow of an unmounted Drive."""
        if not folder.parent.is_dir():
            folder.parent.mkdir(exist_ok=True)
        folder.mkdir()
        with _fault_itself():
            files.sync_folder(folder.parent)

    def write(self, path: Path, chunks: Iterable[bytes | memoryview]) -> tuple[int, str]:
        """Write a new file to the end and onto the disk; returns its size and SHA-256 (hex)."""
        digest, size = hashlib.sha256(), 0
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            for chunk in chunks:
                view = memoryview(chunk).cast("B")
                digest.update(view)
                size += len(view)
                while len(view):
                    view = view[os.write(handle, view[:CHUNK_BYTES]) :]
            files.sync_file(handle)
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # network file systems report a failed upload here: it must count
        return size, digest.hexdigest()

    def overwrite(self, path: Path, data: bytes) -> None:
        """Put a few bytes in place of those of a file: no second file, nothing for a trash."""
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            os.write(handle, data)
        finally:
            os.close(handle)

    def chunks(self, path: Path) -> Iterator[bytes]:
        """Read a file from its medium, not from memory where that can be told."""
        with open(path, "rb", buffering=0) as opened:
            if hasattr(os, "posix_fadvise"):
                with suppress(OSError):  # advice: a mount that takes none still gives the bytes
                    os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            while chunk := opened.read(CHUNK_BYTES):
                yield chunk

    def read(self, path: Path) -> bytes:
        return b"".join(self.chunks(path))

    def remove(self, folder: Path) -> None:
        """Remove a folder, its files emptied first: a trash then keeps nothing of them."""
        with _fault_itself():
            files.remove_generation(folder)

    def free_bytes(self, folder: Path) -> int:
        with _fault_itself():
            return files.free_bytes(folder)

    def is_uploaded(self, path: Path) -> bool:
        """Tell whether a file would outlive this machine, as far as that can be known."""
        return True


class MountedDrive(Medium):
    """Google Drive or another network mount."""

    is_remote = True

    def __init__(self, name: str = "Google Drive"):
        self.name = name

    def is_uploaded(self, path: Path) -> bool:
        try:
            return not os.getxattr(path, "user.drive.id").startswith(_NOT_UPLOADED)
        except (OSError, AttributeError):
            return True  # not Drive for desktop, or a system without attributes: read-back has to do


def medium_of(path: str | os.PathLike, root: str | os.PathLike = "/") -> Medium:
    """Tell what `path` lies on, by the table of mounts; never touches `path` itself, which may hang."""
    found = mounts.other_mount(path, root)
    if found is None:
        return Medium()
    point, kind = found
    return MountedDrive("Google Drive" if "drive" in point.lower() + kind else f"the {kind} mount {point}")


def wait_for_uploads(
    medium: Medium,
    paths: Iterable[Path],
    *,
    say: Callable[[str], object] = print,
    patience_seconds: float = PATIENCE_SECONDS,
    ask_seconds: float = _ASK_SECONDS,
) -> list[Path]:
    """Wait until every file would outlive this machine, at most so long; returns those that would not yet."""
    waiting = [path for path in paths if not medium.is_uploaded(path)] if medium.is_remote else []
    if not waiting:
        return []
    say(f"{medium.name} is still taking {len(waiting)} files; waiting for it, at most {patience_seconds / 60:.0f} min")
    end = time.monotonic() + patience_seconds
    while waiting and time.monotonic() < end:
        time.sleep(ask_seconds)
        waiting = [path for path in waiting if not medium.is_uploaded(path)]
    if waiting:
        say(
            f"WARNING {medium.name} has not taken {len(waiting)} files yet, such as {waiting[0]}: keep this machine "
            "until it has, or run flush_and_unmount of google.colab.drive"
        )
    else:
        say(f"{medium.name} has taken everything")
    return waiting
