"""One generation of a checkpoint: a folder with `state.safetensors` and, written last, `COMMIT.json` (size, SHA-256).

Its name is never used again: `generation-000001200-5f3a9c`. Without a COMMIT that vouches for itself and for every byte
of the state it does not count. On a remote medium what was written is read back before the COMMIT is.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colabkit.core.config import digest
from colabkit.core.disk import disk_fault
from colabkit.core.errors import StateError
from colabkit.runs.medium import Medium
from colabkit.training.checkpoints import tensor_file

COMMIT, STATE, BEST = "COMMIT.json", "state.safetensors", "BEST.json"
PREFIX = "generation-"
PASSED_OVER = "nothing to do: the newest whole checkpoint is used instead"


@dataclass(frozen=True, slots=True)
class About:
    """What a COMMIT says of its generation; `identity` is that of the work it belongs to."""

    step: int
    best: bool
    identity: str
    size_bytes: int
    sha256: str


def new_name(step: int) -> str:
    """Make a folder's name for a step that was never used and will not be again."""
    return f"{PREFIX}{step:09d}-{secrets.token_hex(3)}"


def step_of(name: str) -> int:
    """Read the step off a folder's name; -1 where it holds none."""
    found = re.match(rf"{PREFIX}(\d+)", name)
    return int(found[1]) if found else -1


def write(
    medium: Medium,
    folder: Path,
    chunks: Iterable[bytes | memoryview],
    *,
    step: int,
    best: bool,
    identity: str,
    copy_of: About | None = None,
) -> About:
    """Write a whole generation to a folder that is new.

    Raises: OSError, also when other bytes are read back; StateError when the chunks are not those of `copy_of`.
    """
    medium.make_folder(folder)
    size, sha256 = medium.write(folder / STATE, chunks)
    if copy_of is not None and (size, sha256) != (copy_of.size_bytes, copy_of.sha256):
        raise StateError(f"{STATE} changed while it was copied", where=folder, fix=PASSED_OVER)
    if medium.is_remote:
        require_written(medium, folder / STATE, size, sha256)
    content = {"step": step, "best": best, "identity": identity, "files": {STATE: [size, sha256]}}
    text = (json.dumps(content | {"sha256": digest(content)}, indent=1) + "\n").encode()
    written = medium.write(folder / COMMIT, [text])
    if medium.is_remote:
        require_written(medium, folder / COMMIT, *written)
    return About(step, best, identity, size, sha256)


def require_written(medium: Medium, path: Path, size: int, sha256: str) -> None:
    """Read a file back. Raises: OSError with EIO's meaning when the medium gives other bytes than it took."""
    found, length = hashlib.sha256(), 0
    for chunk in medium.chunks(path):
        found.update(chunk)
        length += len(chunk)
    if (length, found.hexdigest()) != (size, sha256):
        raise OSError(errno.EIO, f"gives back {length} other bytes than the {size} written", str(path))


def read_about(medium: Medium, folder: Path) -> About:
    """Return what a generation is, if its COMMIT vouches for itself. Raises: StateError; OSError of a remote medium."""
    content = _json(_read(medium, folder / COMMIT), folder)
    told = content.pop("sha256", "")
    if told != digest(content):
        raise StateError(f"{COMMIT} is not what was written", where=folder, fix=PASSED_OVER)
    size, sha256 = content["files"][STATE]
    return About(
        content["step"], content["best"] or _is_marked_best(medium, folder, told), content["identity"], size, sha256
    )


def read(medium: Medium, folder: Path) -> tuple[About, Any]:
    """Return (about, state).

    Raises: StateError when anything is missing, cut off or changed; OSError of a remote medium.
    """
    about = read_about(medium, folder)
    data = _read(medium, folder / STATE)
    if len(data) != about.size_bytes or hashlib.sha256(data).hexdigest() != about.sha256:
        raise StateError(
            f"{STATE} is not what was written",
            got=f"{len(data)} bytes",
            expected=f"{about.size_bytes} bytes",
            where=folder,
            fix=PASSED_OVER,
        )
    return about, tensor_file.parse(data)


def mark_best(medium: Medium, folder: Path) -> None:
    """Say beside a COMMIT that its generation is the best so far."""
    told = _json(_read(medium, folder / COMMIT), folder).get("sha256")
    if BEST not in medium.names(folder):
        medium.write(folder / BEST, [json.dumps({"best": told}).encode()])


def _is_marked_best(medium: Medium, folder: Path, told: str) -> bool:
    if BEST not in medium.names(folder):
        return False
    try:
        return _json(_read(medium, folder / BEST), folder).get("best") == told
    except StateError:
        return False  # cut off: it was not said to the end


def _read(medium: Medium, path: Path) -> bytes:
    try:
        return medium.read(path)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise StateError(f"{path.name} is not there", where=path.parent, fix=PASSED_OVER) from error
    except OSError as error:
        if medium.is_remote:
            raise  # away is not broken: the caller asks again
        raise disk_fault(error, path, "read a checkpoint") from error


def _json(data: bytes, folder: Path) -> dict[str, Any]:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise StateError(f"{COMMIT} is not what was written", where=folder, fix=PASSED_OVER) from error
    if not isinstance(content, dict):
        raise StateError(f"{COMMIT} is not what was written", where=folder, fix=PASSED_OVER)
    return content
