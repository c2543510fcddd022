"""Speech streamed through memory: a pure function of the window, every utterance once an epoch, resumes bit for bit."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from colabkit.core.errors import ChangedError, DataError
from colabkit.io.samples.shards import ShardWriter, flac_bytes
from colabkit.pipelines.diarization.config import SpeechConfig
from colabkit.pipelines.diarization.conversations import simulate
from colabkit.pipelines.diarization.speech import pool as pools
from colabkit.pipelines.diarization.speech.bank import SpeechBank
from colabkit.pipelines.diarization.speech.pool import SpeechPool, load_bank, training_speech
from colabkit.pipelines.diarization.speech.step import Speech, list_speech, open_speech, write_speech
from colabkit.pipelines.diarization.train.batches import TrainingBatches
from tests.pipelines.diarization.batches import same, take

SECONDS = 1.0
TAKES = 4


def max_hours(chapter: int) -> float:
    """Return the setting that makes chapters of so many utterances."""
    return (chapter + 0.01) * (pools.HELD_CHAPTERS + 1) * SECONDS / 3_600


@pytest.fixture(autouse=True)
def few_sounds(monkeypatch):
    """Rooms and noises take longer to make than all else here."""
    monkeypatch.setattr(simulate, "NUM_ROOMS", 2)
    monkeypatch.setattr(simulate, "NUM_NOISES", 2)


@pytest.fixture(scope="module")
def shards(tmp_path_factory, make_buzz):
    """Return a writer of shards of 14 people, four utterances each; `silent` names those in which nobody talks."""
    waves = {(i, j): make_buzz(SECONDS, f0_hz=90.0 + 11 * i, seed=10 * i + j) for i in range(14) for j in range(TAKES)}

    def make(people=range(14), silent=()) -> str:
        folder = tmp_path_factory.mktemp("shards")
        with ShardWriter(folder, shard_bytes=150_000) as writer:
            for i in people:
                for j in range(TAKES):
                    wave = waves[i, j] * (f"{i}-{j}" not in silent)
                    writer.add(
                        f"{i}-{j}", flac_bytes(wave, 16_000), ".flac", {"speaker": f"p{i:02d}", "sex": "FM"[i % 2]}
                    )
        return str(folder)

    return make


@pytest.fixture(scope="module")
def folder(shards):
    return shards()


@pytest.fixture
def speech_of(tmp_path_factory, told):
    """Return a function that lists sources and opens them, as the steps of the recipe do."""

    def make(*addresses: str, chapter: int = 3, **how) -> Speech:
        config = SpeechConfig(**{"source": addresses, "max_hours": max_hours(chapter), "held_out_fraction": 0.15} | how)
        place = tmp_path_factory.mktemp("listing")
        write_speech(place, list_speech(config, place, told), {})
        return open_speech(config, place, place / "cache")

    return make


@pytest.fixture
def pool_of(speech_of, told):
    """Return a function that makes a pool, whose reading ahead ends with the test."""
    made = []

    def make(*addresses: str, speech: Speech | None = None, **how) -> SpeechPool:
        made.append(SpeechPool(speech or speech_of(*addresses, **how), told))
        return made[-1]

    yield make
    for pool in made:
        pool.window.close()


def seen(bank: SpeechBank) -> list:
    """What makes two banks the same to a simulator."""
    return [
        (s.name, s.sex, int(c), [w.tobytes() for w in s.waves], [m.tobytes() for m in s.masks])
        for s, c in zip(bank.speakers, bank.ids, strict=True)
    ] + [bank.num_classes, [b.tolist() for b in bank.by_sex]]


def utterances(bank: SpeechBank) -> Counter:
    return Counter(wave.tobytes() for speaker in bank.speakers for wave in speaker.waves)


@pytest.mark.parametrize("windows_per_utterance", [0.1, 1.0, 4.0])
def test_what_is_in_memory_at_a_window_does_not_depend_on_the_windows_before(pool_of, folder, windows_per_utterance):
    pool = pool_of(folder, windows_per_utterance=windows_per_utterance)
    in_order = {window: seen(pool.at(window)) for window in range(60)}
    assert len(set(map(str, in_order.values()))) >= min(60, 60 / 3 / windows_per_utterance)
    for window in (59, 3, 40, 41, 0):
        assert seen(pool.at(window)) == in_order[window]
    for start in (0, 23, 50):
        fresh = pool_of(speech=pool.speech)
        assert [seen(fresh.at(w)) for w in range(start, start + 8)] == [in_order[w] for w in range(start, start + 8)]


def test_every_training_utterance_comes_once_an_epoch_and_no_other(pool_of, folder, problems, told):
    pool = pool_of(folder, chapter=1, windows_per_utterance=1.0)
    everything = utterances(load_bank(pool.speech, "train", told))
    num = sum(e.num_samples for e in pool.speakers)
    assert len(everything) == num == sum(everything.values()) > 30
    for epoch in range(3):
        got = Counter()
        for chapter in range(epoch * num, (epoch + 1) * num):
            ((name, utterance),) = pool.window.at(chapter)[0].values
            got[utterance.wave.tobytes()] += 1
            assert name in {e.name for e in pool.speakers}
        assert got == everything
    assert problems == {}


def test_classes_are_the_same_at_every_window_and_of_training_speakers_alone(pool_of, folder):
    pool = pool_of(folder)
    names = sorted(e.name for e in pool.speech.speakers if e.split == "train")
    assert pool.num_classes == len(names) == len(pool.speakers)
    assert pool.hours == pytest.approx(len(names) * TAKES * SECONDS / 3_600)
    met = {}
    for window in range(0, 200, 7):
        bank = pool.at(window)
        assert bank.num_classes == len(names) and [s.name for s in bank.speakers] == sorted(
            s.name for s in bank.speakers
        )
        met |= {s.name: int(c) for s, c in zip(bank.speakers, bank.ids, strict=True)}
        assert all(s.sex == "FM"[int(s.name[1:]) % 2] for s in bank.speakers)
    assert met == {name: place for place, name in enumerate(names)}


def batches_of(bank, make_simulator, **how) -> TrainingBatches:
    simulator = make_simulator(bank, window_seconds=1.0, **how)
    return TrainingBatches(simulator, None, real_fraction=0.0, effective_batch=3, seed=0)


@pytest.mark.parametrize("chapter, windows_per_utterance", [(2, 1.0), (5, 0.7), (3, 4.0)])
def test_batches_of_a_run_that_was_stopped_are_those_of_one_that_was_not(
    pool_of, speech_of, folder, make_simulator, chapter, windows_per_utterance
):
    speech = speech_of(folder, chapter=chapter, windows_per_utterance=windows_per_utterance)
    undisturbed = batches_of(pool_of(speech=speech), make_simulator)
    wanted = take(undisturbed, 0, 40)
    assert (undisturbed.state(40)["speech"]["epoch"] > 0) == (windows_per_utterance < 4)
    for step in (1, 7, 23, 36):
        first = batches_of(pool_of(speech=speech), make_simulator)
        take(first, 0, min(step, 3))
        states = first.state(step)
        again = batches_of(pool_of(speech=speech), make_simulator)
        again.load_state(states)
        assert same(take(again, step, 4), wanted[step : step + 4])


def test_the_state_is_small_and_says_where_the_windows_are(pool_of, folder, make_simulator):
    pool = pool_of(folder)
    batches, num = batches_of(pool, make_simulator), sum(e.num_samples for e in pool.speakers)
    states = [batches.state(step)["speech"] for step in range(0, 90, 10)]
    assert [s["consumed"] + num * s["epoch"] for s in states] == [10 * k * 3 // 12 * 3 for k in range(9)]
    assert len(str(states[-1])) < 1_000


def test_a_state_of_other_speech_is_refused(pool_of, folder, shards, make_simulator):
    batches = batches_of(pool_of(folder), make_simulator)
    other = batches_of(pool_of(shards(silent=("3-1",))), make_simulator)
    for states in (other.state(5), {}, batches_of(pool_of(folder, seed=5), make_simulator).state(5)):
        with pytest.raises(ChangedError):
            batches.load_state(states)


def corrupt(folder: str, pool: SpeechPool, numbers: list[int]) -> list[str]:
    """Change a byte in the middle of some samples and return their keys."""
    index = pool.split.samples[0].index
    for number in numbers:
        path = Path(folder) / index.shards[index.arrays["shard"][number]].name
        content = bytearray(path.read_bytes())
        content[index.arrays["offset"][number] + index.arrays["length"][number] // 2] ^= 0xFF
        path.write_bytes(content)
    return [index.keys[number] for number in numbers]


def test_broken_utterances_are_left_out_and_told_and_training_goes_on(
    pool_of, speech_of, shards, make_simulator, problems
):
    folder = shards()
    pool = pool_of(folder)
    source = pool.split.numbers[pool.places[f"0:{folder}"]]
    keys = corrupt(folder, pool, [int(source[5]), int(source[11])])
    batches = batches_of(pool_of(speech=pool.speech), make_simulator)
    wanted = take(batches, 0, 60)
    state = batches.state(60)
    assert state["speech"]["quarantined"] == {f"0:{folder}": [5, 11]} and len(problems) == 2
    assert all(any(key in reason for key in keys) for reason in problems.values())
    again = batches_of(pool_of(speech=pool.speech), make_simulator)
    again.load_state(state)
    assert same(take(again, 30, 10), wanted[30:40])


def test_broken_utterances_beyond_measure_stop_training_with_the_reason(pool_of, shards, make_simulator):
    folder = shards()
    pool = pool_of(folder)
    pool.stream.max_quarantined = 5
    corrupt(folder, pool, list(range(TAKES * 14)))
    with pytest.raises(DataError, match="Too many samples are broken"):
        take(batches_of(pool, make_simulator), 0, 100)


def test_a_source_that_does_not_answer_stops_training_and_a_new_start_goes_on(
    pool_of, folder, make_simulator, problems
):
    wanted = take(batches_of(pool_of(folder), make_simulator), 0, 12)
    pool = pool_of(folder)
    samples, reads = pool.split.samples[0], [0]
    read_bytes = samples.read_bytes

    def shaky(number):
        reads[0] += 1
        if reads[0] == 17:
            raise DataError("the network is down", fix="wait")
        return read_bytes(number)

    samples.read_bytes = shaky
    batches = batches_of(pool, make_simulator)
    with pytest.raises(DataError, match="the network is down"):
        take(batches, 0, 12)
    assert same(take(batches, 0, 12), wanted) and problems == {}


def test_utterances_in_which_nobody_talks_are_passed_over(pool_of, shards, make_simulator):
    silent = [f"{i}-{j}" for i in range(14) for j in (0, 2)]
    pool = pool_of(shards(silent=silent), chapter=4)
    for window in range(0, 100, 16):
        assert all(s.waves for s in pool.at(window).speakers)
    take(batches_of(pool, make_simulator), 0, 5)


def test_too_few_people_in_memory_are_told_with_the_setting(pool_of, shards, folder, make_simulator):
    everything = [f"{i}-{j}" for i in range(14) for j in range(TAKES)]
    with pytest.raises(DataError) as caught:
        pool_of(shards(silent=everything)).at(0)
    assert "speech.max_hours" in caught.value.fix
    with pytest.raises(DataError) as caught:  # two or three are there, and six are to talk
        take(batches_of(pool_of(folder, chapter=1), make_simulator, speaker_counts={6: 1.0}, max_speakers=6), 0, 50)
    assert "speech.max_hours" in caught.value.fix


def test_several_sources_come_with_their_weights_and_do_not_mix_names(pool_of, shards, make_simulator):
    first, second = shards(range(8)), shards(range(7, 14))
    pool = pool_of(first, second, weights=(3.0, 1.0), windows_per_utterance=1.0)
    assert {name.partition(":")[0] for name in pool.classes} == {"0", "1"} and pool.num_classes == len(pool.speakers)
    counts = Counter(pool.stream.item(n).source for n in range(400))
    assert counts[f"0:{first}"] / counts[f"1:{second}"] == pytest.approx(3, rel=0.05)
    names = {s.name for window in range(60) for s in pool.at(window).speakers}
    assert names == set(pool.classes)
    wanted = take(batches_of(pool, make_simulator), 0, 12)
    assert same(take(batches_of(pool_of(speech=pool.speech), make_simulator), 9, 3), wanted[9:])


def test_weights_follow_the_hours_where_none_are_given(pool_of, shards):
    first, second = shards(range(14)), shards(range(8))
    pool = pool_of(first, second)
    counts = Counter(pool.stream.item(n).source.partition(":")[0] for n in range(600))
    hours = {str(i): sum(e.seconds for e in pool.speakers if e.source == i) for i in (0, 1)}
    assert counts["0"] / counts["1"] == pytest.approx(hours["0"] / hours["1"], rel=0.05)


@pytest.mark.parametrize("hours, kind", [(12.0, SpeechBank), (max_hours(3), SpeechPool)])
def test_speech_streams_where_it_does_not_fit_and_the_choice_is_told(speech_of, folder, told, hours, kind):
    found = training_speech(speech_of(folder, max_hours=hours), told)
    assert isinstance(found, kind) and found.num_classes > 7
    assert told.choices[-1][:2] == ("speech.materialise", kind is SpeechBank) and "max_hours" in told.choices[-1][2]


def test_a_part_of_the_speech_is_the_same_amount_of_each_speaker(speech_of, folder, told):
    speech = speech_of(folder)
    num = len(speech.of_split("train"))
    bank = load_bank(speech, "train", told, hours=num * 1.5 * SECONDS / 3_600)
    assert all(len(s.waves) == 2 for s in bank.speakers) and len(bank.speakers) == num
    assert seen(bank) == seen(load_bank(speech, "train", told, hours=num * 1.5 * SECONDS / 3_600))
    whole = utterances(load_bank(speech, "train", told))
    assert sum(whole.values()) == num * TAKES and not utterances(bank) - whole and np.all(bank.ids == np.arange(num))
