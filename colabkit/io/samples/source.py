"""Sources of samples: what an address names, which objects of it hold samples, and whether it changed."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from colabkit.core import files
from colabkit.core.errors import DataError, UsageError
from colabkit.io.audio import AUDIO_SUFFIXES
from colabkit.io.places import Pinned, StoredObject, open_place
from colabkit.io.places.addresses import HUB_BUCKETS, split_scheme
from colabkit.io.samples.columns import known_dataset
from colabkit.io.samples.hub_splits import choose_split, find_splits
from colabkit.io.samples.index import FILE_NAME

VOICES = "voices"  # the source that is made on the spot


@dataclass(frozen=True, slots=True)
class FoundSource:
    """What an address names: the store, pinned, and the objects in it that hold samples, by kind."""

    address: str
    store: Pinned
    kind: str  # "tar", "parquet" or "files"
    objects: tuple[StoredObject, ...]
    ready: StoredObject | None  # the index that lies beside the data

    @property
    def fingerprint(self) -> str:
        """Return what changes when the data does; nothing was read for it."""
        listing = [[o.name, o.size, o.version] for o in self.objects]
        return hashlib.sha256(json.dumps([self.store.address, listing]).encode()).hexdigest()[:32]


def find_source(address: str) -> FoundSource:
    """Look up what an address names: "hub:ORG/NAME/CONFIG/SPLIT", "s3://...", "gs://...",
    "hf://buckets/..." or a folder.

    Raises: UsageError for an address that names nothing, a dataset that is gone, or one that wants a token; DataError
    for a source without audio.
    """
    known_dataset(address)
    if address.startswith("hub:"):
        store, objects = _open_hub(address)
    else:
        store = Pinned(open_place(address))
        objects = store.list()
    ready = next((o for o in objects if o.name == FILE_NAME), None)
    for kind, suffixes in (("parquet", (".parquet",)), ("tar", (".tar",)), ("files", AUDIO_SUFFIXES)):
        chosen = tuple(o for o in objects if o.name.lower().endswith(suffixes))
        if chosen:
            return FoundSource(address, store, kind, chosen, ready)
    packed = next((o.name for o in objects if o.name.lower().endswith((".tar.gz", ".tgz", ".zip"))), None)
    raise DataError(
        "The source holds no audio",
        got=packed or f"{len(objects)} other files",
        where=address,
        expected="tar shards, Parquet shards or audio files (wav, flac, mp3, ogg)",
        fix="unpack it first: single samples of a compressed archive cannot be read"
        if packed
        else "correct the address",
    )


def is_folder(address: str) -> bool:
    """Say whether an address names a folder of this machine."""
    return not split_scheme(address)[0]


def fingerprint_sources(addresses: Iterable[str]) -> dict[str, str]:
    """Return fingerprints of what lies outside a run, so that a change is noticed.

    A Hub dataset is pinned to the commit that was listed, so it cannot change under a run; voices are made of the
    settings.
    """
    found = {}
    for address in addresses:
        if is_folder(address) and address != VOICES:
            found[address] = files.quick_fingerprint(Path(address).expanduser())
        elif address.startswith(("s3://", "gs://", HUB_BUCKETS)):
            found[address] = find_source(address).fingerprint
    return found


def _open_hub(address: str) -> tuple[Pinned, list[StoredObject]]:
    from colabkit.io.places.hub import HubDataset, parse_hub_address

    repo, wanted, revision = parse_hub_address(address)
    store = Pinned(HubDataset(repo, revision=revision))
    objects = {o.name: o for o in store.list()}
    splits = find_splits(objects, store.read("README.md").decode("utf-8", "replace") if "README.md" in objects else "")
    if not splits and revision is None:  # a repository with a script: the Hub keeps a converted copy
        try:
            store = Pinned(HubDataset(repo, revision="refs/convert/parquet"))
            objects = {o.name: o for o in store.list()}
        except UsageError as error:
            logging.getLogger(__name__).info("%s has no converted copy: %s", repo, error.what)
        splits = find_splits(objects, "")
    chosen = choose_split(splits, wanted, address)
    folder = os.path.dirname(chosen[0])
    if {os.path.dirname(name) for name in chosen} == {folder} and f"{folder}/{FILE_NAME}" in objects:
        store = Pinned(store.place.below(folder))  # its index names the shards from here
        return store, store.list()
    return store, [objects[name] for name in chosen]
