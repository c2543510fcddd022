"""The files of a folder with their sizes and times, quickly where there are very many."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from colabkit.core.disk import disk_fault
from colabkit.core.errors import DataError, UsageError

_ALONE = 50_000  # files: with more, other processes look too, since asking for sizes and times is most of the work
_MOST_PROCESSES = 4
# Run without this package, so that it starts at once. Of every n-th file: the names' lengths and bytes, sizes, times.
_LOOK = """
import array, os, sys

def look(root, which, step):
    names, sizes, times, count = [], array.array("q"), array.array("q"), 0
    waiting, seen = [(root, "")], set()
    while waiting:
        path, prefix = waiting.pop()
        about = os.stat(path)
        if (about.st_dev, about.st_ino) in seen:
            continue
        seen.add((about.st_dev, about.st_ino))
        # By its handle: the way to the folder is not walked again for each file, a fifth of the time.
        handle = os.open(path, os.O_RDONLY) if os.scandir in os.supports_fd else None
        try:
            with os.scandir(path if handle is None else handle) as entries:
                for entry in entries:
                    name = entry.name
                    if name[0] == ".":
                        continue
                    if entry.is_dir():
                        waiting.append((os.path.join(path, name), prefix + name + "/"))
                        continue
                    count += 1
                    if count % step != which:
                        continue
                    try:
                        about = entry.stat()
                    except FileNotFoundError:
                        continue
                    if about.st_mode & 0o170000 == 0o100000:
                        names.append(prefix + name)
                        sizes.append(about.st_size)
                        times.append(about.st_mtime_ns)
        finally:
            if handle is not None:
                os.close(handle)
    lengths = array.array("i", [len(name) if name.isascii() else len(os.fsencode(name)) for name in names])
    return count, lengths, os.fsencode("".join(names)), sizes, times
"""
_TELL = """
count, lengths, text, sizes, times = look(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
out = sys.stdout.buffer
out.write(array.array("q", [count, len(lengths), len(text)]).tobytes())
for part in (lengths.tobytes(), text, sizes.tobytes(), times.tobytes()):
    out.write(part)
"""


@dataclass(frozen=True, slots=True)
class LocalFiles:
    """Files below a folder, in no order: names, sizes in bytes, times in nanoseconds since 1970.

    The names are an Arrow array of text, "/" between the parts.
    """

    folder: Path
    names: Any
    sizes: np.ndarray
    mtimes_ns: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def taken(self, places: np.ndarray) -> LocalFiles:
        """Return some of the files."""
        if len(places) == len(self) and bool((places == np.arange(len(self))).all()):
            return self
        return LocalFiles(self.folder, self.names.take(places), self.sizes[places], self.mtimes_ns[places])


def existing_folder(folder: str | os.PathLike) -> Path:
    """Return the path of a folder. Raises: UsageError when it is none."""
    root = Path(os.path.expanduser(folder))
    if not root.is_dir():
        raise UsageError(
            "There is no such folder", got=os.fspath(folder), fix="check the path and that its disk is mounted"
        )
    return root


def scan_folder(folder: str | os.PathLike) -> LocalFiles:
    """Return the files below a folder, without hidden ones and with what links lead to.

    Raises: UsageError when it is none, StateError when it cannot be read, DataError for a name that is not UTF-8.
    """
    root, parts = existing_folder(folder), None
    try:
        if _is_large(root):
            parts = _look_together(root, max(2, min(_MOST_PROCESSES, os.cpu_count() or 1)))
        if parts is None:
            space: dict[str, Any] = {}
            exec(_LOOK, space)  # the same lines that other processes run
            parts = [space["look"](os.fspath(root), 0, 1)]
    except OSError as error:
        raise disk_fault(error, error.filename or root, "read the folder") from error
    return _joined(root, parts)


def _is_large(root: Path) -> bool:
    """Tell whether there are so many files that several processes look sooner; a count is quick where there are few."""
    count, waiting = 0, [os.fspath(root)]
    while waiting and count <= _ALONE:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                count += 1
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                if count > _ALONE:
                    break
    return count > _ALONE


def _look_together(root: Path, step: int) -> list[tuple] | None:
    """Look with several processes; None where one of them could not, or saw something else than the others."""
    answers: list[tuple | None] = [None] * step

    def look(which: int) -> None:
        command = [sys.executable, "-I", "-S", "-c", _LOOK + _TELL, os.fspath(root), str(which), str(step)]
        process = subprocess.run(command, capture_output=True)
        if process.returncode == 0:
            answers[which] = _read(process.stdout)

    threads = [threading.Thread(target=look, args=(which,)) for which in range(step)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return None if None in answers or len({one[0] for one in answers}) > 1 else answers


def _read(told: bytes) -> tuple:
    count, number, size = np.frombuffer(told, np.int64, 3).tolist()
    ends = np.cumsum([24, 4 * number, size, 8 * number, 8 * number]).tolist()
    lengths, text, sizes, times = (told[a:b] for a, b in zip(ends, ends[1:], strict=False))
    return count, np.frombuffer(lengths, np.int32), text, np.frombuffer(sizes, np.int64), np.frombuffer(times, np.int64)


def _joined(root: Path, parts: Iterable[tuple]) -> LocalFiles:
    import pyarrow as pa

    arrays = []
    for _, lengths, text, _, _ in parts:
        offsets = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        arrays.append(pa.LargeStringArray.from_buffers(len(lengths), pa.py_buffer(offsets), pa.py_buffer(bytes(text))))
    names = pa.chunked_array(arrays, pa.large_string()).combine_chunks()
    names = names.chunk(0) if isinstance(names, pa.ChunkedArray) else names
    try:
        names.validate(full=True)
    except pa.ArrowInvalid as error:
        raise DataError(
            "The folder has a file whose name is not valid UTF-8",
            where=root,
            fix="rename it, for example with convmv -r -f latin1 -t utf8 --notest",
        ) from error
    sizes, times = (np.concatenate([np.asarray(part[i], np.int64) for part in parts]) for i in (3, 4))
    return LocalFiles(root, names.cast(pa.string()), sizes, times)
