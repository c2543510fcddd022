"""Speech for training and evaluation: read into memory where it fits, streaming through memory where it does not."""

from __future__ import annotations

from contextlib import closing

import numpy as np

from colabkit.core.errors import BrokenSampleError, DataError
from colabkit.core.permutation import permute
from colabkit.core.prefetch import prefetch
from colabkit.core.teller import Teller
from colabkit.io.samples.listing import READERS, Split
from colabkit.pipelines.diarization.speech.bank import SpeakerMaterial, SpeechBank, Utterance, prepare
from colabkit.pipelines.diarization.speech.step import Speech
from colabkit.training.stream.batch_plan import SampleOrder
from colabkit.training.stream.rolling import RollingWindow
from colabkit.training.stream.stream import Source, Stream

HELD_CHAPTERS = 4  # of speech that streams through; one more is being read


def read_utterance(split: Split, i: int) -> Utterance | None:
    """Return one sample, cut to the speech in it; None where nobody talks. Raises: BrokenSampleError, DataError."""
    return prepare(split.read_wave(i))


def load_bank(speech: Speech, split_name: str, teller: Teller, *, hours: float | None = None) -> SpeechBank:
    """Read the speech of one split into memory: all of it, or the same amount of each speaker up to `hours`."""
    speakers, split = speech.of_split(split_name), speech.listing[split_name]
    seconds_each = np.inf if hours is None else hours * 3600 / max(len(speakers), 1)
    wanted = []
    for speaker, places in speakers:
        seconds = 0.0
        for place in places[permute(np.arange(len(places)), len(places), speech.config.seed)] if hours else places:
            if seconds >= seconds_each:
                break
            wanted.append((speaker.name, int(place)))
            seconds += split.seconds[place]

    def read(k: int) -> tuple[Utterance | None, str]:
        try:
            utterance = read_utterance(split, wanted[k][1])
        except BrokenSampleError as error:
            return None, f"{error.what}; {error.fix}"
        return utterance, "" if utterance else "no speech in it"

    materials = {speaker.name: SpeakerMaterial(speaker.name, speaker.sex) for speaker, _ in speakers}
    with closing(prefetch(read, 0, len(wanted), workers=split.num_readers, ahead=4 * READERS)) as utterances:
        for (name, place), (utterance, reason) in zip(wanted, utterances, strict=True):
            if not materials[name].put(utterance):
                teller.problem(split.names[place], reason)
    return SpeechBank([m for m in materials.values() if m.waves])


def training_speech(speech: Speech, teller: Teller) -> SpeechBank | SpeechPool:
    """Return the training speech: in memory where `max_hours` allows it, else as a pool that it streams through."""
    hours = sum(s.seconds for s in speech.speakers if s.split == "train") / 3600
    limit = speech.config.max_hours
    how = (
        f"fit into speech.max_hours={limit:g}: read once, then in memory"
        if hours <= limit
        else f"are more than speech.max_hours={limit:g}: they stream through memory, nothing is stored"
    )
    if teller.choose("speech.materialise", hours <= limit, f"{hours:.2f} h of training speech {how}"):
        return load_bank(speech, "train", teller)
    return SpeechPool(speech, teller)


class SpeechPool:
    """Training speech that streams through memory: every utterance once an epoch of its source, in a shuffled order.

    Stands where a SpeechBank stands; `at(window)` is a pure function of the settings and the window's number.
    """

    def __init__(self, speech: Speech, teller: Teller):
        config, split = speech.config, speech.listing["train"]
        self.speech, self.split, self.speakers = speech, split, [speaker for speaker, _ in speech.of_split("train")]
        self.classes = {name: place for place, name in enumerate(sorted(s.name for s in self.speakers))}
        self.num_classes = len(self.classes)
        numbers = list(dict.fromkeys(s.source for s in self.speakers))
        # Of each source, the places of its samples in the split.
        self.places = {f"{n}:{config.source[n]}": np.flatnonzero(split.sources == n) for n in numbers}
        seconds = [split.seconds[places] for places in self.places.values()]
        streams = [
            Source(name, split.samples[n].index.fingerprint, SampleOrder(len(places), seed=config.seed))
            for n, (name, places) in zip(numbers, self.places.items(), strict=True)
        ]
        weights = [config.weights[n] for n in numbers] if config.weights else [float(s.sum()) for s in seconds]
        self.stream = Stream(
            streams, seed=config.seed, problem=teller.problem, schedule=weights if len(streams) > 1 else None
        )
        mean_seconds = float(np.concatenate(seconds).mean())
        chapter = max(1, int(config.max_hours * 3600 / mean_seconds / (HELD_CHAPTERS + 1)))
        self.window = RollingWindow(
            self.stream,
            self._read,
            chapter_items=chapter,
            held=HELD_CHAPTERS,
            uses_per_chapter=max(1, round(chapter * config.windows_per_utterance)),
            workers=split.num_readers,
        )
        self._bank: tuple[int, SpeechBank] | None = None
        self.teller, self._silent = teller, set()

    def _read(self, name: str, place: int) -> tuple[str, Utterance | None]:
        i = int(self.places[name][place])
        return self.split.speakers[i], read_utterance(self.split, i)

    def at(self, window: int) -> SpeechBank:
        """Return the speech in memory for a training window.

        Raises: DataError when fewer than two people talk in it.
        """
        period, shown = self.window.period(window), self._bank
        if shown is None or shown[0] != period:
            sexes = {speaker.name: speaker.sex for speaker in self.speakers}
            materials: dict[str, SpeakerMaterial] = {}
            for loaded in self.window.at(window):
                for place, (name, utterance) in loaded.samples:
                    if not materials.setdefault(name, SpeakerMaterial(name, sexes[name])).put(utterance):
                        self._tell_silent(loaded.item.source, place)
            names = sorted(name for name, material in materials.items() if material.waves)
            if len(names) < 2:
                raise DataError(
                    "Too little speech is in memory at once",
                    got=f"{len(names)} speakers",
                    expected="many",
                    where="speech.max_hours",
                    fix="--set speech.max_hours=6, or as much as memory allows",
                )
            bank = SpeechBank(
                [materials[n] for n in names], np.array([self.classes[n] for n in names]), self.num_classes
            )
            self._bank = shown = period, bank
        return shown[1]

    def _tell_silent(self, name: str, place: int) -> None:
        key = self.split.names[int(self.places[name][place])]
        if key not in self._silent:
            self._silent.add(key)
            self.teller.problem(key, "no speech in it")

    @property
    def hours(self) -> float:
        return sum(speaker.seconds for speaker in self.speakers) / 3600
