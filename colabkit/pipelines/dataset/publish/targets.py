"""Targets of shards: a dataset repository of the Hub, in few commits, or a folder that loads the same way."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from colabkit.core import files
from colabkit.core.errors import DataError, UsageError
from colabkit.io.transfer.hub_repo import HubPush
from colabkit.pipelines.dataset.publish.layout import FOLDER, SHARD_NAME, DatasetPlan, ShardPlan
from colabkit.pipelines.dataset.publish.uploaded import ShardRecord

CARD = "README.md"
_NOTES = ".colabkit"  # what the records say, in the repository itself
_UPLOAD_BYTES_PER_SECOND = 500_000  # a slower line is given up when it breaks too


class Vanished(DataError):
    """The Hub no longer has what was uploaded and not committed; `ids` are of the shards."""

    ids: tuple[str, ...] = ()


@dataclass(slots=True)
class There:
    """What a target holds: its files with their hashes (of a folder: sizes), records of shards by id, and the card."""

    files: dict[str, str] = field(default_factory=dict)
    records: dict[str, ShardRecord] = field(default_factory=dict)
    card: str | None = None
    revision: str = ""
    private: bool = False


class HubTarget:
    """A dataset repository: takes shards, and makes them a dataset when all are there.

    What is not ours in it stays; shards of an earlier plan go with the commit that brings the card.
    """

    keeps_uploads = True  # what was taken is there before it is committed

    def __init__(self, hub: HubPush, plan: DatasetPlan, private: bool):
        self.hub, self.plan, self.private, self.page = hub, plan, private, hub.page
        self.num_commits = 0

    def look(self) -> There:
        """Make the place where there is none, and return what it holds."""
        self.hub.require_namespace()  # told before anything is made
        info = self.hub.make(private=self.private)
        if self.private and not info.private:
            raise UsageError(
                "The dataset is to be private, and there is a public one of this name",
                got=self.hub.repo,
                where=self.page,
                expected="a private dataset, or a name that is free",
                fix=f"make it private at {self.page}/settings, choose another name, or set publish.private=no",
            )
        tree = self.hub.ask(lambda: self.hub.tree(info.sha))
        there = There(
            {path: entry.lfs.sha256 if entry.lfs else entry.blob_id for path, entry in tree.items()},
            revision=info.sha,
            private=bool(info.private),
        )
        notes = sorted(path for path in tree if path.startswith(f"{_NOTES}/") and path.endswith(".jsonl"))
        there.records = ShardRecord.whole(line for path in notes for line in self._read(path, info.sha).splitlines())
        there.card = self._read(CARD, info.sha) if CARD in tree else None
        return there

    def _read(self, path: str, revision: str) -> str:
        return self.hub.ask(lambda: self.hub.read(path, revision)).decode("utf-8", "replace")

    def holds(self, there: There, shard: ShardPlan, record: ShardRecord) -> bool:
        """Tell whether a shard is in its place, as the record says."""
        return there.files.get(shard.name) == record.sha256

    def take(self, path: Path, name: str) -> tuple[str, int]:
        """Store a finished file and return its SHA-256 and size; what lies at `path` is not needed any more."""
        from huggingface_hub import CommitOperationAdd

        operation = CommitOperationAdd(path_in_repo=name, path_or_fileobj=os.fspath(path))
        operation._upload_mode = "lfs"  # known: nothing needs to be asked, and a small shard is no text either
        size = path.stat().st_size
        self.hub.ask(
            lambda: self.hub.api.preupload_lfs_files(
                self.hub.repo, additions=[operation], repo_type="dataset", num_threads=1, free_memory=False
            ),
            more_seconds=size / _UPLOAD_BYTES_PER_SECOND,
        )
        return operation.upload_info.sha256.hex(), size

    def commit(
        self,
        shards: Sequence[tuple[ShardPlan, ShardRecord]],
        message: str,
        card: str | None = None,
        pictures: Mapping[str, tuple[str, int]] = {},
    ) -> str:
        """Put shards in their place, and with a card all of the dataset; return the revision. Raises: Vanished."""

        def attempt() -> str:
            """Look again each time: somebody may have committed, or we ourselves when the answer was lost."""
            head = self.hub.info().sha
            there = self.hub.tree(head)
            missing = [(shard, record) for shard, record in shards if _sha256(there.get(shard.name)) != record.sha256]
            wanted = {shard.name: (record.sha256, record.size) for shard, record in missing} | {
                name: known for name, known in pictures.items() if _sha256(there.get(name)) != known[0]
            }
            lines = [_large(name, sha256, size) for name, (sha256, size) in wanted.items()]
            if missing:
                notes = "".join(record.to_json() + "\n" for _, record in missing)
                lines.append(_small(f"{_NOTES}/{missing[0][1].id}.jsonl", notes))
            if card is not None:
                lines += self._last_lines(card, there)
            if not lines:
                return head
            sha = self.hub.commit_lines(lines, message, head)
            self.num_commits += 1
            return sha

        def refused(status: int, told: str) -> Vanished | None:
            if status not in (400, 404, 422) or not shards:
                return None
            fault = Vanished(
                "The Hub does not take what was uploaded",
                got=f"status {status}: {told}",
                where=self.page,
                fix="run the same command again: what is gone is made anew",
            )
            fault.ids = tuple(record.id for _, record in shards)
            return fault

        return self.hub.ask(attempt, refused=refused)

    def _last_lines(self, card: str, there: Mapping) -> list[dict]:
        wanted = {shard.name for shard in self.plan.shards}
        stale = [path for path in there if SHARD_NAME.fullmatch(path) and path not in wanted]
        card_is_there = CARD in there and there[CARD].blob_id == _git_name(card.encode())
        return [{"key": "deletedFile", "value": {"path": path}} for path in sorted(stale)] + (
            [] if card_is_there else [_small(CARD, card)]
        )


class FolderTarget:
    """A folder with the files that the repository would hold, asked as one: `load_dataset(FOLDER)` reads it."""

    keeps_uploads = False

    def __init__(self, folder: Path, plan: DatasetPlan):
        self.folder, self.plan, self.page = folder, plan, os.fspath(folder)
        self.num_commits = 0

    def look(self) -> There:
        shards, card = sorted(self.folder.rglob("*.parquet")), self.folder / CARD
        return There(
            {path.relative_to(self.folder).as_posix(): str(path.stat().st_size) for path in shards},
            ShardRecord.whole(path.read_bytes() for path in sorted((self.folder / _NOTES).glob("*.json"))),
            card.read_text("utf-8") if card.is_file() else None,
        )

    def holds(self, there: There, shard: ShardPlan, record: ShardRecord) -> bool:
        return there.files.get(shard.name) == str(record.size)

    def take(self, path: Path, name: str) -> tuple[str, int]:
        place = self.folder / name
        sha256, size = files.sha256_file(path), path.stat().st_size
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.replace(path, place)
            except OSError:  # another disk
                files.write_atomic(place, path.read_bytes())
        except OSError as error:
            raise files.disk_fault(error, place, "keep a shard", needed_bytes=size) from error
        return sha256, size

    def commit(
        self,
        shards: Sequence[tuple[ShardPlan, ShardRecord]],
        message: str,
        card: str | None = None,
        pictures: Mapping[str, tuple[str, int]] = {},
    ) -> str:
        (self.folder / _NOTES).mkdir(parents=True, exist_ok=True)
        for _, record in shards:
            files.write_atomic(self.folder / _NOTES / f"{record.id}.json", record.to_json())
        if card is not None:
            files.write_atomic(self.folder / CARD, card)
            wanted = {shard.name for shard in self.plan.shards}
            for path in sorted((self.folder / FOLDER).rglob("*.parquet")):
                name = path.relative_to(self.folder).as_posix()
                if SHARD_NAME.fullmatch(name) and name not in wanted:
                    files.remove_generation(path)
        return ""


def _large(path: str, sha256: str, size: int) -> dict:
    return {"key": "lfsFile", "value": {"path": path, "algo": "sha256", "oid": sha256, "size": size}}


def _small(path: str, text: str) -> dict:
    return {
        "key": "file",
        "value": {"path": path, "content": base64.b64encode(text.encode()).decode(), "encoding": "base64"},
    }


def _sha256(entry: object) -> str | None:
    lfs = getattr(entry, "lfs", None)
    return lfs.sha256 if lfs else None


def _git_name(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
