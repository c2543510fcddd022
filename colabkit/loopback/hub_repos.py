"""Repositories of a Hub: datasets and models, their commits and files, by the names that git and large files have."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import yaml

from colabkit.loopback.messages import FilePart


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file; `sha256` is set when it lives in large file storage, and `oid` is then the git name of its pointer."""

    content: bytes | Path
    size: int
    oid: str
    sha256: str | None
    pointer_size: int

    @property
    def etag(self) -> str:
        return f'"{self.sha256 or self.oid}"'

    def take(self, start: int, stop: int) -> bytes | memoryview | FilePart:
        """Return the bytes start..stop, those of a path unread."""
        if isinstance(self.content, bytes):
            return memoryview(self.content)[start:stop]
        return FilePart(self.content, start, stop)

    def json(self, path: str) -> dict:
        """Return the entry of a tree."""
        return {
            "type": "file",
            "oid": self.oid,
            "size": self.size,
            "path": path,
            **({"lfs": self.lfs()} if self.sha256 else {}),
        }

    def lfs(self, name: str = "oid") -> dict:
        """Return what the Hub tells of large file storage; trees and siblings differ in the `name` of the hash."""
        return {name: self.sha256, "size": self.size, "pointerSize": self.pointer_size}


@dataclass(frozen=True)
class Commit:
    """A state of a repository: all its files, by path."""

    sha: str
    date: str
    files: dict[str, HubFile]

    @cached_property
    def folders(self) -> dict[str, dict]:
        """Every folder's tree entry, by path; the root is none."""
        inside: dict[str, list[str]] = {}
        for path, file in self.files.items():
            parts = path.split("/")[:-1]
            for depth in range(1, len(parts) + 1):
                inside.setdefault("/".join(parts[:depth]), []).append(f"{path} {file.oid}")
        return {
            path: {"type": "directory", "oid": git_oid("tree", "\n".join(lines).encode()), "size": 0, "path": path}
            for path, lines in inside.items()
        }

    @cached_property
    def entries(self) -> list[dict]:
        """The tree entries of all files and folders, sorted by path."""
        files = (file.json(path) for path, file in self.files.items())
        return sorted([*files, *self.folders.values()], key=lambda entry: entry["path"])

    def tree(self, folder: str, *, recursive: bool) -> list[dict]:
        """Return the entries below a folder."""
        start = f"{folder}/" if folder else ""
        return [
            e for e in self.entries if e["path"].startswith(start) and (recursive or "/" not in e["path"][len(start) :])
        ]

    @cached_property
    def card(self) -> dict | None:
        """The YAML head of README.md."""
        readme = self.files.get("README.md")
        if readme is None:
            return None
        text = readme.content if isinstance(readme.content, bytes) else readme.content.read_bytes()
        parts = text.decode("utf-8", "replace").split("---\n", 2)
        return yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0].strip() else None


@dataclass
class HubRepo:
    """A dataset or a model: commits by sha, and the sha each revision stands at."""

    id: str
    kind: str = "dataset"
    private: bool = False
    gated: bool = False
    created: str = field(default_factory=lambda: now())
    commits: dict[str, Commit] = field(default_factory=dict)
    revisions: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, HubFile], revision: str) -> str:
        """Put a commit that holds exactly these files on top of a revision and return its sha."""
        files = dict(sorted(files.items()))
        lines = [
            f"parent {self.revisions.get(revision)}",
            f"{self.id}@{revision}",
            *(f"{p} {f.oid}" for p, f in files.items()),
        ]
        sha = git_oid("commit", "\n".join(lines).encode())
        self.commits[sha] = Commit(sha, now(), files)
        self.revisions[revision] = sha
        return sha

    def find(self, revision: str) -> Commit | None:
        """Return the commit of a branch, another ref or a full sha."""
        return self.commits.get(self.revisions.get(revision, revision))

    def info(self, commit: Commit, *, with_blobs: bool) -> dict:
        """Return what the Hub tells of a repository."""
        siblings = [
            {"rfilename": path}
            | ({"size": f.size, "blobId": f.oid} if with_blobs else {})
            | ({"lfs": f.lfs("sha256")} if with_blobs and f.sha256 else {})
            for path, f in commit.files.items()
        ]
        return {
            "_id": git_oid("repo", self.id.encode())[:24],
            "id": self.id,
            "author": self.id.partition("/")[0],
            "sha": commit.sha,
            "lastModified": commit.date,
            "createdAt": self.created,
            "private": self.private,
            "gated": "auto" if self.gated else False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": ["region:us"],
            "siblings": siblings,
            **({"cardData": commit.card} if commit.card else {}),
        }

    def refs(self) -> dict:
        """Return the refs as the Hub groups them."""
        groups: dict[str, list] = {"branches": [], "converts": [], "tags": []}
        for name, sha in self.revisions.items():
            group = "converts" if name.startswith("refs/convert/") else "branches"
            ref = name if name.startswith("refs/") else f"refs/heads/{name}"
            groups[group].append({"name": name.removeprefix("refs/convert/"), "ref": ref, "targetCommit": sha})
        return groups


def now() -> str:
    """Return the time as the Hub writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def git_oid(kind: str, content: bytes) -> str:
    """Return the name git gives an object."""
    return hashlib.sha1(b"%s %d\0" % (kind.encode(), len(content)) + content).hexdigest()


def make_file(content: bytes | Path, *, large_bytes: int) -> HubFile:
    """Hash a file; one larger than `large_bytes` goes to large file storage."""
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    if size <= large_bytes:
        data = content if isinstance(content, bytes) else content.read_bytes()
        return HubFile(content, size, git_oid("blob", data), None, 0)
    if isinstance(content, bytes):
        sha256 = hashlib.sha256(content).hexdigest()
    else:
        with open(content, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    oid, pointer_size = make_pointer(sha256, size)
    return HubFile(content, size, oid, sha256, pointer_size)


def make_pointer(sha256: str, size: int) -> tuple[str, int]:
    """Return git's name, and the size, of the pointer to a file in large file storage."""
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
    return git_oid("blob", pointer), len(pointer)
