"""Single-speaker speech of any source, listed: which samples there are, who speaks, which split."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from colabkit.core import files
from colabkit.core.errors import DataError
from colabkit.core.teller import Teller
from colabkit.io import voices
from colabkit.io.samples import Samples
from colabkit.io.samples.build import build_index
from colabkit.io.samples.index import SampleIndex
from colabkit.io.samples.listing import SPLITS, Listing, Split, describe, open_sources, save_indexes, split_names
from colabkit.io.samples.shards import ShardWriter, flac_bytes
from colabkit.io.samples.source import VOICES, find_source, is_folder
from colabkit.pipelines.diarization import RATE_HZ
from colabkit.pipelines.diarization.config import SpeechConfig

SPEECH = "speech.json"


@dataclass(frozen=True, slots=True)
class SpeakerEntry:
    """One speaker in the listing: which split, in which of the sources, and how much speech there is."""

    name: str
    sex: str
    split: str
    source: int
    num_samples: int
    seconds: float


class Speech:
    """Single-speaker speech of a run, listed: its samples by split, and the speakers, by name."""

    def __init__(self, config: SpeechConfig, listing: Listing, speakers: list[SpeakerEntry]):
        self.config, self.listing, self.speakers = config, listing, speakers

    def of_split(self, split: str) -> list[tuple[SpeakerEntry, np.ndarray]]:
        """Return each speaker of a split with the places of their samples in it, in the order of their source."""
        places: dict[str, list[int]] = {speaker.name: [] for speaker in self.speakers if speaker.split == split}
        for place, name in enumerate(self.listing[split].speakers):
            places[name].append(place)
        return [(s, np.array(places[s.name], np.int64)) for s in self.speakers if s.split == split]


def list_speech(config: SpeechConfig, folder: Path, teller: Teller) -> Speech:
    """List all samples of the sources and who speaks in them, split by speaker; writes their indexes to `folder`.

    Voices are made and written to shards. What was listed before a stop is not read again. Raises as `build_index`, and
    DataError for too few speakers.
    """
    # All are looked up before any is listed: that one is missing or wants a token is told now, not after an hour.
    found = [None if address == VOICES else find_source(address) for address in config.source]
    indexes = [
        write_voices(config, folder / VOICES)
        if source is None
        else build_index(
            source, folder / "parts", columns=config.columns, hours=config.index_hours, seed=config.seed, teller=teller
        )
        for source in found
    ]
    described = describe(config.source, indexes)
    save_indexes(folder, described, indexes)
    samples = [Samples(index, source.store if source else None) for index, source in zip(indexes, found, strict=True)]
    whole = _whole(config, samples)
    speakers = list_speakers(config, whole)
    return Speech(config, _by_speaker(whole, speakers, described), speakers)


def _whole(config: SpeechConfig, samples: list[Samples]) -> Split:
    """Return all samples of the sources, with who speaks in each."""
    lengths = [len(s.index) for s in samples]
    speakers = [name for number, s in enumerate(samples) for name in sample_speakers(config, s.index, number)]
    sources, numbers = np.repeat(np.arange(len(samples)), lengths), np.concatenate([np.arange(n) for n in lengths])
    return Split("all", samples, sources, numbers, rate_hz=RATE_HZ, speakers=speakers)


def _by_speaker(whole: Split, speakers: list[SpeakerEntry], described: list[dict]) -> Listing:
    split_of = {speaker.name: speaker.split for speaker in speakers}
    wanted = np.array([split_of[name] for name in whole.speakers])
    splits = {name: whole.take(np.flatnonzero(wanted == name), name=name) for name in SPLITS}
    return Listing(splits, described, left_aside={})


def write_voices(config: SpeechConfig, folder: Path) -> SampleIndex:
    """Make the synthetic speakers' speech and write it to shards, each voice's utterances in order."""
    with ShardWriter(folder) as writer:
        for voice in voices.make_speakers(config.num_voices, seed=config.seed, languages=config.languages):
            seconds, number = 0.0, 0
            while seconds < config.seconds_per_voice:
                wave = voices.utterance(voice, number, seed=config.seed).wave
                writer.add(
                    f"{voice.name}-{number}",
                    flac_bytes(wave, RATE_HZ),
                    ".flac",
                    {"speaker": voice.name, "sex": voice.sex},
                )
                seconds += len(wave) / RATE_HZ
                number += 1
    return writer.index


def list_speakers(config: SpeechConfig, whole: Split) -> list[SpeakerEntry]:
    """List every speaker of all samples, and give each to a split. Raises: DataError for too few speakers."""
    tables = [read_sexes(Path(s.index.address)) if is_folder(s.index.address) else {} for s in whole.samples]
    found: dict[str, list] = {}
    for speaker, source, sex, seconds in zip(
        whole.speakers, whole.sources.tolist(), whole.column("sex").to_list(), whole.seconds.tolist(), strict=True
    ):
        entry = found.setdefault(speaker, ["", source, 0, 0.0])
        entry[0] = entry[0] or _sex(sex) or tables[source].get(speaker.rpartition(":")[2], "")
        entry[2] += 1
        entry[3] += seconds
    splits = split_speakers(list(found), config)
    speakers = [
        SpeakerEntry(name, sex, splits[name], source, count, round(seconds, 3))
        for name, (sex, source, count, seconds) in sorted(found.items())
    ]
    for split in SPLITS:
        if sum(s.split == split for s in speakers) < 2:
            raise DataError(
                "Too few speakers",
                got=f"{len(speakers)} speakers",
                where=", ".join(config.source),
                expected="at least two in each of train, validation and test",
                fix="--set speech.num_voices=20, or a larger speech.validation_fraction"
                if config.source == (VOICES,)
                else "add recordings of more people; speech.speaker_from and speech.columns say how they are named",
            )
    return speakers


def sample_speakers(config: SpeechConfig, index: SampleIndex, number: int) -> list[str]:
    """Return who speaks in each sample; with several sources, names of different ones do not mix."""
    if config.speaker_from == "column" or (config.speaker_from == "auto" and "speaker" in index.columns):
        names = index.column("speaker")
        nameless = next((i for i, name in enumerate(names) if not name), None)
        if nameless is not None:
            raise DataError(
                "A sample does not say who speaks",
                got=index.keys[nameless],
                expected="a speaker's name or number",
                where=index.address,
                fix="name the speaker's column: --set speech.columns=speaker=COLUMN",
            )
    else:
        names = [speaker_of(PurePosixPath(key), config.speaker_from) for key in index.keys.to_list()]
    return [f"{number}:{name}" for name in names] if len(config.source) > 1 else names


def split_speakers(names: list[str], config: SpeechConfig) -> dict[str, str]:
    """Assign whole speakers to splits, at least two to each; see `split_names`."""
    return split_names(
        names,
        test_fraction=config.held_out_fraction,
        validation_fraction=config.validation_fraction,
        seed=config.seed,
        at_least=2,
    )


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
        raise DataError(
            "Cannot tell who speaks",
            got=path.as_posix(),
            expected="SPEAKER/anything.wav" if rule == "folder" else "SPEAKER-anything.wav or SPEAKER/anything.wav",
            where="speech.source",
            fix="put each speaker's files into a folder of their own, or rename them; "
            "a label that is not the speaker's identity cannot teach diarization",
        )
    return name


def read_sexes(folder: Path) -> dict[str, str]:
    """Read {speaker: "F" or "M"} from a LibriSpeech SPEAKERS.TXT in the folder or one of the two above it."""
    for place in (folder, *list(folder.resolve().parents)[:2]):
        table = place / "SPEAKERS.TXT"
        if table.is_file():
            rows = (
                line.split("|")
                for line in table.read_text(encoding="utf-8", errors="replace").splitlines()
                if not line.startswith(";")
            )
            return {row[0].strip(): row[1].strip() for row in rows if len(row) > 1 and row[1].strip() in ("F", "M")}
    return {}


def _sex(value: str) -> str:
    """Read F or M off the forms that datasets use: female, F, female_feminine, m, ..."""
    return {"F": "F", "W": "F", "M": "M"}.get(value[:1].upper(), "")


def write_speech(folder: Path, speech: Speech, more: dict) -> None:
    """Write speech.json: the speakers, and of each source its pinned address, fingerprint and hours."""
    files.write_json(
        folder / SPEECH,
        {"speakers": [asdict(s) for s in speech.speakers], "sources": speech.listing.described, **more},
    )


def open_speech(config: SpeechConfig, folder: Path, cache: Path | None = None) -> Speech:
    """Open what the step wrote to `folder`, wherever it is now; audio read before is looked up in `cache` if asked.

    Raises: StateError, DataError for missing or damaged files.
    """
    listing = files.read_json(folder / SPEECH)
    speakers = [SpeakerEntry(**entry) for entry in listing["speakers"]]
    whole = _whole(config, open_sources(folder, listing["sources"], cache, config.cache_gib))
    return Speech(config, _by_speaker(whole, speakers, listing["sources"]), speakers)
