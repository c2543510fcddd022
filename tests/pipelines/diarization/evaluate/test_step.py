"""The figures of the report, on conversations whose scores are known beforehand."""

from __future__ import annotations

import numpy as np
import pytest

from colabkit.pipelines.diarization.evaluate.step import (
    Conversation,
    choose_lowest,
    conversation,
    diarize_all,
    measure,
    pooled,
)
from colabkit.pipelines.diarization.rttm import Turn


@pytest.fixture
def talks():
    wave = np.zeros(160_000, np.float32)
    return [
        Conversation("one", wave, [Turn(0, 4, "ann"), Turn(5, 9, "bob")], [(0.0, 10.0)]),
        Conversation("two", wave, [Turn(0, 2, "eve"), Turn(1, 4, "ann")], [(0.0, 5.0)]),
    ]


def renamed(turns):
    return [Turn(t.start_seconds, t.end_seconds, f"found {t.speaker}") for t in turns]


def test_a_perfect_answer_has_no_error_under_other_names(talks):
    figures = measure(talks, [renamed(t.turns) for t in talks], 0.25)
    assert {
        k: figures[k] for k in ("der", "missed", "false_alarm", "confusion", "der_no_collar", "der_skip_overlap", "jer")
    } == dict.fromkeys(("der", "missed", "false_alarm", "confusion", "der_no_collar", "der_skip_overlap", "jer"), 0.0)
    assert figures["frame_accuracy"] == 1.0 and figures["der_single_speaker"] > 0.3
    assert figures["times_below_single_speaker"] > 1_000


def test_no_answer_misses_everything(talks):
    figures = measure(talks, [[], []], 0.0)
    assert figures["der"] == figures["missed"] == figures["jer"] == 1.0 and figures["confusion"] == 0


def test_the_parts_add_up_to_the_whole(talks):
    wrong = [[Turn(0, 8, "x"), Turn(8.5, 10, "y")], [Turn(0.5, 5, "x")]]
    figures = measure(talks, wrong, 0.25)
    assert figures["der"] == pytest.approx(figures["missed"] + figures["false_alarm"] + figures["confusion"])
    assert min(figures["missed"], figures["false_alarm"], figures["confusion"]) > 0
    assert figures["der"] < figures["der_no_collar"]


def test_pooling_weighs_by_speech(talks):
    """Nothing found in the second one alone: 5 s of 13 s of speech are missed."""
    figures = pooled(talks, [renamed(talks[0].turns), []], collar_seconds=0.0)
    assert figures.der == pytest.approx(5 / 13)


def test_what_is_found_outside_the_regions_does_not_count(talks):
    answer = [renamed(t.turns) for t in talks]
    answer[1].append(Turn(5.0, 10.0, "ghost"))
    assert measure(talks, answer, 0.0)["der"] == 0 and measure(talks, answer, 0.0)["frame_accuracy"] == 1.0


def test_frame_accuracy_is_the_share_of_frames_that_are_wholly_right(talks):
    figures = measure(talks[:1], [[Turn(0, 4, "x")]], 0.0)
    assert figures["frame_accuracy"] == pytest.approx(0.6)


def test_frames_outside_the_regions_do_not_count(talks):
    talk = Conversation("part", talks[0].wave, talks[0].turns, [(6.0, 8.0)])  # bob alone
    assert measure([talk], [[Turn(0, 5.5, "ghost"), Turn(5.5, 8, "x")]], 0.0)["frame_accuracy"] == 1.0


def test_a_simulated_sample_becomes_a_conversation_with_its_own_reference(make_simulator):
    from colabkit.pipelines.diarization.rttm import turns_to_frames

    sample = make_simulator().sample(0)
    talk = conversation("mix", sample)
    assert talk.regions == [(0.0, 6.0)] and talk.wave is sample.wave
    assert np.array_equal(turns_to_frames(talk.turns, 300, 0.02, ["voice1", "voice2"])[0], sample.active)


def test_answers_come_in_order(talks):
    class Names:
        def diarize(self, wave):
            return [Turn(0, 1, str(len(wave)))]

    talks[1] = Conversation("two", np.zeros(7, np.float32), [], [])
    assert [turns[0].speaker for turns in diarize_all(Names(), talks)] == ["160000", "7"]


def test_the_distance_in_the_middle_of_the_best_ones_is_chosen(talks):
    perfect, poor = [renamed(t.turns) for t in talks], [[], []]
    best, tried = choose_lowest(lambda d: perfect if 0.4 <= d <= 0.6 else poor, talks, (0.3, 0.4, 0.5, 0.6, 0.7))
    assert best == 0.5 and tried == {0.3: 1.0, 0.4: 0.0, 0.5: 0.0, 0.6: 0.0, 0.7: 1.0}
