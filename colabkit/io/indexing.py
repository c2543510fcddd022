"""Build the index of a source: each shard is read once, front to back; killed anywhere, it goes on with the next shard."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from colabkit.core import files
from colabkit.core.errors import ColabkitError, DataError, UsageError
from colabkit.core.permutation import permute
from colabkit.core.prefetch import prefetch
from colabkit.core.progress import Progress
from colabkit.io.audio import AUDIO_SUFFIXES
from colabkit.io.columns import known_dataset, match_columns, parse_columns
from colabkit.io.hub_files import choose_split, find_splits
from colabkit.io.index import FILE_NAME, SampleIndex, Shard
from colabkit.io.scanning import Problem, scan_file, scan_parquet, scan_tar
from colabkit.io.stores import Store, StoredObject, open_store
from colabkit.io.stores.addresses import split_scheme

VOICES = "voices"  # the source that is made on the spot
WORKERS = 4
FILES_A_PIECE = 256  # plain files that are read between two saves

Choose = Callable[[str, object, str], object]


@dataclass(frozen=True, slots=True)
class FoundSource:
    """What an address names: the store, pinned, and the objects in it that hold samples, by kind."""

    address: str
    store: Store
    kind: str  # "tar", "parquet" or "files"
    objects: tuple[StoredObject, ...]
    ready: StoredObject | None  # the index that lies beside the data

    @property
    def fingerprint(self) -> str:
        """Return what changes when the data does; nothing was read for it."""
        listing = [[o.name, o.size, o.version] for o in self.objects]
        return hashlib.sha256(json.dumps([self.store.address, listing]).encode()).hexdigest()[:32]


def find_source(address: str) -> FoundSource:
    """Look up what an address names: "hub:ORG/NAME/CONFIG/SPLIT", "s3://...", "gs://..." or a folder.

    Raises: UsageError for an address that names nothing, a dataset that is gone, or one that wants a token; DataError for
    a source without audio.
    """
    known_dataset(address)
    if address.startswith("hub:"):
        store, objects = _open_hub(address)
    else:
        store = open_store(address)
        objects = store.list()
    ready = next((o for o in objects if o.name == FILE_NAME), None)
    for kind, suffixes in (("parquet", (".parquet",)), ("tar", (".tar",)), ("files", AUDIO_SUFFIXES)):
        chosen = tuple(o for o in objects if o.name.lower().endswith(suffixes))
        if chosen:
            return FoundSource(address, store, kind, chosen, ready)
    packed = next((o.name for o in objects if o.name.lower().endswith((".tar.gz", ".tgz", ".zip"))), None)
    raise DataError("The source holds no audio", got=packed or f"{len(objects)} other files", where=address,
                    expected="tar shards, Parquet shards or audio files (wav, flac, mp3, ogg)",
                    fix="unpack it first: single samples of a compressed archive cannot be read" if packed else
                    "correct the address")


def is_folder(address: str) -> bool:
    """Say whether an address names a folder of this machine."""
    return not split_scheme(address)[0]


def fingerprint_sources(addresses: Iterable[str]) -> dict[str, str]:
    """Return fingerprints of what lies outside a run, so that a change is noticed.

    A Hub dataset is pinned to the commit that was listed, so it cannot change under a run; voices are made of the settings.
    """
    found = {}
    for address in addresses:
        if is_folder(address) and address != VOICES:
            found[address] = files.quick_fingerprint(Path(address).expanduser())
        elif address.startswith(("s3://", "gs://")):
            found[address] = find_source(address).fingerprint
    return found


def _open_hub(address: str) -> tuple[Store, list[StoredObject]]:
    from colabkit.io.stores.hub import HubStore, parse_hub_address
    repo, wanted, revision = parse_hub_address(address)
    store = HubStore(repo, revision=revision)
    objects = {o.name: o for o in store.list()}
    splits = find_splits(objects, store.read("README.md").decode("utf-8", "replace") if "README.md" in objects else "")
    if not splits and revision is None:  # a repository with a script: the Hub keeps a converted copy
        try:
            store = HubStore(repo, revision="refs/convert/parquet")
            objects = {o.name: o for o in store.list()}
        except UsageError as error:
            logging.getLogger(__name__).info("%s has no converted copy: %s", repo, error.what)
        splits = find_splits(objects, "")
    chosen = choose_split(splits, wanted, address)
    folder = os.path.dirname(chosen[0])
    if {os.path.dirname(name) for name in chosen} == {folder} and f"{folder}/{FILE_NAME}" in objects:
        store = HubStore(repo, revision=store.revision, folder=folder)  # its index names the shards from here
        return store, store.list()
    return store, [objects[name] for name in chosen]


def build_index(source: FoundSource, folder: Path, *, columns: tuple[str, ...] = (), hours: float | None = None,
                seed: int = 0, problem: Problem, choose: Choose, workers: int = WORKERS,
                needs: tuple[str, ...] = ()) -> SampleIndex:
    """Return the index of a source; shards done before a stop are found in `folder` and not read again.

    With `hours`, shards are taken in a shuffled order until there is as much speech. What is no audio is told to `problem`.
    `needs` are roles without which shards are of no use: that one is missing is told at the first shard. Plain files have none.
    Raises: DataError for a damaged or vanished shard, or missing columns; ChangedError for an index of another version.
    """
    settings = parse_columns(columns)
    if source.ready is not None and (index := _read_ready(source, settings, choose, needs)) is not None:
        return index
    folder.mkdir(parents=True, exist_ok=True)
    pieces = _cut(source)
    order = permute(range(len(pieces)), len(pieces), seed).tolist() if hours else range(len(pieces))
    maker = _Piece(source, settings, folder, [pieces[i] for i in order], needs)
    parts, known_hours = [], 0.0
    unit = "shards" if source.kind != "files" else f"times {FILES_A_PIECE} files"
    with Progress(len(pieces), "index", unit=unit) as progress, \
            closing(prefetch(maker, 0, len(pieces), workers=workers)) as made:
        for part, problems in made:
            for item, reason in problems:
                problem(item, reason)
            parts.append(part)
            known_hours += part.hours
            progress.update(hours=known_hours)
            if hours and known_hours >= hours and len(parts) < len(pieces):
                choose("shards", f"{len(parts)} of {len(pieces)}",
                       f"they hold {known_hours:.1f} h, and {hours:g} h are asked for")
                break
    index = SampleIndex.join(source.store.address, parts)
    if not len(index):
        raise DataError("The source holds no audio that can be read", got=f"{len(source.objects)} files, all left aside",
                        expected="at least one sample", where=source.address, fix="see why each was left aside, above")
    return index


def _read_ready(source: FoundSource, settings: Mapping[str, str], choose: Choose, needs: tuple[str, ...]) -> SampleIndex | None:
    index = SampleIndex.from_bytes(source.store.read(FILE_NAME), f"{FILE_NAME} of {source.store.address}")
    there, named = {o.name: o.size for o in source.objects}, {s.name: s.size for s in index.shards}
    for name, size in named.items():
        if there.get(name) != size:
            raise DataError("A shard is not what the index beside it says", got="missing" if name not in there else
                            f"{there[name]} bytes", expected=f"{size} bytes", where=f"{name} of {source.store.address}",
                            fix=f"copy the shard again, or delete {FILE_NAME}: the index is then built from what is there")
    if there.keys() - named.keys():
        choose("index", "built anew", f"{len(there.keys() - named.keys())} shards are not in the one beside the data")
        return None
    choose("index", "taken as it is", f"it lies beside the data and names all {len(named)} shards")
    index = index.at(source.store.address)
    named_anew = {role: column for role, column in settings.items() if role not in ("audio", "key")}
    match_columns(index.columns, source.address, named_anew, needs)
    index.columns |= {role: index.columns[column] for role, column in named_anew.items()}
    return index


def _cut(source: FoundSource) -> list[tuple[StoredObject, ...]]:
    step = FILES_A_PIECE if source.kind == "files" else 1
    return [source.objects[i: i + step] for i in range(0, len(source.objects), step)]


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
        name = hashlib.sha256(json.dumps([self.source.store.address, sorted(self.settings.items()),
                                          [[o.name, o.size, o.version] for o in objects]]).encode()).hexdigest()[:24]
        path, told = self.folder / f"{name}.safetensors", self.folder / f"{name}.json"
        try:
            if path.exists():
                return SampleIndex.load(path), files.read_json(told)
        except ColabkitError:  # cut off, or of another version: made anew
            pass
        problems: list[list[str]] = []
        entries = []
        for number, found in enumerate(objects):
            entries += [(number, entry) for entry in self._scan(found, lambda item, reason: problems.append([item, reason]))]
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
