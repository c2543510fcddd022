"""Turn taking: what is measured in labels is what simulated conversations show."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from colabkit.pipelines.diarization.conversations.turn_taking import EDGES, TurnTaking, measure, measured_meetings
from colabkit.pipelines.diarization.rttm import Turn, frames_to_turns

KINDS = ("same_pause", "change_gap", "overlap", "turn")


def mean_seconds(taking, kind):
    counts = getattr(taking, kind)
    return float(counts @ (EDGES[1:] + EDGES[:-1]) / 2 / counts.sum())


def number(taking, kind):
    return int(getattr(taking, kind).sum().round())


def in_bin(counts, seconds):
    return counts[np.searchsorted(EDGES, seconds, side="right") - 1] > 0.5


def test_every_kind_of_boundary_lands_in_its_bin():
    taking = measure({"r": [Turn(0, 2, "a"), Turn(2.55, 4, "a"), Turn(4.85, 7, "b"), Turn(6.65, 9, "a")]}, "here")
    assert [number(taking, kind) for kind in KINDS] == [1, 1, 1, 4]
    assert in_bin(taking.same_pause, 0.55) and in_bin(taking.change_gap, 0.85) and in_bin(taking.overlap, 0.35)
    assert taking.same_probability == pytest.approx(1 / 3) and taking.overlap_probability == pytest.approx(1 / 2)
    assert taking.source == "here"


def test_a_yes_inside_a_turn_makes_no_pause_of_its_rest():
    taking = measure({"r": [Turn(0, 10, "a"), Turn(2, 2.5, "b"), Turn(10.55, 12, "b")]}, "")
    assert number(taking, "same_pause") == 1 and in_bin(taking.same_pause, 0.55)


def test_labels_that_never_overlap_distort_neither_overlaps_nor_gaps():
    """Systems that never let two people talk at once cut overlaps into turns that touch."""
    real = [Turn(0, 2, "a"), Turn(1.65, 4, "b"), Turn(4.85, 6, "a")]
    cut = [Turn(i, i + 1, "ab"[i % 2]) for i in range(100)]
    alone, both = measure({"r": real}, ""), measure({"r": real, "cut": cut}, "")
    assert both.overlap_probability == alone.overlap_probability == pytest.approx(1 / 2)
    assert np.array_equal(both.overlap, alone.overlap) and np.array_equal(both.change_gap, alone.change_gap)
    assert number(both, "turn") == 103


def test_what_is_drawn_has_the_distribution_that_was_measured():
    taking, rng = measured_meetings(), np.random.default_rng(0)
    for kind in KINDS:
        drawn = np.array([taking.draw(kind, rng) for _ in range(4_000)])
        assert drawn.min() >= 0 and drawn.max() <= EDGES[-1]
        share = np.histogram(drawn, EDGES)[0] / len(drawn)
        expected = getattr(taking, kind) / getattr(taking, kind).sum()
        assert np.abs(np.cumsum(share) - np.cumsum(expected)).max() < 0.035  # Kolmogorov's distance at p = 0.0001


def test_nothing_to_measure_can_still_be_drawn_from():
    taking = measure({}, "")
    assert taking.same_probability == 0 and all(np.isfinite(taking.draw(k, np.random.default_rng(0))) for k in KINDS)


def test_statistics_go_through_json_whole():
    taking = measured_meetings()
    again = TurnTaking.from_dict(json.loads(json.dumps(asdict(taking), default=np.ndarray.tolist)))
    assert all(np.array_equal(getattr(again, kind), getattr(taking, kind)) for kind in KINDS)
    assert again.same_probability == taking.same_probability and again.source == taking.source


def test_those_that_ship_are_plausible_and_say_where_they_are_from():
    taking = measured_meetings()
    assert "AMI" in taking.source and 0.05 < taking.same_probability < 0.6 and 0.05 < taking.overlap_probability < 0.9
    assert 0.5 < mean_seconds(taking, "change_gap") < 3 and 1 < mean_seconds(taking, "turn") < 8


def test_a_simulated_set_shows_the_statistics_it_was_given(make_simulator):
    """Pauses vary in pace and the window cuts turns, so means agree loosely; their order and overlaps must hold."""
    simulator = make_simulator(window_seconds=60.0)
    given = simulator.turn_taking
    found = {}
    for k in range(12):
        sample = simulator.sample(k)
        found[str(k)] = frames_to_turns(sample.active, 0.02, ["a", "b"], 0.0, 0.3)
    taking = measure(found, "simulated")
    assert taking.overlap_probability == pytest.approx(given.overlap_probability, abs=0.25)
    assert 0.3 < mean_seconds(taking, "change_gap") / mean_seconds(given, "change_gap") < 1.7
    assert number(taking, "turn") > 100
