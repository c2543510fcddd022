"""Speech for training and evaluation: read into memory where it fits, and streaming through memory where it does not."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np

from colabkit.core.errors import BrokenSampleError, DataError
from colabkit.core.permutation import permute
from colabkit.core.prefetch import prefetch
from colabkit.io.samples import Samples, open_samples
from colabkit.pipelines.diarization import RATE_HZ
from colabkit.pipelines.diarization.config import SpeechConfig
from colabkit.pipelines.diarization.speech import step as speech_step
from colabkit.pipelines.diarization.speech.bank import SpeakerMaterial, SpeechBank, Utterance, prepare
from colabkit.pipelines.diarization.speech.step import SpeakerEntry
from colabkit.training.stream.batch_plan import SampleOrder
from colabkit.training.stream.rolling import RollingWindow
from colabkit.training.stream.stream import Source, Stream

READERS, LOCAL_READERS = 8, 2  # threads: over the network they mostly wait, on a local disk they only fight for the cores
HELD_CHAPTERS = 4  # of speech that streams through; one more is being read

Problem = Callable[[str, str], None]


class SpeechSources:
    """The listed speech of all sources, ready to be read: `open_speech` makes one."""

    def __init__(self, config: SpeechConfig, entries: list[SpeakerEntry], samples: list[Samples]):
        self.config, self.entries, self.samples = config, entries, samples
        self.speakers = [speech_step.sample_speakers(config, s.index, number) for number, s in enumerate(samples)]

    def of_split(self, split: str) -> list[tuple[SpeakerEntry, np.ndarray]]:
        """Return each speaker of a split with the numbers of their samples in their source's index."""
        numbers: dict[str, list[int]] = {e.name: [] for e in self.entries if e.split == split}
        for names in self.speakers:
            for number, name in enumerate(names):
                if name in numbers:
                    numbers[name].append(number)
        return [(e, np.array(numbers[e.name], np.int64)) for e in self.entries if e.split == split]

    @property
    def num_readers(self) -> int:
        return LOCAL_READERS if all(s.store.is_folder for s in self.samples) else READERS

    def read(self, source: int, number: int) -> Utterance | None:
        """Return one utterance, or None where nobody talks in it. Raises: BrokenSampleError, DataError."""
        return prepare(self.samples[source].read_wave(number, rate_hz=RATE_HZ))


def open_speech(config: SpeechConfig, folder: Path, cache: Path) -> SpeechSources:
    """Open what `folder`, the speech step's, lists; audio read before is looked up in `cache` where there is a budget."""
    indexes, entries = speech_step.read_listing(folder)
    return SpeechSources(config, entries, [open_samples(index, cache, config.cache_gib) for index in indexes])


def load_bank(speech: SpeechSources, split: str, *, hours: float | None = None, problem: Problem) -> SpeechBank:
    """Read the speech of one split into memory: all of it, or the same amount of each speaker up to `hours`."""
    speakers = speech.of_split(split)
    seconds_each = np.inf if hours is None else hours * 3600 / max(len(speakers), 1)
    wanted = []
    for entry, numbers in speakers:
        seconds, durations = 0.0, speech.samples[entry.source].index.seconds
        for number in numbers[permute(np.arange(len(numbers)), len(numbers), speech.config.seed)] if hours else numbers:
            if seconds >= seconds_each:
                break
            wanted.append((entry, int(number)))
            seconds += durations[number]

    def read(k: int) -> tuple[Utterance | None, str]:
        entry, number = wanted[k]
        try:
            utterance = speech.read(entry.source, number)
        except BrokenSampleError as error:
            return None, f"{error.what}; {error.fix}"
        return utterance, "" if utterance else "no speech in it"
    materials = {entry.name: SpeakerMaterial(entry.name, entry.sex) for entry, _ in speakers}
    with closing(prefetch(read, 0, len(wanted), workers=speech.num_readers, ahead=4 * READERS)) as utterances:
        for (entry, number), (utterance, reason) in zip(wanted, utterances, strict=True):
            if not materials[entry.name].put(utterance):
                problem(speech.samples[entry.source].index.keys[number], reason)
    return SpeechBank([m for m in materials.values() if m.waves])


def training_speech(speech: SpeechSources, *, problem: Problem, choose) -> SpeechBank | SpeechPool:
    """Return the training speech: in memory where `max_hours` allows it, else as a pool that it streams through."""
    entries = [e for e in speech.entries if e.split == "train"]
    hours, limit = sum(e.seconds for e in entries) / 3600, speech.config.max_hours
    if choose("speech.materialise", hours <= limit, f"{hours:.2f} h of training speech "
              + (f"fit into speech.max_hours={limit:g}: read once, then in memory" if hours <= limit else
                 f"are more than speech.max_hours={limit:g}: they stream through memory, nothing is stored")):
        return load_bank(speech, "train", problem=problem)
    return SpeechPool(speech, problem=problem)


class SpeechPool:
    """Training speech that streams through memory: every utterance once an epoch of its source, in a shuffled order.

    Stands where a SpeechBank stands; `at(window)` is a pure function of the settings and the window's number.
    """

    def __init__(self, speech: SpeechSources, *, problem: Problem):
        config, by_source = speech.config, {}
        for entry, numbers in speech.of_split("train"):
            by_source.setdefault(entry.source, []).append((entry, numbers))
        self.entries = [entry for pairs in by_source.values() for entry, _ in pairs]
        self.classes = {entry.name: place for place, entry in enumerate(sorted(self.entries, key=lambda e: e.name))}
        self.num_classes = len(self.classes)
        self.speech, self.numbers, streams, seconds = speech, {}, [], []
        for source, pairs in by_source.items():
            name, index = f"{source}:{config.source[source]}", speech.samples[source].index
            self.numbers[name] = source, np.sort(np.concatenate([numbers for _, numbers in pairs]))
            seconds.append(index.seconds[self.numbers[name][1]])
            streams.append(Source(name, index.fingerprint, SampleOrder(len(seconds[-1]), seed=config.seed)))
        weights = [config.weights[s] for s in by_source] if config.weights else [float(s.sum()) for s in seconds]
        self.stream = Stream(streams, seed=config.seed, problem=problem, schedule=weights if len(streams) > 1 else None)
        mean_seconds = float(np.concatenate(seconds).mean())
        chapter = max(1, int(config.max_hours * 3600 / mean_seconds / (HELD_CHAPTERS + 1)))
        self.window = RollingWindow(self.stream, self._read, chapter_items=chapter, held=HELD_CHAPTERS,
                                    uses_per_chapter=max(1, round(chapter * config.windows_per_utterance)),
                                    workers=speech.num_readers)
        self._bank: tuple[int, SpeechBank] | None = None
        self.problem, self._silent = problem, set()

    def _read(self, name: str, place: int) -> tuple[str, Utterance | None]:
        source, numbers = self.numbers[name]
        return self.speech.speakers[source][numbers[place]], self.speech.read(source, int(numbers[place]))

    def at(self, window: int) -> SpeechBank:
        """Return the speech in memory for a training window. Raises: DataError when fewer than two people talk in it."""
        period, shown = self.window.period(window), self._bank
        if shown is None or shown[0] != period:
            sexes = {entry.name: entry.sex for entry in self.entries}
            materials: dict[str, SpeakerMaterial] = {}
            for loaded in self.window.at(window):
                for place, (name, utterance) in loaded.samples:
                    if not materials.setdefault(name, SpeakerMaterial(name, sexes[name])).put(utterance):
                        self._tell_silent(loaded.item.source, place)
            names = sorted(name for name, material in materials.items() if material.waves)
            if len(names) < 2:
                raise DataError("Too little speech is in memory at once", got=f"{len(names)} speakers", expected="many",
                                where="speech.max_hours", fix="--set speech.max_hours=6, or as much as memory allows")
            bank = SpeechBank([materials[n] for n in names], np.array([self.classes[n] for n in names]), self.num_classes)
            self._bank = shown = period, bank
        return shown[1]

    def _tell_silent(self, name: str, place: int) -> None:
        source, numbers = self.numbers[name]
        key = self.speech.samples[source].index.keys[numbers[place]]
        if key not in self._silent:
            self._silent.add(key)
            self.problem(key, "no speech in it")

    @property
    def hours(self) -> float:
        return sum(entry.seconds for entry in self.entries) / 3600

    def state(self, window: int) -> dict:
        """Return the stream's state when all windows before this one are done."""
        return self.window.state(window)

    def load_state(self, state: dict) -> None:
        """Continue a stream. Raises: ChangedError for a state of other data."""
        self.window.load_state(state)
