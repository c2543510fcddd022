"""Single-speaker speech of any source, listed: which samples there are, who speaks, which split."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from colabkit.core import files
from colabkit.core.errors import DataError
from colabkit.io import voices
from colabkit.io.samples import build
from colabkit.io.samples.index import SampleIndex
from colabkit.io.samples.shards import ShardWriter, flac_bytes
from colabkit.io.samples.source import VOICES, find_source, is_folder
from colabkit.io.samples.splits import SPLITS, split_names
from colabkit.pipelines.diarization import RATE_HZ
from colabkit.pipelines.diarization.config import SpeechConfig


@dataclass(frozen=True, slots=True)
class SpeakerEntry:
    """One speaker in the listing: which split, in which of the sources, and how much speech there is."""

    name: str
    sex: str
    split: str
    source: int
    num_samples: int
    seconds: float

    def to_dict(self) -> dict:
        return asdict(self)


def list_samples(config: SpeechConfig, folder: Path, problem: Callable[[str, str], None], choose) -> list[SampleIndex]:
    """Make or load the index of every source, and write it to `folder`/speech-N.safetensors.

    Voices are made and written to shards. What was listed before a stop is not read again. Raises as `build_index`.
    """
    # All are looked up before any is listed: that one is missing or wants a token is told now, not after an hour.
    found = [None if address == VOICES else find_source(address) for address in config.source]
    indexes = []
    for number, source in enumerate(found):
        if source is None:
            index = write_voices(config, folder / VOICES)
        else:
            index = build.build_index(source, folder / "parts", columns=config.columns,
                                         hours=config.index_hours, seed=config.seed, problem=problem, choose=choose)
        placed = index.at("") if source is None else index  # the run's folder may lie elsewhere tomorrow
        placed.save(folder / f"speech-{number}.safetensors")
        indexes.append(index)
    return indexes


def write_voices(config: SpeechConfig, folder: Path) -> SampleIndex:
    """Make the synthetic speakers' speech and write it to shards, each voice's utterances in order."""
    with ShardWriter(folder) as writer:
        for voice in voices.make_speakers(config.num_voices, seed=config.seed, languages=config.languages):
            seconds, number = 0.0, 0
            while seconds < config.seconds_per_voice:
                wave = voices.utterance(voice, number, seed=config.seed).wave
                writer.add(f"{voice.name}-{number}", flac_bytes(wave, RATE_HZ), ".flac",
                           {"speaker": voice.name, "sex": voice.sex})
                seconds += len(wave) / RATE_HZ
                number += 1
    return writer.index


def list_speakers(config: SpeechConfig, indexes: list[SampleIndex]) -> list[SpeakerEntry]:
    """List every speaker of the sources, and give each to a split. Raises: DataError for too few speakers."""
    found: dict[str, list] = {}
    for number, index in enumerate(indexes):
        table = read_sexes(Path(index.address)) if is_folder(index.address) else {}
        sexes = index.columns["sex"].to_list() if "sex" in index.columns else [""] * len(index)
        for speaker, sex, seconds in zip(sample_speakers(config, index, number), sexes, index.seconds.tolist(), strict=True):
            entry = found.setdefault(speaker, ["", number, 0, 0.0])
            entry[0] = entry[0] or _sex(sex) or table.get(speaker.rpartition(":")[2], "")
            entry[2] += 1
            entry[3] += seconds
    splits = split_speakers(list(found), config)
    entries = [SpeakerEntry(name, sex, splits[name], number, count, round(seconds, 3))
               for name, (sex, number, count, seconds) in sorted(found.items())]
    for split in SPLITS:
        if sum(e.split == split for e in entries) < 2:
            raise DataError("Too few speakers", got=f"{len(entries)} speakers", where=", ".join(config.source),
                            expected="at least two in each of train, validation and test",
                            fix="--set speech.num_voices=20, or a larger speech.validation_fraction" if config.source == (VOICES,)
                            else "add recordings of more people; speech.speaker_from and speech.columns say how they are named")
    return entries


def sample_speakers(config: SpeechConfig, index: SampleIndex, number: int) -> list[str]:
    """Return who speaks in each sample; with several sources, names of different ones do not mix."""
    if config.speaker_from == "column" or (config.speaker_from == "auto" and "speaker" in index.columns):
        names = index.column("speaker")
        nameless = next((i for i, name in enumerate(names) if not name), None)
        if nameless is not None:
            raise DataError("A sample does not say who speaks", got=index.keys[nameless], expected="a speaker's name or number",
                            where=index.address, fix="name the speaker's column: --set speech.columns=speaker=COLUMN")
    else:
        names = [speaker_of(PurePosixPath(key), config.speaker_from) for key in index.keys.to_list()]
    return [f"{number}:{name}" for name in names] if len(config.source) > 1 else names


def split_speakers(names: list[str], config: SpeechConfig) -> dict[str, str]:
    """Assign whole speakers to splits, at least two to each; see `split_names`."""
    return split_names(names, test_fraction=config.held_out_fraction, validation_fraction=config.validation_fraction,
                       seed=config.seed, at_least=2)


def speaker_of(path: PurePosixPath, rule: str) -> str:
    """Read the speaker's name off a relative path: its top folder, or the file name up to the first dash.

    "auto" takes the folder where there is one: that of the speaker where files are named as in LibriSpeech
    (.../SPEAKER/CHAPTER/SPEAKER-CHAPTER-UTTERANCE.flac) or VoxCeleb (.../id10270/VIDEO/00001.wav), else the top one.
    Refuses paths that tell nothing.
    """
    name, dash, _ = path.stem.partition("-")
    if rule == "auto":
        for folder in path.parts[:-1]:
            if (dash and folder == name) or re.fullmatch(r"id\d{5}", folder):
                return folder
    if rule != "name" and len(path.parts) > 1:
        return path.parts[0]
    if rule == "folder" or not dash or not name:
        raise DataError("Cannot tell who speaks", got=path.as_posix(),
                        expected="SPEAKER/anything.wav" if rule == "folder" else "SPEAKER-anything.wav or SPEAKER/anything.wav",
                        where="speech.source", fix="put each speaker's files into a folder of their own, or rename them; "
                                                   "a label that is not the speaker's identity cannot teach diarization")
    return name


def read_sexes(folder: Path) -> dict[str, str]:
    """Read {speaker: "F" or "M"} from a LibriSpeech SPEAKERS.TXT in the folder or one of the two above it."""
    for place in (folder, *list(folder.resolve().parents)[:2]):
        table = place / "SPEAKERS.TXT"
        if table.is_file():
            rows = (line.split("|") for line in table.read_text(encoding="utf-8", errors="replace").splitlines()
                    if not line.startswith(";"))
            return {row[0].strip(): row[1].strip() for row in rows if len(row) > 1 and row[1].strip() in ("F", "M")}
    return {}


def _sex(value: str) -> str:
    """Read F or M off the forms that datasets use: female, F, female_feminine, m, ..."""
    first = value[:1].upper()
    return {"F": "F", "W": "F", "M": "M"}.get(first, "")


def write_listing(path: Path, config: SpeechConfig, indexes: list[SampleIndex], entries: list[SpeakerEntry], more: dict) -> None:
    """Write speech.json: the speakers, and of each source its pinned address, fingerprint and hours."""
    described = [{"source": source, "address": "" if source == VOICES else index.address, "fingerprint": index.fingerprint,
                  "samples": len(index), "hours": round(index.hours, 4)}
                 for source, index in zip(config.source, indexes, strict=True)]
    files.write_json(path, {"speakers": [e.to_dict() for e in entries], "sources": described, **more})


def read_listing(folder: Path) -> tuple[list[SampleIndex], list[SpeakerEntry]]:
    """Read what `list_samples` and `write_listing` wrote, wherever the run's folder is now."""
    listing = json.loads((folder / "speech.json").read_text(encoding="utf-8"))
    indexes = []
    for number, described in enumerate(listing["sources"]):
        index = SampleIndex.load(folder / f"speech-{number}.safetensors")
        indexes.append(index.at(described["address"] or os.fspath(folder / VOICES)))
    return indexes, [SpeakerEntry(**entry) for entry in listing["speakers"]]
