"""Cutting by probabilities: pauses, lengths, quiet places, other speakers; the same in pieces as at once."""

from __future__ import annotations

import numpy as np
import pytest

from colabkit.pipelines.dataset.cut.spans import cut, find_speech, last_rest, padded, split
from colabkit.pipelines.dataset.cut.vad import FRAME_SECONDS
from colabkit.pipelines.dataset.segments.rules import CutRules

RULES = CutRules(min_seconds=1.0, max_seconds=8.0, pad_seconds=0.16, max_pause_seconds=0.5, min_speech_seconds=0.2)


def frames(seconds: float) -> int:
    return round(seconds / FRAME_SECONDS)


def track(*parts: tuple[float, float]) -> np.ndarray:
    """Return probabilities of (seconds, probability) one after another."""
    return np.concatenate([np.full(frames(seconds), p, np.float32) for seconds, p in parts])


def cut_plain(probabilities: np.ndarray, rules: CutRules = RULES, **how) -> list[tuple[int, int]]:
    return cut(probabilities, np.full(len(probabilities), -30.0), rules, **how)


def test_silence_has_no_segments():
    assert cut_plain(track((20, 0.01))) == [] and cut_plain(np.zeros(0)) == []


def test_speech_between_pauses():
    spans = cut_plain(track((1, 0), (2, 0.9), (1, 0), (3, 0.9), (2, 0)))
    first, second = frames(1) + frames(2), frames(1) + frames(2) + frames(1)
    assert spans == [(frames(1), first), (second, second + frames(3))]


def test_short_pauses_stay_inside_unless_the_segment_grows_too_long():
    one = track((1, 0.9), (0.4, 0), (1, 0.9))
    assert cut_plain(one) == [(0, len(one))]
    assert len(cut_plain(track((1, 0.9), (0.6, 0), (1, 0.9)))) == 2
    assert len(cut_plain(track((5, 0.9), (0.4, 0), (5, 0.9)))) == 2


def test_a_dip_above_the_lower_threshold_is_no_pause_and_a_click_is_no_speech():
    assert len(find_speech(track((1, 0.9), (0.3, 0.4), (1, 0.9)), RULES)) == 1
    assert len(find_speech(track((1, 0.9), (0.3, 0.3), (1, 0.9)), RULES)) == 2
    assert find_speech(track((1, 0), (0.1, 0.9), (1, 0)), RULES) == []
    assert len(find_speech(track((1, 0.9), (0.06, 0.0), (1, 0.9)), RULES)) == 1  # shorter than a stop's closure


def test_long_speech_is_split_where_it_is_quietest():
    level = np.full(frames(14), -20.0)
    level[frames(6.4) : frames(6.5)] = -50.0
    probabilities = np.full(len(level), 0.99, np.float32)
    spans = cut(probabilities, level, RULES)
    assert len(spans) == 2 and frames(6.4) <= spans[0][1] <= frames(6.5) and spans[0][1] == spans[1][0]
    probabilities[frames(7.0) : frames(7.1)] = 0.6  # hardly speech: better still than merely quieter
    level[:] = -20.0
    level[frames(6.4) : frames(6.5)] = -28.0
    assert frames(7.0) <= cut(probabilities, level, RULES)[0][1] <= frames(7.1)


@pytest.mark.parametrize("seconds", [8.1, 9, 15.9, 16.1, 40, 123.4])
def test_pieces_are_neither_too_long_nor_too_short_and_nothing_is_lost(seconds):
    cost = np.random.default_rng(0).random(frames(seconds))
    pieces = split((0, len(cost)), cost, RULES)
    assert pieces[0][0] == 0 and pieces[-1][1] == len(cost)
    assert all(a[1] == b[0] for a, b in zip(pieces, pieces[1:], strict=False))
    lengths = np.array([b - a for a, b in pieces]) * FRAME_SECONDS
    assert lengths.max() <= RULES.max_seconds and lengths.min() >= RULES.min_seconds - FRAME_SECONDS


def test_padding_never_overlaps_nor_leaves_the_recording():
    assert padded([(2, 50), (54, 80), (80, 99)], 100, RULES) == [(0, 52), (52, 80), (80, 100)]
    assert padded([(20, 50)], 100, RULES) == [(15, 55)]
    assert padded([], 100, RULES) == []


@pytest.mark.parametrize("seconds", [7.9, 8.0, 20.0])
def test_with_padding_segments_stay_within_the_longest(seconds):
    probabilities = track((1, 0), (seconds, 0.9), (1, 0))
    spans = padded(cut_plain(probabilities), len(probabilities), RULES)
    assert max(b - a for a, b in spans) * FRAME_SECONDS <= RULES.max_seconds


def test_another_speaker_begins_another_segment():
    probabilities = track((2, 0.9), (0.3, 0), (2, 0.9), (2, 0.9))
    breaks = np.zeros(len(probabilities), bool)
    breaks[[frames(2.15), frames(4.3)]] = True
    spans = cut_plain(probabilities, breaks=breaks)
    assert [round((b - a) * FRAME_SECONDS, 1) for a, b in spans] == [2.0, 2.0, 2.0]


def test_lines_of_a_transcript_are_not_cut_where_that_can_be_helped():
    probabilities = np.full(frames(12), 0.99, np.float32)
    inside = np.ones(len(probabilities), bool)
    inside[frames(4.6) : frames(4.7)] = False
    assert frames(4.6) <= cut_plain(probabilities, keep_whole=inside)[0][1] <= frames(4.7)


def random_track(seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    parts = []
    for _ in range(60):
        parts += [
            (draw.choice([0.1, 0.3, 0.7, 2, 6, 20]), draw.uniform(0.5, 1)),
            (draw.choice([0.05, 0.2, 0.45, 0.55, 1, 4]), draw.uniform(0, 0.4)),
        ]
    return np.clip(track(*parts) + draw.normal(0, 0.05, len(track(*parts))), 0, 1).astype(np.float32)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("pad_seconds", [0.0, 0.16, 0.4])
def test_cut_in_pieces_is_cut_the_same(seed, pad_seconds):
    rules = CutRules(min_seconds=1.0, max_seconds=8.0, pad_seconds=pad_seconds)
    probabilities = random_track(seed)
    level = np.random.default_rng(seed).uniform(-60, -20, len(probabilities))
    whole = padded(cut(probabilities, level, rules), len(probabilities), rules)
    assert len(whole) > 30
    draw, held, first, found = np.random.default_rng(seed), 0, 0, []
    while held < len(probabilities):
        held = min(len(probabilities), held + int(draw.integers(100, 1_500)))
        stop = held - first if held == len(probabilities) else last_rest(probabilities[first:held], rules)
        part = slice(first, first + stop)
        found += [(a + first, b + first) for a, b in padded(cut(probabilities[part], level[part], rules), stop, rules)]
        first += stop
    assert found == whole


def test_silence_is_let_go_of_but_for_the_padding():
    assert last_rest(np.zeros(1_000), RULES) >= 1_000 - frames(RULES.pad_seconds) - 1
    assert last_rest(np.ones(1_000), RULES) == 0


@pytest.mark.parametrize(
    "rules",
    [
        {"min_seconds": 0},
        {"min_seconds": 9, "max_seconds": 8},
        {"min_seconds": 5, "max_seconds": 8},
        {"pad_seconds": -1},
        {"pad_seconds": 2},
        {"max_pause_seconds": 0},
        {"speech_probability": 1.0},
    ],
)
def test_rules_that_cannot_be(rules):
    assert list(CutRules(**rules).faults()) and not list(CutRules().faults())
