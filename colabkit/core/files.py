"""Files that survive crashes: atomic writes, JSON, fingerprints, removal that leaves no full trash behind."""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import math
import os
import secrets
import shlex
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from colabkit.core.disk import UNSUPPORTED, disk_fault, free_bytes, in_units, patiently, require_free, sync_folder
from colabkit.core.errors import DataError, StateError

__all__ = [
    "TEMPORARY_PREFIX",
    "disk_fault",
    "fingerprint",
    "free_bytes",
    "in_units",
    "plain",
    "quick_fingerprint",
    "read_json",
    "remove_generation",
    "require_free",
    "sha256_file",
    "sync_folder",
    "write_atomic",
    "write_json",
]

TEMPORARY_PREFIX = ".colabkit-"  # files and folders named so are ours and unfinished: never part of a result
_DROPPINGS = {".DS_Store", ".ipynb_checkpoints", "Thumbs.db", "desktop.ini"}  # made by looking
_QUICK_BYTES = 64 << 10
_BINARY = getattr(os, "O_BINARY", 0)


def path_hint(path: str | os.PathLike) -> str:
    """Say how to mend a path that does not exist."""
    parent, name = os.path.split(os.path.abspath(path))
    if not os.path.isdir(parent):
        return f"check the path: there is no folder {parent}"
    close = difflib.get_close_matches(name, os.listdir(parent), n=1)
    if close:
        return f"check the path; did you mean {close[0]!r}?"
    return f"check the path: {parent} has no such entry"


def write_atomic(path: str | os.PathLike, data: bytes | str, *, durable: bool = True) -> None:
    """Write a whole file or leave the old one: readers and crashes see one of the two, never a part.

    `durable` waits until the bytes and the name are on the disk. A symlink stays and its target is replaced.
    The folder must exist: creating it could build a shadow of an unmounted Drive. Raises StateError.
    """
    path = Path(os.path.realpath(path))
    payload = memoryview(data.encode("utf-8") if isinstance(data, str) else data).cast("B")
    try:
        patiently(lambda: _replace(path, payload, durable))
    except OSError as error:
        raise disk_fault(error, path, f"write {path.name}", needed_bytes=len(payload)) from error
    if durable:
        sync_folder(path.parent)


def _replace(path: Path, payload: memoryview, durable: bool) -> None:
    # 40 characters keep the longest temporary name under the usual 255 bytes.
    partial = path.with_name(f"{TEMPORARY_PREFIX}{path.name[:40]}-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        _write_new(partial, payload, durable)
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):  # the first error is the one to tell; the name marks the file as temporary
            os.unlink(partial)
        raise


def _write_new(path: Path, payload: memoryview, durable: bool) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
    try:
        done = 0
        while done < len(payload):
            done += os.write(handle, payload[done:])
        if durable:
            sync_file(handle)
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)  # network file systems report a failed upload here: it must count


def sync_file(handle: int) -> None:
    """Bring an open file onto its disk, where the disk knows how to."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


def write_json(path: str | os.PathLike, obj: object, *, durable: bool = True) -> None:
    """Write JSON atomically, in insertion order; NaN and infinities become null, which JSON can hold."""
    text = json.dumps(plain(obj), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomic(path, text + "\n", durable=durable)


def plain(value: object) -> object:
    """Return a value as it comes back from a JSON file of ours."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if not isinstance(value, (str, bytes, int, float)) and callable(getattr(value, "item", None)):
        value = value.item()  # a NumPy or torch scalar
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def read_json(path: str | os.PathLike) -> object:
    """Read a JSON file; raises StateError naming the file when it is missing, cut or corrupt."""
    try:
        raw = patiently(Path(path).read_bytes)
    except OSError as error:
        raise disk_fault(error, path, f"read {Path(path).name}") from error
    try:
        return json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        name = os.fspath(path)
        moving = f"mv {shlex.quote(name)} {shlex.quote(name + '.bad')}"
        raise StateError(
            f"Cannot read {Path(path).name}: it is cut or corrupt ({error})",
            got=f"{len(raw)} bytes",
            expected="a whole JSON file",
            where=path,
            fix=f"move it away ({moving}) and run the same command again; what it recorded is made again",
        ) from error


def sha256_file(path: str | os.PathLike) -> str:
    """Hash the content of one file (hex)."""
    try:
        with open(path, "rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise disk_fault(error, path, f"read {Path(path).name}") from error


def fingerprint(path: str | os.PathLike) -> str:
    """Identify a file by its content, or a folder by the names, sizes and contents of all files in it (hex).

    Times, owners, empty folders, temporary files and file browsers' droppings do not count. Follows links.
    """
    if os.path.isfile(path):
        return sha256_file(path)
    return _fingerprint_tree(path, lambda file, size: bytes.fromhex(sha256_file(file)), "full")


def quick_fingerprint(path: str | os.PathLike) -> str:
    """Identify big user data by names, sizes and the first and last 64 KiB of each file (hex).

    A change in the middle of a file that keeps its size goes unseen: use `fingerprint` where that matters.
    """
    return _fingerprint_tree(path, _ends, "quick")


def _ends(path: str, size: int) -> bytes:
    with open(path, "rb") as opened:
        digest = hashlib.sha256(opened.read(_QUICK_BYTES))
        if size > _QUICK_BYTES:
            opened.seek(max(_QUICK_BYTES, size - _QUICK_BYTES))
            digest.update(opened.read(_QUICK_BYTES))
    return digest.digest()


def _fingerprint_tree(path: str | os.PathLike, content_digest: Callable[[Path], str], kind: str) -> str:
    digest = hashlib.sha256(f"colabkit {kind} fingerprint 1".encode())
    if not os.path.exists(path):
        raise DataError(
            "Cannot fingerprint",
            got=os.fspath(path),
            expected="a file or folder that exists",
            fix="correct the path in the configuration, or make the data first",
        )
    try:
        files = [("", os.fspath(path))] if os.path.isfile(path) else list(_files_under(os.fspath(path)))
        for relative, file in sorted((os.fsencode(name), file) for name, file in files):
            found = os.stat(file)
            # Opening a pipe or device could hang for ever: its name is all that counts.
            size = found.st_size if stat.S_ISREG(found.st_mode) else -1
            digest.update(b"%d:%s:%d:" % (len(relative), relative, size))
            digest.update(content_digest(file, size) if size >= 0 else b"special")
    except OSError as error:
        raise disk_fault(error, error.filename or path, "fingerprint the data") from error
    return digest.hexdigest()


def _files_under(folder: str, prefix: str = "", above: tuple = ()) -> Iterator[tuple[str, str]]:
    found = os.stat(folder)
    identity = (found.st_dev, found.st_ino)
    if identity in above:  # a link back up: its files are already counted
        return
    with os.scandir(folder) as entries:
        names = sorted((entry.name, entry.is_dir()) for entry in entries if not _is_passing(entry.name))
    for name, is_folder in names:
        if is_folder:
            yield from _files_under(os.path.join(folder, name), f"{prefix}{name}/", (*above, identity))
        else:
            yield prefix + name, os.path.join(folder, name)


def _is_passing(name: str) -> bool:
    return name.startswith(TEMPORARY_PREFIX) or name in _DROPPINGS


def remove_generation(path: str | os.PathLike) -> int:
    """Delete a file or folder so that a trash bin keeps only empty files of it; returns the bytes let go.

    Google Drive moves deleted files to a trash that counts against the quota: files emptied first weigh
    nothing there. JSON goes first, so that a half removed checkpoint has no manifest that could vouch for it.
    Links are removed, never followed; a file with a second hard link is unlinked, not emptied. Missing: 0.
    """
    path = Path(path)
    num_bytes = 0
    try:
        if path.is_dir() and not path.is_symlink():
            files = [Path(parent, name) for parent, _, names in os.walk(path) for name in names]
            folders = [Path(parent, name) for parent, names, _ in os.walk(path) for name in names]
            for file in sorted(files, key=lambda file: (file.suffix != ".json", file)):
                num_bytes += _empty_and_unlink(file)
            for folder in sorted(folders, reverse=True):  # children sort after their parents
                folder.unlink() if folder.is_symlink() else folder.rmdir()
            path.rmdir()
        elif os.path.lexists(path):
            num_bytes = _empty_and_unlink(path)
    except FileNotFoundError:
        logging.getLogger(__name__).info("%s vanished while it was being removed", path)
    except OSError as error:
        raise disk_fault(error, error.filename or path, f"remove {path.name}") from error
    return num_bytes


def _empty_and_unlink(file: Path) -> int:
    found = os.lstat(file)
    alone = stat.S_ISREG(found.st_mode) and found.st_nlink == 1
    if alone and found.st_size:
        try:
            os.close(os.open(file, os.O_WRONLY | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0) | _BINARY))
        except OSError as error:
            logging.getLogger(__name__).warning("could not empty %s before removing it: %s", file, error)
    os.unlink(file)
    return found.st_size if alone else 0
