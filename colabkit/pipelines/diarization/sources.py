"""Single-speaker speech from a folder or made on the spot: what is there, who speaks, which split."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from colabkit.core import files
from colabkit.core.errors import ColabkitError, DataError
from colabkit.io import audio, voices
from colabkit.pipelines.diarization import RATE_HZ
from colabkit.pipelines.diarization.config import SpeechConfig
from colabkit.pipelines.diarization.speech import SpeakerMaterial, SpeechBank

SPLITS = ("train", "validation", "test")
NUM_LARGE = 400  # speakers; with fewer the shares of a hash are left to chance


@dataclass(frozen=True, slots=True)
class SpeakerEntry:
    """One speaker in the listing: which split, and the files or the voice that hold the speech."""

    name: str
    sex: str
    split: str
    files: tuple[str, ...]  # relative to the folder; empty for a voice

    def to_dict(self) -> dict:
        return {"name": self.name, "sex": self.sex, "split": self.split, "files": list(self.files)}

    @classmethod
    def from_dict(cls, data: dict) -> SpeakerEntry:
        return cls(data["name"], data["sex"], data["split"], tuple(data["files"]))


def fingerprint_inputs(config: SpeechConfig) -> dict[str, str]:
    """Return fingerprints of the user's folder, so that changed recordings are noticed."""
    return {config.folder: files.quick_fingerprint(_folder(config))} if config.source == "folder" else {}


def list_speakers(config: SpeechConfig, problem: Callable[[str, str], None]) -> list[SpeakerEntry]:
    """List every speaker with usable speech; each file is decoded once, broken ones are told to `problem`.

    Raises: DataError for a missing or empty folder, or too few speakers.
    """
    if config.source == "voices":
        found = {v.name: (v.sex, ()) for v in make_voices(config)}
    else:
        found = _list_folder(config, problem)
    splits = split_speakers(list(found), config)
    entries = [SpeakerEntry(name, sex, splits[name], paths) for name, (sex, paths) in sorted(found.items())]
    for split in SPLITS:
        if sum(e.split == split for e in entries) < 2:
            raise DataError("Too few speakers", got=f"{len(entries)} speakers with usable speech",
                            expected="at least two in each of train, validation and test",
                            where=config.folder or "voices",
                            fix="add recordings of more people; speech.speaker_from says how their names are read"
                            if config.folder else "--set speech.num_voices=20, or a larger speech.validation_fraction")
    return entries


def split_speakers(names: list[str], config: SpeechConfig) -> dict[str, str]:
    """Assign whole speakers to splits by a hash of their name and the seed.

    In a large set adding speakers moves no other; in a small one every split gets its share, at least two.
    """
    def share(name: str) -> float:
        return int.from_bytes(hashlib.sha1(f"{config.seed}/{name}".encode()).digest()[:8], "big") / 2**64

    test, validation = config.held_out_fraction, config.held_out_fraction + config.validation_fraction
    places = {name: share(name) for name in names}
    if len(names) < NUM_LARGE:
        places = {name: rank for rank, name in enumerate(sorted(names, key=share))}
        test = max(round(config.held_out_fraction * len(names)), 2)
        validation = test + max(round(config.validation_fraction * len(names)), 2)
    return {n: "test" if places[n] < test else "validation" if places[n] < validation else "train" for n in names}


def load_bank(config: SpeechConfig, entries: list[SpeakerEntry], split: str) -> SpeechBank:
    """Decode or make the speech of one split into memory, the same amount of each speaker, up to max_hours."""
    chosen = [e for e in entries if e.split == split]
    seconds_each = config.max_hours * 3600 / len(entries)
    makers = {v.name: v for v in make_voices(config)} if config.source == "voices" else {}
    speakers = []
    for entry in chosen:
        material = SpeakerMaterial(entry.name, entry.sex)
        waves = _voice_waves(makers[entry.name], config) if makers else \
            (audio.read_audio(_folder(config) / path, rate_hz=RATE_HZ) for path in entry.files)
        seconds = 0.0
        for wave in waves:
            material.add(wave)
            seconds += len(wave) / RATE_HZ
            if seconds >= seconds_each:
                break
        if material.waves:
            speakers.append(material)
    return SpeechBank(speakers)


def make_voices(config: SpeechConfig) -> tuple[voices.Speaker, ...]:
    """Return the synthetic speakers of a config; their speech is made when it is asked for."""
    return voices.make_speakers(config.num_voices, seed=config.seed, languages=config.languages)


def _voice_waves(voice, config: SpeechConfig):
    seconds, index = 0.0, 0
    while seconds < config.seconds_per_voice:
        utterance = voices.utterance(voice, index, seed=config.seed)
        seconds += len(utterance.wave) / RATE_HZ
        index += 1
        yield utterance.wave


def _folder(config: SpeechConfig) -> Path:
    return Path(os.path.expanduser(config.folder))


def _list_folder(config: SpeechConfig, problem: Callable[[str, str], None]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return {speaker: (sex, files)} of a folder, after decoding each file that will be used."""
    folder = _folder(config)
    if not folder.is_dir():
        raise DataError("The folder with speech does not exist", got=config.folder, expected="a folder of audio files",
                        where="speech.folder", fix="--set speech.folder=PATH, or --preset demo, which needs no files")
    paths = audio.find_audio(folder)
    if not paths:
        raise DataError("The folder with speech holds no audio", got=f"{sum(1 for _ in folder.rglob('*'))} other files",
                        expected="wav, flac, mp3 or ogg files", where=folder, fix="--set speech.folder=PATH of the recordings")
    by_speaker: dict[str, list[Path]] = {}
    for path in paths:
        by_speaker.setdefault(speaker_of(path.relative_to(folder), config.speaker_from), []).append(path)
    sexes = read_sexes(folder)
    seconds_each = config.max_hours * 3600 / len(by_speaker)
    found = {}
    for name, candidates in by_speaker.items():
        usable = _usable(candidates, folder, seconds_each, problem)
        if usable:
            found[name] = (sexes.get(name, ""), usable)
    return found


def _usable(paths: list[Path], folder: Path, seconds_each: float, problem: Callable[[str, str], None]) -> tuple[str, ...]:
    """Return the files of one speaker that decode and hold speech, until there is enough."""
    kept, seconds = [], 0.0
    for path in paths:
        if seconds >= seconds_each:
            break
        name = path.relative_to(folder).as_posix()
        try:
            wave = audio.read_audio(path, rate_hz=RATE_HZ)
            if not SpeakerMaterial(name).add(wave):
                problem(name, "no speech in it")
                continue
        except ColabkitError as error:
            problem(name, f"{error.what}; {error.fix}")
            continue
        kept.append(name)
        seconds += len(wave) / RATE_HZ
    return tuple(kept)


def speaker_of(path: Path, rule: str) -> str:
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
                        where="speech.folder", fix="put each speaker's files into a folder of their own, or rename them; "
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
