"""Push a model's folder to the Hugging Face Hub: one commit of what changed, nothing that is there already."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from colabkit.core.errors import StateError
from colabkit.core.files import TEMPORARY_PREFIX
from colabkit.core.teller import Teller
from colabkit.io.transfer.hub_repo import DEADLINE_SECONDS, HubPush

_LEFT_OUT = ("*.tmp", "*.lock", "checkpoint-*/*", "checkpoints/*")


@dataclass(frozen=True, slots=True)
class Pushed:
    """Where a model is now; `num_files` were sent, none where the Hub held the same files already."""

    repo: str
    url: str
    revision: str
    num_files: int
    num_bytes: int
    private: bool


def push(
    folder: Path,
    repo: str,
    *,
    private: bool = True,
    token: str | None = None,
    endpoint: str | None = None,
    message: str = "Upload model",
    left_out: Sequence[str] = _LEFT_OUT,
    teller: Teller = Teller(),
    deadline_seconds: float = DEADLINE_SECONDS,
) -> Pushed:
    """Make the repository where there is none, and commit the files of `folder` that it does not hold yet.

    A repository that is there keeps its visibility, and files that are not in `folder`. Raises: UsageError for a name,
    a token or a right that is missing; StateError for an empty folder; Unreachable.
    """
    hub = HubPush(repo, "model", token=token, endpoint=endpoint, deadline_seconds=deadline_seconds, teller=teller)
    folder = Path(folder)
    local = _local(folder, left_out)
    info = hub.make(private=private)
    changed = hub.ask(lambda: _changed(hub, folder, local, info.sha))
    if not changed:
        teller.say(f"  nothing to push: {hub.page} holds the same {len(local)} files")
        return Pushed(repo, hub.page, info.sha, 0, 0, bool(info.private))
    revision = hub.ask(lambda: _commit(hub, folder, local, message))
    num_bytes = sum((folder / name).stat().st_size for name in changed)
    teller.say(f"  pushed {len(changed)} of {len(local)} files to {hub.page}")
    return Pushed(repo, hub.page, revision, len(changed), num_bytes, bool(info.private))


def _local(folder: Path, left_out: Sequence[str]) -> list[str]:
    """Return the names of the files to push."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    names = [
        name
        for name in names
        if not any(part.startswith((".", TEMPORARY_PREFIX)) for part in name.split("/"))
        and not any(fnmatch(name, pattern) for pattern in left_out)
    ]
    if not names:
        raise StateError(
            "There is no model to push",
            where=folder,
            expected="the files of a trained model",
            fix="train first: the step before makes them",
        )
    return names


def _changed(hub: HubPush, folder: Path, names: list[str], revision: str) -> list[str]:
    """Return the files that the Hub does not hold with the same content."""
    there = hub.tree(revision)
    return [name for name in names if not _is_same(folder / name, there.get(name))]


def _commit(hub: HubPush, folder: Path, names: list[str], message: str) -> str:
    """Commit what is still missing, on top of what was looked at, and return the commit that holds everything."""
    from huggingface_hub import CommitOperationAdd

    sha = hub.info().sha
    changed = _changed(hub, folder, names, sha)  # of a commit whose answer was lost, all is there
    if not changed:
        return sha
    operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=os.fspath(folder / name)) for name in changed]
    return hub.api.create_commit(hub.repo, operations, commit_message=message, parent_commit=sha).oid


def _is_same(path: Path, entry: Any) -> bool:
    """Compare a file with what the Hub holds, by the SHA-256 of large files and by git's name of small ones."""
    if entry is None or entry.size != path.stat().st_size:
        return False
    if entry.lfs:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == entry.lfs.sha256
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == entry.blob_id
