"""Sources of a run: recordings to cut, segments to send, and fingerprints of what lies outside the run."""

from __future__ import annotations

import hashlib
from pathlib import Path

from colabkit.core.errors import UsageError
from colabkit.core.teller import Teller
from colabkit.io.samples.source import VOICES, fingerprint_sources, is_folder
from colabkit.pipelines.dataset.config import SegmentsConfig
from colabkit.pipelines.dataset.store.open import CODES, SEGMENTS, open_store
from colabkit.runs.steps import Sections

PROFILE = "profile.json"  # in the store: what the card is to say
_MADE = "recordings"  # folder of made-up radio


def find_recordings(config: SegmentsConfig, folder: Path, teller: Teller) -> list:
    """Return the recordings to cut; made-up ones are made below `folder` first."""
    from colabkit.pipelines.dataset.cut import recordings

    if config.source != VOICES:
        return recordings.find_recordings(
            config.source,
            work=folder / "index",
            name_regex=config.name_regex,
            metadata=config.metadata,
            transcript=config.transcripts,
            columns=config.columns,
            teller=teller,
        )
    from colabkit.pipelines.dataset.cut.made import TRANSCRIPT, made_recordings

    made = folder / _MADE
    if not (made / TRANSCRIPT).exists():  # written last
        made_recordings(made, num_channels=config.num_channels, seconds=config.seconds_per_channel, seed=config.seed)
    return recordings.find_recordings(
        str(made), work=folder / "index", transcript=str(made / TRANSCRIPT), teller=teller
    )


def segments_of(config: SegmentsConfig, step_folder: Path) -> Path:
    """Return the folder with the segments of this machine: those that were cut, or those that were there."""
    return step_folder / SEGMENTS if config.kind == "recordings" else Path(config.source).expanduser()


def require_folder(config: SegmentsConfig) -> None:
    """Raise UsageError when segments that are taken as they are do not lie in a folder of this machine."""
    if not is_folder(config.source) or not Path(config.source).expanduser().is_dir():
        raise UsageError(
            "Segments to upload must lie in a folder of this machine",
            got=config.source,
            where="segments.source",
            expected="a folder with *.npz, or with tar shards and their index",
            fix="name the folder; where they lie in a bucket already, name that as store.address and leave "
            "segments.source empty",
        )


def fingerprint_source(config: SegmentsConfig) -> dict[str, str]:
    """Return what changes when the source does."""
    if config.kind == "segments":
        require_folder(config)
    tables = [table for table in (config.metadata, config.transcripts) if table]
    return fingerprint_sources([config.source, *tables])


def fingerprint_uploaded(config: Sections) -> dict[str, str]:
    """Return what changes when the segments of the store do."""
    from colabkit.pipelines.dataset.store.items import read_source

    place = open_store(config.store, config.run_folder).below(SEGMENTS)
    items, _ = read_source(place, problem=lambda item, reason: None)
    digest = hashlib.sha256()
    for i, (key, name, version) in enumerate(zip(items.keys, items.objects, items.versions, strict=True)):
        content = int(items.crc32[i]) if items.crc32[i] >= 0 else version
        digest.update(
            f"{key}\0{name}\0{items.offset[i]}\0{items.length[i]}\0{content}\n".encode("utf-8", "surrogateescape")
        )
    return {f"{SEGMENTS}/ of the store": digest.hexdigest()[:32]}


def fingerprint_encoded(config: Sections) -> dict[str, str]:
    """Return what changes when the codes of the store do."""
    from colabkit.pipelines.dataset.store.commit import read_manifest

    found = read_manifest(open_store(config.store, config.run_folder))
    if found is None:
        raise UsageError(
            "The store holds no codes yet, or not all of them",
            where=f"{CODES}/ of the store",
            expected="what 04_encode writes last",
            fix="run 04_encode first, here or on the machine with the GPU",
        )
    pieces = sorted((piece["object"], piece["sha256"]) for piece in found[0]["pieces"])
    return {f"{CODES}/ of the store": hashlib.sha256(repr(pieces).encode()).hexdigest()[:32]}
