"""Transcribed speech of any source, listed: which samples there are, what is said in them, which split they are in."""

from __future__ import annotations

import os
import posixpath
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from colabkit.core import files
from colabkit.core.errors import DataError, UsageError
from colabkit.core.teller import Teller
from colabkit.io.samples import Samples
from colabkit.io.samples.build import build_index
from colabkit.io.samples.columns import parse_columns
from colabkit.io.samples.index import SampleIndex, Text
from colabkit.io.samples.listing import SPLITS, Listing, Split, describe, split_names, write_listing
from colabkit.io.samples.source import VOICES, FoundSource, find_source, fingerprint_sources, is_folder
from colabkit.pipelines.asr import RATE_HZ
from colabkit.pipelines.asr.config import DataConfig
from colabkit.pipelines.asr.data.made_speech import write_voices
from colabkit.pipelines.asr.data.transcripts import Transcript, find_transcripts, is_table

NUM_TOLD = 10  # samples left aside for one reason that are named; the others are counted
_FEWEST_SPEAKERS = 3  # with fewer, whole speakers cannot fill three splits
_LEAST_SHARE = 0.5  # of what training should get, that a split by speakers must leave it


class Aside:
    """Counts what is left aside by reason, and tells the first few of each; `finish` tells how many more there are."""

    def __init__(self, teller: Teller):
        self.teller, self.counts = teller, Counter()

    def __call__(self, name: str, reason: str, detail: str = "") -> None:
        self.counts[reason] += 1
        if self.counts[reason] <= NUM_TOLD:
            self.teller.problem(name, reason + (f": {detail}" if detail else ""))

    def finish(self) -> None:
        for reason, count in self.counts.items():
            if count > NUM_TOLD:
                self.teller.problem(f"{count - NUM_TOLD} more samples ({reason})", reason)


@dataclass(frozen=True)
class _Wanted:
    """One source, looked up and not yet read. Without `found` it is made on the spot."""

    address: str
    found: FoundSource | None
    transcripts: dict[str, Transcript] | None  # of plain files, by their names


def fingerprint_inputs(config: DataConfig) -> dict[str, str]:
    """Return fingerprints of what lies outside the run, so that a change is noticed."""
    places = [
        os.path.dirname(os.path.abspath(os.path.expanduser(a))) if is_table(a) else a
        for a in (*config.source, *filter(None, [config.test_source]))
    ]
    found = fingerprint_sources(places)
    outside = Path(config.transcripts).expanduser()
    if config.transcripts and outside.is_file():
        found[config.transcripts] = files.quick_fingerprint(outside)
    return found


def list_samples(config: DataConfig, folder: Path, teller: Teller, *, language: str = "en") -> Listing:
    """List all samples of the sources with their transcripts, split them, and write the listing to `folder`.

    Voices are made, in `language`, and written to shards there. What was read before a stop is not read again. Raises:
    UsageError for a source that is not there or wants a token; DataError for one without audio, without transcripts or
    without a usable sample.
    """
    addresses = [*config.source, *filter(None, [config.test_source])]
    aside = Aside(teller)
    # All are looked up before any is listed: that one is missing or wants a token is told now, not after an hour.
    wanted = [_look_up(config, address, aside) for address in addresses]
    indexes = [_read(config, source, folder, language, teller) for source in wanted]
    usable = [_usable(config, index, source, aside) for index, source in zip(indexes, wanted, strict=True)]
    aside.finish()
    stores = [source.found.store if source.found else None for source in wanted]
    splits = _split(config, [Samples(*opened) for opened in zip(indexes, stores, strict=True)], usable, teller)
    listing = Listing(splits, describe(addresses, indexes), aside.counts)
    write_listing(folder, listing, indexes)
    files.remove_generation(folder / "parts")
    return listing


def _look_up(config: DataConfig, address: str, aside: Aside) -> _Wanted:
    if address == VOICES:
        return _Wanted(address, None, None)
    setting = config.transcripts
    place, alone = address, len(config.source) == 1 and not config.test_source
    if is_folder(address) and is_table(address):
        place, setting = posixpath.split(os.path.expanduser(address))
    found = find_source(place or ".")
    if found.kind != "files":
        if setting and alone:
            raise UsageError(
                "Transcripts in a file go with audio files only",
                got=setting,
                where=address,
                expected="shards that hold the text of each sample",
                fix="leave data.transcripts empty",
            )
        return _Wanted(address, found, None)
    names = [o.name for o in found.objects]
    if setting and not alone and place == address and setting not in {o.name for o in found.store.list()}:
        setting = ""  # it is that of another source
    transcripts = find_transcripts(
        found.store, names, aside.teller, setting=setting, columns=parse_columns(config.columns)
    )
    if setting and not setting.endswith(".trans.txt"):
        return _Wanted(address, _only(found, transcripts), transcripts)  # the table says what is meant
    for name in names:
        if name not in transcripts:
            aside(name, "it has no transcript")
    return _Wanted(address, _only(found, transcripts), transcripts)


def _only(found: FoundSource, transcripts: dict[str, Transcript]) -> FoundSource:
    """Return the source with the files that have a transcript: others need not be read."""
    return replace(found, objects=tuple(o for o in found.objects if o.name in transcripts), ready=None)


def _read(config: DataConfig, wanted: _Wanted, folder: Path, language: str, teller: Teller) -> SampleIndex:
    if wanted.found is None:
        return write_voices(config, language, folder / VOICES)
    is_files = wanted.transcripts is not None
    index = build_index(
        wanted.found,
        folder / "parts",
        columns=() if is_files else config.columns,
        teller=teller,
        hours=config.index_hours,
        seed=config.seed,
        needs=() if is_files else ("text",),
    )
    if is_files:
        rows = [wanted.transcripts[key] for key in index.keys.to_list()]
        index.columns["text"] = Text.of(row.text for row in rows)
        if any(row.speaker for row in rows):
            index.columns["speaker"] = Text.of(row.speaker for row in rows)
    return index


def _usable(config: DataConfig, index: SampleIndex, wanted: _Wanted, aside: Aside) -> np.ndarray:
    """Return the numbers of the samples that have a text and a fitting length. Raises: DataError where none has."""
    texts = index.columns["text"]
    empty = np.diff(texts.stops, prepend=0) == 0
    seconds = index.seconds
    short, long = seconds < config.shortest_seconds, seconds > config.longest_seconds
    for i in np.flatnonzero(~empty & ~short & ~long):
        empty[i] = not texts[int(i)].strip()
    reasons = {
        "its transcript is empty": empty,
        f"it is shorter than data.shortest_seconds={config.shortest_seconds:g}": short,
        f"it is longer than data.longest_seconds={config.longest_seconds:g}": long,
    }
    for i in np.flatnonzero(empty | short | long):
        reason = next(reason for reason, holds in reasons.items() if holds[i])
        aside(index.keys[int(i)], reason, "" if empty[i] else f"{seconds[i]:.2f} s")
    usable = np.flatnonzero(~(empty | short | long))
    if not len(usable):
        counts = {"with an empty transcript": empty.sum(), "too short": short.sum(), "too long": long.sum()}
        raise DataError(
            "The source holds no sample that can be used",
            where=wanted.address,
            expected="audio with a text",
            got=f"{len(index)} samples: " + ", ".join(f"{n} {what}" for what, n in counts.items() if n),
            fix="name the column of the text with data.columns=text=COLUMN"
            if empty.sum() * 2 > len(index)
            else "change data.shortest_seconds or data.longest_seconds",
        )
    return usable


def _split(config: DataConfig, samples: list[Samples], usable: list[np.ndarray], teller: Teller) -> dict[str, Split]:
    """Give every usable sample to a split; those of the test source are all held out."""
    num_sources = len(config.source)
    sources = np.concatenate([np.full(len(u), i, np.int64) for i, u in enumerate(usable)])
    whole = Split("all", samples, sources, np.concatenate(usable), rate_hz=RATE_HZ)
    mixed = np.flatnonzero(sources < num_sources)
    places = _places(config, whole.take(mixed), teller)
    found = {name: mixed[places == k] for k, name in enumerate(SPLITS)}
    if config.test_source:
        found["test"] = np.flatnonzero(sources >= num_sources)
    for name, chosen in found.items():
        if not len(chosen):
            raise DataError(
                f"Nothing is left for the split {name}",
                got=f"{len(whole)} usable samples",
                expected="at least one in each of train, validation and test",
                where=", ".join(config.source),
                fix="add more speech, or change data.held_out_fraction and data.validation_fraction",
            )
    return {name: whole.take(chosen, name=name) for name, chosen in found.items()}


def _places(config: DataConfig, split: Split, teller: Teller) -> np.ndarray:
    """Return the place in SPLITS of each sample: by speaker where that is asked for, or possible. Shape: (sample,)."""
    shares = {
        "test_fraction": 0.0 if config.test_source else config.held_out_fraction,
        "validation_fraction": config.validation_fraction,
        "seed": config.seed,
    }
    speakers = split.speakers
    nameless, num_speakers = speakers.count(""), len(set(speakers) - {""})
    if config.split_by == "speaker" and (nameless or num_speakers < _FEWEST_SPEAKERS):
        raise DataError(
            "Cannot split by speaker",
            got=f"{num_speakers} speakers, {nameless} samples without one",
            expected=f"at least {_FEWEST_SPEAKERS} speakers, and one of them for every sample",
            where="data.split_by",
            fix="name the column with data.columns=speaker=COLUMN, or set data.split_by=sample",
        )
    reason = "it is set"
    if config.split_by != "sample":
        by_speaker = _to_places(speakers, shares)
        if config.split_by == "speaker":
            return _chosen(teller, "speaker", reason, by_speaker, split)
        least = _LEAST_SHARE * (1 - shares["test_fraction"] - shares["validation_fraction"])
        if nameless or num_speakers < _FEWEST_SPEAKERS:
            reason = (
                f"{nameless} samples do not say who speaks" if nameless else f"there are only {num_speakers} speakers"
            )
        elif split.seconds[by_speaker == 0].sum() < least * split.seconds.sum():
            reason = "a few speakers have most of the speech: apart from them too little would be left to train on"
        else:
            return _chosen(
                teller,
                "speaker",
                f"{num_speakers} speakers are known: those held out are not heard in training",
                by_speaker,
                split,
            )
    names = [f"{source}:{name}" for source, name in zip(split.sources.tolist(), split.names.to_list(), strict=True)]
    return _chosen(teller, "sample", reason, _to_places(names, shares), split)


def _to_places(names: list[str], shares: dict) -> np.ndarray:
    chosen = split_names(names, **shares)
    return np.array([SPLITS.index(chosen[name]) for name in names], np.int64)


def _chosen(teller: Teller, value: str, reason: str, places: np.ndarray, split: Split) -> np.ndarray:
    hours = ", ".join(f"{name} {split.seconds[places == k].sum() / 3600:.2f} h" for k, name in enumerate(SPLITS))
    teller.choose("data.split_by", value, f"{reason} ({hours})")
    return places
