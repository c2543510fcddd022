"""The index of a source, built: each shard is read once, front to back; killed anywhere, it goes on with the next."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from colabkit.core import files
from colabkit.core.errors import ColabkitError, DataError
from colabkit.core.permutation import permute
from colabkit.core.prefetch import prefetch
from colabkit.core.teller import Teller
from colabkit.io.places import StoredObject
from colabkit.io.samples.columns import match_columns, parse_columns
from colabkit.io.samples.index import FILE_NAME, SampleIndex, Shard
from colabkit.io.samples.scan import Problem, scan_file, scan_parquet, scan_tar
from colabkit.io.samples.source import FoundSource

WORKERS = 4
FILES_A_PIECE = 256  # plain files that are read between two saves


def build_index(
    source: FoundSource,
    folder: Path,
    *,
    teller: Teller,
    columns: tuple[str, ...] = (),
    hours: float | None = None,
    seed: int = 0,
    workers: int = WORKERS,
    needs: tuple[str, ...] = (),
) -> SampleIndex:
    """Return the index of a source; shards done before a stop are found in `folder` and not read again.

    With `hours`, shards are taken in a shuffled order until there is as much speech. What is no audio is told.
    `needs` are roles without which shards are of no use: that one is missing is told at the first shard. Plain files
    have none.
    Raises: DataError for a damaged or vanished shard, or missing columns; ChangedError for an index of another version.
    """
    settings = parse_columns(columns)
    if source.ready is not None and (index := _read_ready(source, settings, teller, needs)) is not None:
        return index
    folder.mkdir(parents=True, exist_ok=True)
    pieces = _cut(source)
    order = permute(range(len(pieces)), len(pieces), seed).tolist() if hours else range(len(pieces))
    maker = _Piece(source, settings, folder, [pieces[i] for i in order], needs)
    parts, known_hours = [], 0.0
    unit = "shards" if source.kind != "files" else f"times {FILES_A_PIECE} files"
    with (
        teller.progress(len(pieces), "index", unit=unit) as progress,
        closing(prefetch(maker, 0, len(pieces), workers=workers)) as made,
    ):
        for part, problems in made:
            for item, reason in problems:
                teller.problem(item, reason)
            parts.append(part)
            known_hours += part.hours
            progress.update(hours=known_hours)
            if hours and known_hours >= hours and len(parts) < len(pieces):
                teller.choose(
                    "shards",
                    f"{len(parts)} of {len(pieces)}",
                    f"they hold {known_hours:.1f} h, and {hours:g} h are asked for",
                )
                break
    index = SampleIndex.join(source.store.address, parts)
    if not len(index):
        raise DataError(
            "The source holds no audio that can be read",
            got=f"{len(source.objects)} files, all left aside",
            expected="at least one sample",
            where=source.address,
            fix="see why each was left aside, above",
        )
    return index


def _read_ready(
    source: FoundSource, settings: Mapping[str, str], teller: Teller, needs: tuple[str, ...]
) -> SampleIndex | None:
    index = SampleIndex.from_bytes(source.store.read(FILE_NAME), f"{FILE_NAME} of {source.store.address}")
    there, named = {o.name: o.size for o in source.objects}, {s.name: s.size for s in index.shards}
    for name, size in named.items():
        if there.get(name) != size:
            raise DataError(
                "A shard is not what the index beside it says",
                got="missing" if name not in there else f"{there[name]} bytes",
                expected=f"{size} bytes",
                where=f"{name} of {source.store.address}",
                fix=f"copy the shard again, or delete {FILE_NAME}: the index is then built from what is there",
            )
    if unknown := there.keys() - named.keys():
        teller.choose("index", "built anew", f"{len(unknown)} shards are not in the one beside the data")
        return None
    teller.choose("index", "taken as it is", f"it lies beside the data and names all {len(named)} shards")
    index = index.at(source.store.address)
    named_anew = {role: column for role, column in settings.items() if role not in ("audio", "key")}
    match_columns(index.columns, source.address, named_anew, needs)
    index.columns |= {role: index.columns[column] for role, column in named_anew.items()}
    return index


def _cut(source: FoundSource) -> list[tuple[StoredObject, ...]]:
    step = FILES_A_PIECE if source.kind == "files" else 1
    return [source.objects[i : i + step] for i in range(0, len(source.objects), step)]


@dataclass(frozen=True)
class _Piece:
    """Scans piece k, or reads what an earlier process saved of it."""

    source: FoundSource
    settings: Mapping[str, str]
    folder: Path
    pieces: list[tuple[StoredObject, ...]]
    needs: tuple[str, ...] = ()

    def __call__(self, k: int) -> tuple[SampleIndex, list[list[str]]]:
        objects = self.pieces[k]
        name = hashlib.sha256(
            json.dumps(
                [
                    self.source.store.address,
                    sorted(self.settings.items()),
                    [[o.name, o.size, o.version] for o in objects],
                ]
            ).encode()
        ).hexdigest()[:24]
        path, told = self.folder / f"{name}.safetensors", self.folder / f"{name}.json"
        try:
            if path.exists():
                return SampleIndex.load(path), files.read_json(told)
        except ColabkitError:  # cut off, or of another version: made anew
            pass
        problems: list[list[str]] = []
        entries = []
        for number, found in enumerate(objects):
            entries += [
                (number, entry) for entry in self._scan(found, lambda item, reason: problems.append([item, reason]))
            ]
        shards = [Shard(o.name, o.size, o.version) for o in objects]
        part = SampleIndex.of(self.source.store.address, shards, [entry for _, entry in entries])
        part.arrays["shard"][:] = [number for number, _ in entries]
        files.write_json(told, problems)
        part.save(path)
        return part, problems

    def _scan(self, found: StoredObject, problem: Problem):
        if self.source.kind == "files":
            return scan_file(self.source.store, found, problem)
        scan = scan_tar if self.source.kind == "tar" else scan_parquet
        return scan(self.source.store, found, self.settings, problem, self.needs)
