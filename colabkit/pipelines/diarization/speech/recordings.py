"""Real conversations with their labels, from a folder with RTTM files or from shards that say who spoke when."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from colabkit.core.errors import ColabkitError, DataError
from colabkit.core.teller import Teller
from colabkit.io import audio
from colabkit.io.samples import Samples, open_samples
from colabkit.io.samples.build import build_index
from colabkit.io.samples.index import SampleIndex
from colabkit.io.samples.source import find_source, is_folder
from colabkit.pipelines.diarization import RATE_HZ
from colabkit.pipelines.diarization.config import RecordingsConfig
from colabkit.pipelines.diarization.rttm import Turn, read_rttm, read_uem


@dataclass(frozen=True, slots=True)
class Recording:
    """One labelled recording.

    `regions` (seconds) are the parts whose labels are complete. It is read from `path`, or it is sample `number` of
    `samples`.
    """

    name: str
    path: Path | None
    turns: tuple[Turn, ...]
    regions: tuple[tuple[float, float], ...]
    samples: Samples | None = None
    number: int = 0

    @property
    def seconds(self) -> float:
        """Return the length up to the end of the last labelled region."""
        return max(end for _, end in self.regions)


def read_recording(recording: Recording) -> np.ndarray:
    """Return the whole wave, (sample,) float32 at 16 kHz."""
    if recording.samples is not None:
        return recording.samples.read_wave(recording.number, rate_hz=RATE_HZ)
    return audio.read_audio(recording.path, rate_hz=RATE_HZ)


def require_sources(config: RecordingsConfig) -> None:
    """Look up the sources that are not folders. Raises: UsageError for one that is not there or wants a token."""
    for source in (config.train_source, config.test_source):
        if source and not is_folder(source):
            find_source(source)


def list_recordings(config: RecordingsConfig, split: str, folder: Path, teller: Teller) -> list[str]:
    """List the recordings of train_source or test_source; shards get an index in `folder`. Returns their names."""
    source, _ = _settings(config, split)
    if source and not is_folder(source):
        index = build_index(find_source(source), folder / "parts", columns=config.columns, teller=teller)
        index.save(_index_path(folder, split))
    return [r.name for r in open_recordings(config, split, folder, teller)]


def open_recordings(
    config: RecordingsConfig,
    split: str,
    folder: Path,
    teller: Teller,
    *,
    cache: Path | None = None,
    cache_gib: float = 0.0,
) -> list[Recording]:
    """Return the recordings that `list_recordings` listed, ready to be read. Raises as `find_recordings`."""
    source, pattern = _settings(config, split)
    if not source or is_folder(source):
        return find_recordings(source, pattern, teller)
    return labelled_samples(open_samples(SampleIndex.load(_index_path(folder, split)), cache, cache_gib), teller)


def _settings(config: RecordingsConfig, split: str) -> tuple[str, str]:
    return (
        (config.train_source, config.train_pattern) if split == "train" else (config.test_source, config.test_pattern)
    )


def _index_path(folder: Path, split: str) -> Path:
    return folder / f"recordings-{split}.safetensors"


def labelled_samples(samples: Samples, teller: Teller) -> list[Recording]:
    """Return the samples of an index that say who spoke when. Raises: DataError when none does."""
    index, found = samples.index, []
    turns_of = index.columns["turns"] if "turns" in index.columns else [""] * len(index)
    rttm_of = index.columns["rttm"] if "rttm" in index.columns else [""] * len(index)
    for number, seconds in enumerate(index.seconds.tolist()):
        name = f"{number:05d}-{Path(index.keys[number]).name}"
        try:
            turns = _turns(turns_of[number], rttm_of[number], seconds)
        except (ColabkitError, ValueError, TypeError) as error:
            teller.problem(index.keys[number], f"labels that cannot be read: {error}".splitlines()[0])
            continue
        if turns:
            found.append(Recording(name, None, turns, ((0.0, seconds),), samples, number))
        else:
            teller.problem(index.keys[number], "no labels")
    if not found:
        raise DataError(
            "No usable recordings",
            got=f"{len(index)} samples without turns",
            where=index.address,
            expected="columns timestamps_start, timestamps_end and speakers, or KEY.rttm beside the audio",
            fix="--set recordings.columns=turn_starts=A,turn_ends=B,turn_speakers=C with the names of the columns",
        )
    return found


def _turns(rows_json: str, rttm: str, seconds: float) -> tuple[Turn, ...]:
    if rttm:
        return tuple(turn for turns in read_rttm(rttm.encode(), strict=False).values() for turn in turns)
    rows = json.loads(rows_json) if rows_json else []
    turns = [(float(start), min(float(end), seconds), str(who)) for start, end, who in rows]
    # not so for NaN
    return tuple(Turn(max(0.0, start), end, who) for start, end, who in turns if start < end and end > 0)


def find_recordings(folder: str, pattern: str, teller: Teller) -> list[Recording]:
    """Find audio files with RTTM labels in a folder; what does not fit together is told.

    Raises: DataError when the folder is missing or nothing usable is in it.
    """
    if not folder:
        return []
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise DataError(
            "The folder with recordings does not exist",
            got=folder,
            expected="audio, *.rttm and *.uem",
            where="recordings",
            fix="--set recordings.train_source=PATH or recordings.test_source=PATH",
        )
    turns, regions = _read_labels(root, pattern, teller)
    found: dict[str, Recording] = {}
    with_audio = set()
    for path in audio.find_audio(root):
        name = path.stem
        if name not in turns:
            continue
        with_audio.add(name)
        if name in found:
            teller.problem(
                path.relative_to(root).as_posix(), f"a second audio file for the labels of {name}; the first is used"
            )
            continue
        try:
            seconds = audio.audio_info(path).duration_seconds
        except ColabkitError as error:
            teller.problem(path.name, f"{error.what}; {error.fix}")
            continue
        labelled = tuple((a, min(b, seconds)) for a, b in regions.get(name, [(0.0, seconds)]) if a < seconds)
        if not labelled:
            teller.problem(path.name, "the UEM has no region inside it")
            continue
        found[name] = Recording(name, path, tuple(turns[name]), labelled)
    for name in sorted(turns.keys() - with_audio):
        teller.problem(name, "labels without an audio file of that name")
    if not found:
        raise DataError(
            "No usable recordings",
            got=folder,
            expected=f"audio files named as in {pattern}",
            where="recordings",
            fix="the second field of each RTTM line must be the audio file's name without ending",
        )
    return list(found.values())


def _read_labels(root: Path, pattern: str, teller: Teller):
    turns: dict[str, list[Turn]] = {}
    regions: dict[str, list[tuple[float, float]]] = {}
    for path in sorted(root.rglob(pattern)):
        labels = read_rttm(path, strict=False)
        for name in sorted(labels.keys() & turns.keys()):
            teller.problem(f"{path.name}, {name}", "labelled in an earlier file too; that one is used")
        turns = labels | turns
        if labels.dropped:
            teller.problem(path.name, f"{len(labels.dropped)} bad lines left out; " + "; ".join(labels.dropped[:5]))
        uem = path.with_suffix(".uem")
        if uem.is_file():
            regions = read_uem(uem) | regions
    return turns, regions
