"""Records of shards that are uploaded: kept on this machine and in the store, so that a lost machine loses none."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from colabkit.core import files
from colabkit.core.disk import faults_told
from colabkit.core.errors import ColabkitError
from colabkit.io.places.place import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRecord:
    """One shard in the Hub's large file storage.

    `id` names all that its bytes follow from; left_out: segments by reason.
    """

    id: str
    sha256: str
    size: int
    num_rows: int
    seconds: float
    left_out: dict[str, int] = field(default_factory=dict)

    @classmethod
    def whole(cls, contents: Iterable[bytes | str]) -> dict[str, ShardRecord]:
        """Read some by id, without those that are none."""
        return {record.id: record for content in contents if (record := cls.of(content)) is not None}

    @classmethod
    def of(cls, content: bytes | str) -> ShardRecord | None:
        """Read one; None for one that is cut or not ours: its shard is made again."""
        try:
            record = cls(**json.loads(content))
        except (ValueError, TypeError):
            return None
        is_ours = isinstance(record.size, int) and isinstance(record.left_out, dict) and len(record.sha256) == 64
        return record if is_ours else None

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, sort_keys=True)


class Records:
    """One small file a shard, written when it is uploaded; `store` holds a second copy of each."""

    def __init__(self, folder: Path, store: Place | None, say: Callable[[str], None] = print):
        self.folder, self.store, self.say = folder, store, say
        with faults_told(folder, "keep what was uploaded"):
            folder.mkdir(parents=True, exist_ok=True)

    def read(self) -> dict[str, ShardRecord]:
        """Return all by id, those of the store where this machine has none."""
        found = ShardRecord.whole(path.read_bytes() for path in sorted(self.folder.glob("*.json")))
        return found | ShardRecord.whole(self._stored(found))

    def _stored(self, known: Mapping[str, ShardRecord]) -> Iterator[bytes]:
        """Yield what the store holds besides."""
        for there in list(self.store.list()) if self.store is not None else ():
            name = there.name.rpartition("/")[2]
            if name.endswith(".json") and name.removesuffix(".json") not in known:
                content = self.store.get_if_there(there.name)
                yield content[0] if content else b""

    def add(self, record: ShardRecord) -> None:
        """Keep one. A store that takes none is told of and costs nothing else: the Hub has the shard either way."""
        files.write_atomic(self.folder / f"{record.id}.json", record.to_json())
        if self.store is None:
            return
        try:
            self.store.put(f"{record.id}.json", record.to_json().encode())
        except ColabkitError as error:
            self.say(
                f"  the store keeps no record of what is uploaded ({error.what}): a lost machine would upload it again"
            )
            self.store = None

    def forget(self, ids: Iterable[str]) -> None:
        """Drop records of what the Hub no longer has."""
        for id in ids:
            (self.folder / f"{id}.json").unlink(missing_ok=True)
            if self.store is not None:
                try:
                    self.store.delete(f"{id}.json")
                except ColabkitError:  # without the right to delete it is overwritten when the shard is uploaded again
                    self.say("  the store lets nobody delete: its record of a shard that is gone is written over")
