"""Samples of optimizer steps: exact, shared by ranks, resumable, and what cannot be trained on told."""

from __future__ import annotations

import numpy as np
import pytest

from colabkit.core.errors import ChangedError, DataError
from colabkit.pipelines.asr.model.recognizer import build_model
from colabkit.pipelines.asr.train.batches import TrainingBatches, usable
from colabkit.training.sizing.partition import cut
from colabkit.training.stream.batch_plan import GroupedOrder
from colabkit.training.stream.stream import Source, Stream


@pytest.fixture
def make(tones, recognizer, problems):
    def make(num_samples=23, *, broken=(), **how):
        how = {"effective_batch": 4, "seed": 0, "problem": problems} | how
        return TrainingBatches(tones(num_samples, broken=broken), recognizer, **how)

    return make


def steps(batches, count, workers=0):
    """Return the text lengths and audio lengths of the samples of `count` steps, acknowledging each."""
    found = []
    for loaded in batches.load(workers=workers, stop=batches.position + count):
        found.append(
            [(number, example.num_samples, tuple(example.labels.tolist())) for number, example in loaded.samples]
        )
        batches.acknowledge(loaded, loaded.broken)
    return found


def test_every_sample_once_an_epoch_in_exact_batches(make):
    batches = make()
    assert len(batches) == 6
    for epoch in range(2):
        found = steps(batches, 6)
        assert [len(step) for step in found] == [4, 4, 4, 4, 4, 3]
        assert sorted(number for step in found for number, _, _ in step) == list(range(23)), epoch


@pytest.mark.parametrize("world", [2, 3, 5])
def test_ranks_share_each_step(make, world):
    whole = steps(make(), 6)
    parts = [steps(make(rank=rank, world=world), 6) for rank in range(world)]
    for k, step in enumerate(whole):
        assert sorted(sample for part in parts for sample in part[k]) == sorted(step)
        sizes = [len(part[k]) for part in parts]
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("workers", [0, 2])
def test_it_continues_with_the_very_next_sample(make, workers):
    whole = steps(make(), 15)
    for done in (0, 1, 6, 11):
        first = make()
        assert steps(first, done, workers) == whole[:done]
        second = make(rank=0, world=1)
        second.load_state(first.state())
        assert second.position == done and steps(second, 15 - done, workers) == whole[done:]


def test_what_was_read_ahead_and_not_used_is_read_again(make):
    batches = make()
    feed = batches.load(workers=2)
    batches.acknowledge(next(feed), [])
    next(feed)
    feed.close()
    assert batches.state()["consumed"] == 1


def test_the_state_of_other_data_or_settings_is_refused(make):
    state = make().state()
    for other in (make(22), make(effective_batch=5), make(seed=1), make(effective_batch=None, effective_seconds=9.0)):
        with pytest.raises(ChangedError):
            other.load_state(state)


@pytest.mark.parametrize("world", [1, 2])
def test_steps_said_in_seconds_hold_as_many_samples_as_go_in(make, world):
    whole, ends = make(effective_batch=None, effective_seconds=7.0), 2
    found = steps(whole, ends * len(whole))
    for epoch in range(ends):
        first = epoch * len(whole)
        assert sorted(n for step in found[first : first + len(whole)] for n, _, _ in step) == list(range(23))
    padded = [len(step) * max(samples for _, samples, _ in step) / 16_000 for step in found]
    assert max(padded) <= 7.0 and len({len(step) for step in found}) > 1
    parts = [make(effective_batch=None, effective_seconds=7.0, rank=rank, world=world) for rank in range(world)]
    shares = [steps(part, len(whole)) for part in parts]
    for k, step in enumerate(found[: len(whole)]):
        assert sorted(sample for share in shares for sample in share[k]) == sorted(step)
    second = make(effective_batch=None, effective_seconds=7.0)
    second.load_state(parts[0].state() | {"epoch": 0, "consumed": 3})
    assert steps(second, 4) == found[3:7]


def test_what_is_said_of_the_first_steps_is_what_goes_through(make):
    batches = make(effective_batch=6)
    told = batches.describe(lambda seconds: 2, 0.5)
    lengths = [sorted(batches.seconds[batches.order.batch(0, k)]) for k in range(4)]
    padded = sum(len(part) * max(one[i] for i in part) for one in lengths for part in cut(one, lambda seconds: 2, 0.5))
    assert told.startswith(f"4 steps an epoch; the first 4: {padded / 4:.0f} s of audio in ")
    assert told.endswith(f"{1 - batches.seconds.sum() / padded:.1%} of it padding")


def test_a_run_that_began_with_narrower_windows_goes_on_in_its_order(make):
    """Such a state is one of an earlier version: 90 samples in batches of 1, in windows of 16."""
    batches = make(90, effective_batch=1)
    narrow = GroupedOrder(batches.seconds, 1, seed=0)
    assert narrow.identity() != batches.order.identity()
    begun = Stream([Source(batches.speech.name, batches.speech.fingerprint, narrow)], seed=0)
    begun.position = 5
    batches.load_state(begun.state())
    expected = [narrow.batch(0, k).tolist() for k in range(5, 15)]
    assert [[number for number, _, _ in step] for step in steps(batches, 10)] == expected


def test_broken_samples_are_left_out_told_once_and_remembered(make, problems):
    batches = make(broken=(3, 7))
    first = steps(batches, 6)
    assert sorted(number for step in first for number, _, _ in step) == [i for i in range(23) if i not in (3, 7)]
    assert set(problems) == {"tones 3", "tones 7"} and "cut off" in problems["tones 3"]
    other = make(broken=())
    other.load_state(batches.state())
    assert not {3, 7} & {number for step in steps(other, 6) for number, _, _ in step}


def test_texts_that_do_not_fit_are_left_aside(tones, recognizer, problems):
    speech = tones(30)
    speech.texts[4] = ""
    speech.texts[9] = "abcd" * 50
    frames = recognizer.features.num_frames(round(speech.seconds[12] * 16_000))
    speech.texts[12], speech.texts[13] = (
        "a" * (frames // 2 + 1),
        "ab" * (recognizer.features.num_frames(round(speech.seconds[13] * 16_000)) // 2),
    )
    kept = usable(speech, recognizer, problems)
    assert sorted(set(range(30)) - set(kept.tolist())) == [4, 9, 12]  # twelve needs a frame between equal letters
    assert problems["tones 4"] == "the text is empty" and "200 characters" in problems["tones 9"]


def test_many_left_aside_are_counted(tones, recognizer, problems):
    speech = tones(40)
    speech.texts[:] = [*speech.texts[:5], *[""] * 35]
    assert len(usable(speech, recognizer, problems)) == 5 and len(problems) == 11 and "25 more samples" in problems
    speech.texts[:] = [""] * 40
    with pytest.raises(DataError, match="40 left aside"):
        usable(speech, recognizer, problems)


def test_whisper_takes_30_seconds_and_448_tokens(tones, saved_bases, vocabulary, problems):
    from colabkit.pipelines.asr.config import ModelConfig

    recognizer = build_model(ModelConfig(name=str(saved_bases("whisper"))), vocabulary)
    speech = tones(4)
    speech.seconds = np.array([3.0, 31.0, 29.9, 1.0])
    speech.texts[2] = "x" * 500
    assert usable(speech, recognizer, problems).tolist() == [0, 3]
    assert "30 s at most" in problems["tones 1"] and "448 at most" in problems["tones 2"]
