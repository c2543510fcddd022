"""From windows to recordings, with a network that knows the truth: what is stitched together must equal it."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from colabkit.core.errors import DataError
from colabkit.pipelines.diarization.config import InferConfig
from colabkit.pipelines.diarization.evaluate.metrics import score
from colabkit.pipelines.diarization.infer import Diarizer, tuned_in, window_starts
from colabkit.pipelines.diarization.rttm import frames_to_turns

SETTINGS = InferConfig(window_seconds=8.0, hop_seconds=2.0)
NUM_LOCAL = 3
SETS = [s for size in range(3) for s in combinations(range(NUM_LOCAL), size)]
TABLE = np.array([[s in members for s in range(NUM_LOCAL)] for members in SETS], np.float32)


def conversation(num_speakers, seconds, seed=0, overlaps=True):
    """Turns of 0.4 to 3 s; two of the speakers take turns for 16 s, then one of them is replaced. -> (F, K) bool."""
    rng = np.random.default_rng(seed)
    active = np.zeros((int(seconds * 50), num_speakers), bool)
    pair, place, speaker, latest = [0, 1 % num_speakers], 0, 0, 0
    while place < len(active):
        if place // 800 != latest:
            latest = place // 800
            pair = [pair[1], (pair[1] + 1) % num_speakers]
            place += 10
        length = int(rng.integers(20, 150))
        active[place : place + length, speaker] = True
        place += length + (
            -int(rng.integers(5, 15))
            if overlaps and num_speakers > 1 and rng.random() < 0.3
            else int(rng.integers(10, 40))
        )
        speaker = pair[0] if speaker != pair[0] else pair[1]
        place += 10 if active[max(place, 0) : place + 1, speaker].any() else 0
    return active


class Oracle:
    """A network that reads the frame number in the wave and knows who talks; it names local speakers at random."""

    def __init__(self, truth, *, noise=0.05, size=24, names_speakers=True):
        self.truth, self.noise, self.size, self.sees_voices = truth, noise, size, names_speakers
        self.voices = np.linalg.qr(np.random.default_rng(1).standard_normal((size, size)))[0][: truth.shape[1]]
        self.batches = []

    def wave(self):
        return np.repeat(np.arange(len(self.truth), dtype=np.float32), 320)

    def __call__(self, waves):
        self.batches.append(waves.shape)
        parts = [self.window(int(w[0]), waves.shape[1] // 320) for w in waves]
        return tuple(np.stack(p) for p in zip(*parts, strict=True))

    def window(self, start, length):
        rng = np.random.default_rng(start)
        truth = self.truth[start : start + length]
        present = np.flatnonzero(truth.any(0))
        assert len(present) <= NUM_LOCAL, "the test's conversation has too many people in one window"
        local = np.zeros((length, NUM_LOCAL), bool)
        local[:, rng.permutation(NUM_LOCAL)[: len(present)]] = truth[:, present]
        logits = np.array([[8.0 * (row == TABLE[c]).all() for c in range(len(TABLE))] for row in local], np.float32)
        embeddings = (
            truth.astype(np.float32) @ self.voices if self.sees_voices else np.ones((length, self.size), np.float32)
        )
        return logits, embeddings + self.noise * rng.standard_normal((length, self.size)).astype(np.float32)


def diarize(truth, *, settings=SETTINGS, oracle=None, **how):
    oracle = oracle or Oracle(truth)
    return Diarizer(oracle, TABLE, settings, 0.6).diarize(oracle.wave(), **how)


def der(truth, turns):
    reference = frames_to_turns(truth, 0.02, [f"r{i}" for i in range(truth.shape[1])], 0.1, 0.2)
    return score(reference, turns).der


@pytest.mark.parametrize("num_speakers", [1, 2, 3, 4])
@pytest.mark.parametrize("seconds", [65.0, 123.46])
def test_a_long_recording_is_stitched_without_error(num_speakers, seconds):
    truth = conversation(num_speakers, seconds)
    turns = diarize(truth)
    assert der(truth, turns) == 0 and len({t.speaker for t in turns}) == num_speakers


def test_more_speakers_than_a_window_tells_apart():
    truth = conversation(7, 180.0)
    turns = diarize(truth)
    assert der(truth, turns) == 0 and len({t.speaker for t in turns}) == 7


def test_voices_alone_link_windows_that_share_no_speech():
    """Somebody who comes back after a minute of silence is known by the voice."""
    truth = np.zeros((6_000, 2), bool)
    truth[100:600, 0] = truth[5_000:5_500, 0] = truth[700:1_000, 1] = True
    assert der(truth, diarize(truth)) == 0


def test_common_speech_alone_links_windows_where_voices_say_nothing():
    """Two who always talk in turn, embeddings all the same: the overlapping part of the windows tells them apart."""
    truth = np.zeros((2_000, 2), bool)
    for place in range(0, 2_000, 200):
        truth[place : place + 90, 0] = truth[place + 100 : place + 190, 1] = True
    turns = diarize(truth, oracle=Oracle(truth, names_speakers=False))
    assert der(truth, turns) == 0


def test_speakers_are_named_in_the_order_they_appear():
    turns = diarize(conversation(4, 70.0))
    assert list(dict.fromkeys(t.speaker for t in turns)) == [f"speaker{i + 1:02d}" for i in range(4)]


@pytest.mark.parametrize("given_by", ["setting", "call"])
def test_a_number_of_speakers_that_is_known_is_kept_to(given_by):
    truth = conversation(3, 60.0)
    for wanted in (2, 3):
        how = (
            {"settings": replace(SETTINGS, num_speakers=wanted)} if given_by == "setting" else {"num_speakers": wanted}
        )
        turns = diarize(truth, **how)
        assert len({t.speaker for t in turns}) == wanted
    assert der(truth, turns) == 0


def test_a_call_overrides_the_setting():
    truth = conversation(3, 60.0)
    assert len({t.speaker for t in diarize(truth, settings=replace(SETTINGS, num_speakers=2), num_speakers=3)}) == 3


@pytest.mark.parametrize("seconds", [0.5, 1.0, 7.98, 8.0, 8.02, 11.98, 12.0, 12.02, 13.0])
def test_short_recordings_and_lengths_around_a_window(seconds):
    truth = conversation(2, seconds, overlaps=False)
    assert der(truth, diarize(truth)) == 0


def test_samples_beyond_the_last_whole_frame_are_left_out():
    truth = conversation(2, 20.0)
    oracle = Oracle(truth)
    turns = Diarizer(oracle, TABLE, SETTINGS, 0.6).diarize(np.r_[oracle.wave(), np.full(300, 999, np.float32)])
    assert der(truth, turns) == 0 and max(t.end_seconds for t in turns) <= 20.0


@pytest.mark.parametrize("num_samples", [0, 1, 7_999])
def test_too_short_a_recording_is_refused(num_samples):
    with pytest.raises(DataError, match="too short"):
        Diarizer(Oracle(np.zeros((10, 1), bool)), TABLE, SETTINGS).diarize(np.zeros(num_samples, np.float32))


def test_silence_gives_no_turns():
    assert diarize(np.zeros((3_000, 2), bool)) == []


def test_everybody_at_once_is_neither_missed_nor_invented():
    """Nobody ever talks alone: there is no voice to link by, but as many talk as talk."""
    truth = np.ones((1_500, 2), bool)
    turns = diarize(truth)
    reference = frames_to_turns(truth, 0.02, ["a", "b"])
    found = score(reference, turns)
    assert found.missed_seconds == found.false_alarm_seconds == 0


def test_windows_cover_the_recording_and_all_have_one_length():
    for num_frames in (25, 400, 600, 601, 1_000, 12_345):
        starts, length = window_starts(num_frames, SETTINGS)
        covered = np.zeros(num_frames, bool)
        for start in starts:
            assert 0 <= start and start + length <= num_frames
            covered[start : start + length] = True
        assert covered.all() and len(set(starts.tolist())) == len(starts)
        assert length == 400 or len(starts) == 1
    truth = conversation(2, 60.0)
    oracle = Oracle(truth)
    diarize(truth, oracle=oracle)
    assert {shape[1] for shape in oracle.batches} == {128_000} and max(shape[0] for shape in oracle.batches) <= 4


def test_one_window_that_errs_is_outvoted():
    truth = conversation(2, 60.0, overlaps=False)

    class Errs(Oracle):
        def window(self, start, length):
            logits, embeddings = super().window(start, length)
            if start == 800:
                logits[:] = 0
                logits[:, 0] = 8  # silence
            return logits, embeddings

    assert der(truth, diarize(truth, oracle=Errs(truth))) < 0.01


class Flickers(Oracle):
    """In every 25th frame it says the opposite."""

    def window(self, start, length):
        logits, embeddings = super().window(start, length)
        logits[::25] = logits[::25, ::-1]
        return logits, embeddings


def test_smoothing_leaves_no_single_frame_its_own_opinion():
    truth = conversation(2, 60.0, overlaps=False)
    errors = {
        seconds: der(
            truth, diarize(truth, oracle=Flickers(truth), settings=replace(SETTINGS, smoothing_seconds=seconds))
        )
        for seconds in (0.0, 0.1, 0.3)
    }
    assert errors[0.0] > 0.03 and errors[0.1] < 0.01 and errors[0.3] < 0.01


@pytest.mark.parametrize("seconds", [0.0, 0.02, 0.1, 0.2])
def test_smoothing_shifts_no_boundary(seconds):
    truth = conversation(2, 60.0, overlaps=False)
    assert der(truth, diarize(truth, settings=replace(SETTINGS, smoothing_seconds=seconds))) == 0


def test_what_is_set_goes_before_what_was_tuned():
    truth = conversation(2, 20.0, overlaps=False)
    oracle = Flickers(truth)
    tuned = Diarizer(oracle, TABLE, SETTINGS, 0.6, smoothing_seconds=0.2)
    assert der(truth, tuned.diarize(oracle.wave())) < 0.01
    asked = replace(tuned, settings=replace(SETTINGS, smoothing_seconds=0.0))
    assert der(truth, asked.diarize(oracle.wave())) > 0.02


def test_a_recording_scored_once_is_decoded_as_if_it_were_run():
    truth = conversation(3, 60.0)
    oracle = Oracle(truth)
    diarizer = Diarizer(oracle, TABLE, SETTINGS, 0.6)
    scored = list(diarizer.score(oracle.wave()))
    assert diarizer.link(diarizer.decode(len(truth), scored)) == diarizer.diarize(oracle.wave())


def test_the_same_recording_gives_the_same_turns():
    truth = conversation(4, 90.0)
    assert diarize(truth) == diarize(truth)


def test_description_holds_what_is_needed_to_build_it_again():
    import json

    diarizer = Diarizer(Oracle(np.zeros((10, 1), bool)), TABLE, SETTINGS, 0.45, 0.2)
    told = json.loads(diarizer.describe())
    assert np.array_equal(np.array(told["table"]), TABLE) and told["cluster_distance"] == 0.45
    assert tuned_in(told) == {"cluster_distance": 0.45, "smoothing_seconds": 0.2}
    del told["smoothing_seconds"]  # as it was written before there was one: that network was tuned without
    assert tuned_in(told)["smoothing_seconds"] == 0.0
    assert InferConfig(**told["infer"]) == SETTINGS and told["rate_hz"] == 16_000 and told["frame_seconds"] == 0.02
