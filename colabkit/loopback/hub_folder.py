"""The folder of a Hub on loopback: one JSON file a repository, one file a content, served from there."""

from __future__ import annotations

from pathlib import Path

from colabkit.core import files
from colabkit.loopback.hub_repos import Commit, HubFile, HubRepo, make_pointer


class HubFolder:
    """repos/KIND/ORG/NAME.json: commits and revisions; contents/NAME: bytes, by SHA-256 or, small ones, by git's name.

    A content is there before the repository that names it, so a process killed in between leaves nothing half.
    """

    def __init__(self, folder: Path):
        self.repos, self.contents = folder / "repos", folder / "contents"
        self.repos.mkdir(parents=True, exist_ok=True)
        self.contents.mkdir(exist_ok=True)

    def keep(self, file: HubFile) -> HubFile:
        """Write a file's content and return the file as served from there; one given by a path stays in its place."""
        if isinstance(file.content, Path):
            return file
        place = self.contents / (file.sha256 or file.oid)
        if not place.is_file():
            files.write_atomic(place, file.content, durable=False)
        return HubFile(place, file.size, file.oid, file.sha256, file.pointer_size)

    def write(self, repo: HubRepo) -> None:
        """Write a repository with all its commits."""
        place = self.repos / f"{repo.kind}s" / f"{repo.id}.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        commits = [
            {"sha": c.sha, "date": c.date, "files": {path: self._told(file) for path, file in c.files.items()}}
            for c in repo.commits.values()
        ]
        files.write_json(
            place,
            {
                "id": repo.id,
                "kind": repo.kind,
                "private": repo.private,
                "gated": repo.gated,
                "created": repo.created,
                "revisions": repo.revisions,
                "commits": commits,
            },
            durable=False,
        )

    def read_repos(self) -> list[HubRepo]:
        """Return the repositories as they were written."""
        return [self._read(files.read_json(place)) for place in sorted(self.repos.rglob("*.json"))]

    def read_uploads(self) -> dict[str, HubFile]:
        """Return what was uploaded to large file storage by SHA-256, committed or not."""
        names = [place for place in self.contents.iterdir() if len(place.name) == 64]
        return {place.name: _large(place, place.name, place.stat().st_size) for place in names}

    def _told(self, file: HubFile) -> dict:
        told = {"oid": file.oid, "size": file.size, "sha256": file.sha256, "pointer_size": file.pointer_size}
        return told | ({"at": str(file.content)} if file.content.parent != self.contents else {})

    def _read(self, told: dict) -> HubRepo:
        repo = HubRepo(
            told["id"],
            kind=told["kind"],
            private=told["private"],
            gated=told["gated"],
            created=told["created"],
            revisions=told["revisions"],
        )
        for commit in told["commits"]:
            made = {
                path: HubFile(
                    Path(f.get("at") or self.contents / (f["sha256"] or f["oid"])),
                    f["size"],
                    f["oid"],
                    f["sha256"],
                    f["pointer_size"],
                )
                for path, f in commit["files"].items()
            }
            repo.commits[commit["sha"]] = Commit(commit["sha"], commit["date"], made)
        return repo


def _large(place: Path, sha256: str, size: int) -> HubFile:
    oid, pointer_size = make_pointer(sha256, size)
    return HubFile(place, size, oid, sha256, pointer_size)
