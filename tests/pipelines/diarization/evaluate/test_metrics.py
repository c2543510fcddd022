"""Scores against hand-worked cases, against properties that must hold, and against pyannote.metrics."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from colabkit.core.errors import DataError, UsageError
from colabkit.pipelines.diarization.evaluate.metrics import (
    DiarizationScore,
    extent,
    frame_accuracy,
    score,
    score_many,
    single_speaker_baseline,
)
from colabkit.pipelines.diarization.rttm import Turn

TOLERANCE = 1e-9
ROOT = Path(__file__).parents[4]


# --- cases worked by hand ---


def test_score_splits_errors_into_their_parts():
    reference = [Turn(0, 10, "a"), Turn(8, 12, "b")]
    hypothesis = [Turn(0, 9, "x"), Turn(9, 11, "y"), Turn(13, 14, "x")]
    got = score(reference, hypothesis)
    # 0-9 x=a; 8-9 and 9-10 hold a and b, one of them heard: 1 s missed, 1 s correct each
    # 10-11 y=b; 11-12 missed; 13-14 false alarm
    assert got.mapping == {"x": "a", "y": "b"}
    assert got.total_seconds == 14
    assert got.correct_seconds == 11
    assert got.missed_seconds == 3
    assert got.false_alarm_seconds == 1
    assert got.confusion_seconds == 0
    assert got.der == pytest.approx(4 / 14)
    # a: 9 of a union of 11; b: 2 of a union of 4
    assert got.jer == pytest.approx((2 / 11 + 2 / 4) / 2)
    assert got.reference_speakers == ("a", "b") and got.hypothesis_speakers == ("x", "y")
    np.testing.assert_allclose(got.overlap_seconds, [[9, 1], [1, 2]])


def test_confusion_counts_a_speaker_split_in_two():
    got = score([Turn(0, 10, "a")], [Turn(0, 6, "x"), Turn(6, 10, "y")])
    assert (got.correct_seconds, got.confusion_seconds, got.der) == (6, 4, 0.4)
    assert got.mapping == {"x": "a"}


def test_mapping_is_optimal_and_not_greedy():
    reference = [Turn(0, 10, "a"), Turn(10, 19, "b")]
    # greedy takes x=a (10 s) and leaves y=b 0 s; best is x=b (9 s) + y=a (9 s)
    hypothesis = [Turn(0, 10, "x"), Turn(10, 19, "x"), Turn(0, 9, "y")]
    assert score(reference, hypothesis).correct_seconds == 18


def test_collar_is_left_out_on_each_side():
    reference, hypothesis = [Turn(10, 20, "a")], [Turn(9, 21, "x")]
    got = score(reference, hypothesis, collar_seconds=0.25)
    assert got.total_seconds == pytest.approx(9.5)
    assert got.false_alarm_seconds == pytest.approx(1.5)


def test_collar_ignores_joints_inside_one_speakers_speech():
    whole = [Turn(0, 10, "a")]
    for parts in (
        [Turn(0, 5, "a"), Turn(5, 10, "a")],
        [Turn(0, 6, "a"), Turn(2, 10, "a")],
        [Turn(0, 10, "a"), Turn(3, 4, "a")],
        [Turn(0, 10, "a"), Turn(4, 4, "a")],
    ):
        assert score(parts, [], collar_seconds=0.5).total_seconds == score(whole, [], collar_seconds=0.5).total_seconds


def test_collar_longer_than_everything_scores_nothing():
    got = score([Turn(0, 1, "a")], [Turn(0, 1, "x")], collar_seconds=5)
    assert (got.total_seconds, got.der) == (0, 0)


def test_own_overlap_counts_once():
    doubled = [Turn(0, 6, "a"), Turn(4, 10, "a")]
    assert score(doubled, [Turn(0, 10, "x")]).total_seconds == 10
    assert score(doubled, [Turn(0, 10, "x")]).der == 0
    assert score([Turn(0, 10, "x")], doubled).der == 0
    assert score(doubled, [], skip_overlap=True).total_seconds == 10


def test_skip_overlap_leaves_out_reference_overlap_only():
    reference = [Turn(0, 6, "a"), Turn(4, 10, "b")]
    got = score(reference, [Turn(0, 10, "x"), Turn(0, 10, "y")], skip_overlap=True)
    assert got.total_seconds == 8
    assert got.false_alarm_seconds == 8


def test_uem_limits_what_is_scored():
    reference, hypothesis = [Turn(0, 10, "a")], [Turn(0, 20, "x")]
    assert score(reference, hypothesis).false_alarm_seconds == 10
    assert score(reference, hypothesis, uem=extent(reference)).der == 0
    got = score(reference, hypothesis, uem=[(8, 12), (11, 13), (15, 16)])
    assert (got.total_seconds, got.false_alarm_seconds) == (2, 4)
    assert score(reference, hypothesis, uem=[]).total_seconds == 0


def test_nothing_in_either():
    assert score([], []).der == 0
    assert score([], [Turn(0, 1, "x")]).der == 1
    assert score([Turn(0, 1, "a")], []).der == 1
    assert score([Turn(0, 1, "a")], []).jer == 1


def test_perfect_hypothesis_has_exactly_zero_error():
    rng = np.random.default_rng(5)
    for _ in range(50):
        turns = random_turns(rng, 60, 5, 100.0)
        renamed = [turn._replace(speaker="z" + turn.speaker) for turn in turns]
        got = score(turns, renamed, collar_seconds=float(rng.choice([0.0, 0.25])))
        assert got.error_seconds == 0.0
        assert got.jer == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    "bad", [Turn(math.nan, 1, "a"), Turn(0, math.nan, "a"), Turn(0, math.inf, "a"), Turn(2, 1, "a")]
)
def test_bad_times_are_refused(bad):
    with pytest.raises(DataError, match=r"(?s)reference.*1 of 2 turns.*fix:"):
        score([Turn(0, 1, "a"), bad], [])
    with pytest.raises(DataError, match="hypothesis"):
        score([], [bad])
    with pytest.raises(DataError, match="UEM"):
        score([], [], uem=[bad[:2]])


@pytest.mark.parametrize("collar", [-0.25, math.nan, math.inf])
def test_bad_collar_is_refused(collar):
    with pytest.raises(UsageError, match="collar_seconds"):
        score([], [], collar_seconds=collar)


# --- pooling and baselines ---


def test_pooled_score_weighs_by_speech():
    pairs = [([Turn(0, 100, "a")], [Turn(0, 100, "x")]), ([Turn(0, 10, "a"), Turn(20, 30, "b")], [])]
    got = score_many(pairs)
    assert got.der == pytest.approx(20 / 120)
    assert got.jer == pytest.approx(2 / 3)
    assert got == score(*pairs[0]) + score(*pairs[1])
    assert score_many([]).total_seconds == 0
    assert score_many(pairs, uems=[None, [(0, 10)]]).der == pytest.approx(10 / 110)
    with pytest.raises(UsageError, match="1 uems"):
        score_many(pairs, uems=[None])


def test_score_prints_its_parts():
    assert str(score([Turn(0, 10, "a")], [Turn(0, 6, "x")])).startswith("DER 40.00% (false alarm 0.00 s, missed 4.00 s")
    assert repr(DiarizationScore()).startswith("DiarizationScore(total_seconds=0.0")


def test_single_speaker_baseline():
    reference = [Turn(1, 4, "a"), Turn(6, 8, "b")]
    assert single_speaker_baseline(reference) == [Turn(1, 8, "everyone")]
    assert score(reference, single_speaker_baseline(reference)).der == pytest.approx((2 + 2) / 5)
    assert single_speaker_baseline(reference, uem=[(0, 2), (3, 5)]) == [
        Turn(0, 2, "everyone"),
        Turn(3, 5, "everyone"),
    ]
    assert single_speaker_baseline([]) == []


# --- frame accuracy ---


def frame_accuracy_plain(reference, hypothesis):
    """The definition, word for word."""
    num = max(reference.shape[1], hypothesis.shape[1])
    ref, hyp = (np.pad(part, ((0, 0), (0, num - part.shape[1]))) for part in (reference, hypothesis))
    return max(
        np.mean([np.array_equal(r, h[list(p)]) for r, h in zip(ref, hyp, strict=True)])
        for p in itertools.permutations(range(num))
    )


def test_frame_accuracy_agrees_with_definition():
    rng = np.random.default_rng(0)
    for _ in range(150):
        num_frames = int(rng.integers(1, 15))
        reference = rng.random((num_frames, rng.integers(0, 5))) < 0.4
        hypothesis = rng.random((num_frames, rng.integers(0, 5))) < 0.4
        assert frame_accuracy(reference, hypothesis) == pytest.approx(frame_accuracy_plain(reference, hypothesis))


@pytest.mark.parametrize("num_speakers", [1, 4, 6, 7, 12])
def test_frame_accuracy_finds_any_permutation(num_speakers):
    rng = np.random.default_rng(num_speakers)
    reference = rng.random((500, num_speakers)) < 0.3
    hypothesis = reference[:, rng.permutation(num_speakers)]
    assert frame_accuracy(reference, hypothesis) == 1.0
    hypothesis = np.hstack([hypothesis, np.zeros((500, 2), dtype=bool)])
    hypothesis[:50] = ~hypothesis[:50]
    assert frame_accuracy(reference, hypothesis) == 0.9
    assert frame_accuracy(hypothesis, reference) == 0.9


def test_frame_accuracy_with_one_speaker_too_many_above_the_permutation_limit():
    reference = np.eye(8, dtype=bool).repeat(10, axis=0)
    hypothesis = np.hstack([reference, np.zeros((80, 1), dtype=bool)])
    hypothesis[3, 8] = True
    assert frame_accuracy(reference, hypothesis) == pytest.approx(79 / 80)
    assert frame_accuracy(reference[:, :7], reference) == pytest.approx(70 / 80)


def test_frame_accuracy_refuses_scores_and_unequal_lengths():
    frames = np.zeros((3, 2), dtype=bool)
    for bad in (frames.astype(float), frames[:, 0], frames[:0]):
        with pytest.raises(UsageError, match="bool array"):
            frame_accuracy(bad, bad)
    with pytest.raises(UsageError, match="3 and 2 frames"):
        frame_accuracy(frames, frames[:2])


# --- against pyannote.metrics ---


def random_turns(rng, num_turns, num_speakers, duration, grid=0.0, mean=3.0, tag="s"):
    """Turns with own overlap, nesting, duplicates and, on a grid, touching ends and zero durations."""
    starts = rng.uniform(0, duration, num_turns)
    ends = starts + rng.exponential(mean, num_turns)
    if grid:
        starts, ends = np.round(starts / grid) * grid, np.round(ends / grid) * grid
    who = rng.integers(0, num_speakers, num_turns)
    return [Turn(float(s), float(e), f"{tag}{w}") for s, e, w in zip(starts, ends, who, strict=True)]


def annotation(turns):
    core = pytest.importorskip("pyannote.core")
    made = core.Annotation()
    for track, turn in enumerate(turns):
        if turn.end_seconds > turn.start_seconds:
            made[core.Segment(turn.start_seconds, turn.end_seconds), track] = turn.speaker
    return made.support()  # own overlaps merged: pyannote itself counts each track


def mapping_is_unique(overlap):
    """True if no other assignment of speakers shares as much time: else JER depends on which one is taken."""
    from scipy.optimize import linear_sum_assignment

    refs, hyps = linear_sum_assignment(overlap, maximize=True)
    best = overlap[refs, hyps].sum()
    for r, h in zip(refs, hyps, strict=True):
        if overlap[r, h] > 0:
            without = overlap.copy()
            without[r, h] = -1e6
            other = linear_sum_assignment(without, maximize=True)
            if np.maximum(without[other], 0).sum() > best - 1e-9:
                return False
    return True


def check_against_pyannote(reference, hypothesis, uem, collar, skip_overlap):
    """Compare every part; return both peers' accumulable results."""
    core = pytest.importorskip("pyannote.core")
    peers = pytest.importorskip("pyannote.metrics.diarization")
    theirs = core.Timeline([core.Segment(*region) for region in uem]) if uem is not None else None
    ref, hyp = annotation(reference), annotation(hypothesis)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the one that says the uem is approximated
        expected = peers.DiarizationErrorRate(collar=2 * collar, skip_overlap=skip_overlap)(
            ref, hyp, uem=theirs, detailed=True
        )
        jer = peers.JaccardErrorRate(collar=2 * collar, skip_overlap=skip_overlap)(ref, hyp, uem=theirs)
    got = score(reference, hypothesis, uem=uem, collar_seconds=collar, skip_overlap=skip_overlap)
    ours = (
        got.total_seconds,
        got.correct_seconds,
        got.false_alarm_seconds,
        got.missed_seconds,
        got.confusion_seconds,
        got.der,
    )
    names = ("total", "correct", "false alarm", "missed detection", "confusion", "diarization error rate")
    case = f"{reference=}\n{hypothesis=}\n{uem=} {collar=} {skip_overlap=}"
    assert ours == pytest.approx([expected[name] for name in names], rel=0, abs=TOLERANCE), case
    assert min(ours) >= 0
    if mapping_is_unique(got.overlap_seconds):
        assert got.jer == pytest.approx(jer, rel=0, abs=TOLERANCE), case
        return 1
    return 0


UEMS = [
    None,
    None,
    [(0.0, 20.0)],
    [(2.0, 5.0), (7.5, 11.0), (14.0, 30.0)],
    [(3.0, 9.0), (8.0, 12.0)],
    [(1.0, 2.0), (2.0, 6.0), (90.0, 95.0)],
]


@pytest.mark.parametrize("grid", [0.0, 0.001, 0.1, 0.5])
@pytest.mark.parametrize("batch", range(8))
def test_small_cases_agree_with_pyannote(grid, batch):
    rng = np.random.default_rng([batch, int(grid * 1000)])
    num_unique = 0
    for _ in range(150):
        reference = random_turns(rng, rng.integers(0, 10), rng.integers(1, 5), 15.0, grid, rng.choice([0.3, 2.0]))
        hypothesis = random_turns(rng, rng.integers(0, 10), rng.integers(1, 5), 15.0, grid, rng.choice([0.3, 2.0]))
        uem = UEMS[rng.integers(len(UEMS))]
        collar = float(rng.choice([0.0, 0.0, 0.1, 0.25, 0.5]))
        num_unique += check_against_pyannote(reference, hypothesis, uem, collar, bool(rng.integers(2)))
    assert num_unique > 50  # JER was compared in a good part of them


@pytest.mark.parametrize("batch", range(3))
def test_perturbed_references_agree_with_pyannote(batch):
    rng = np.random.default_rng([9, batch])
    for _ in range(60):
        reference = random_turns(rng, 12, 3, 20.0, 0.01, 2.0)
        moved = [
            Turn(
                max(0.0, t.start_seconds + float(rng.choice([0, 0, 0.01, -0.3]))),
                t.end_seconds + 0.4,
                t.speaker,
            )
            for t in reference
            if rng.random() < 0.9
        ]
        check_against_pyannote(reference, moved, None, float(rng.choice([0.0, 0.25])), bool(rng.integers(2)))


@pytest.mark.parametrize("batch", range(4))
def test_many_speakers_agree_with_pyannote(batch):
    rng = np.random.default_rng([1, batch])
    for _ in range(6):
        reference = random_turns(rng, 60, int(rng.integers(5, 11)), 100.0, 0.001)
        hypothesis = random_turns(rng, 60, int(rng.integers(5, 11)), 100.0, 0.001, tag="h")
        uem = [None, [(10.0, 40.0), (45.0, 90.0)]][rng.integers(2)]
        check_against_pyannote(reference, hypothesis, uem, float(rng.choice([0.0, 0.25])), bool(rng.integers(2)))


@pytest.mark.parametrize("collar", [0.0, 0.1, 0.25])
@pytest.mark.parametrize("skip_overlap", [False, True])
@pytest.mark.parametrize(
    ("reference", "hypothesis"),
    [
        ([], []),
        ([Turn(1, 2, "a")], []),
        ([], [Turn(1, 2, "x")]),
        ([Turn(0, 1, "a"), Turn(1, 2, "b"), Turn(2, 3, "a")], [Turn(0, 1.5, "x"), Turn(1.5, 3, "y")]),
        ([Turn(0.1 + 0.2, 1, "a"), Turn(0, 0.3, "a")], [Turn(0, 1, "x")]),
        ([Turn(0, 10, "a"), Turn(0, 10, "b")], [Turn(0, 10, "x")]),
        ([Turn(0, 1e-7, "a"), Turn(1, 2, "b")], [Turn(0, 2, "x")]),
        ([Turn(k * 0.2, k * 0.2 + 0.1, "a") for k in range(20)], [Turn(0, 4, "x")]),
        ([Turn(1e4, 1e4 + 5, "a"), Turn(3e4, 3e4 + 5, "b")], [Turn(1e4 + 1, 3e4 + 3, "x")]),
    ],
)
def test_corner_cases_agree_with_pyannote(reference, hypothesis, collar, skip_overlap):
    for uem in (None, [], [(0.5, 1.5), (1.75, 9.0)]):
        check_against_pyannote(reference, hypothesis, uem, collar, skip_overlap)


def test_pooled_scores_agree_with_pyannote():
    peers = pytest.importorskip("pyannote.metrics.diarization")
    rng = np.random.default_rng(4)
    pairs = [(random_turns(rng, 12, 3, 20.0), random_turns(rng, 12, 4, 20.0)) for _ in range(20)]
    der, jer = peers.DiarizationErrorRate(collar=0.5), peers.JaccardErrorRate(collar=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for reference, hypothesis in pairs:
            der(annotation(reference), annotation(hypothesis))
            jer(annotation(reference), annotation(hypothesis))
    got = score_many(pairs, collar_seconds=0.25)
    assert got.der == pytest.approx(abs(der), abs=TOLERANCE)
    assert got.jer == pytest.approx(abs(jer), abs=TOLERANCE)


# --- properties ---


def test_score_does_not_depend_on_order_names_or_origin():
    rng = np.random.default_rng(11)
    num_unique = 0
    for _ in range(100):
        reference, hypothesis = random_turns(rng, 20, 4, 40.0), random_turns(rng, 20, 4, 40.0)
        options = {"collar_seconds": float(rng.choice([0.0, 0.25])), "skip_overlap": bool(rng.integers(2))}
        here = score(reference, hypothesis, **options)
        names = dict(zip([f"s{k}" for k in range(4)], rng.permutation(["p", "q", "r", "t"]), strict=True))
        shuffled = [
            Turn(s + 1000, e + 1000, str(names[w]))
            for s, e, w in (hypothesis[k] for k in rng.permutation(len(hypothesis)))
        ]
        there = score([Turn(s + 1000, e + 1000, w) for s, e, w in reference[::-1]], shuffled, **options)
        assert there.der == pytest.approx(here.der, abs=1e-8)
        if mapping_is_unique(here.overlap_seconds):
            assert there.jer == pytest.approx(here.jer, abs=1e-8)
            num_unique += 1
    assert num_unique > 50


def test_parts_add_up():
    rng = np.random.default_rng(12)
    for _ in range(100):
        reference, hypothesis = random_turns(rng, 20, 4, 40.0), random_turns(rng, 20, 4, 40.0)
        got = score(reference, hypothesis, collar_seconds=0.1)
        assert got.correct_seconds + got.missed_seconds + got.confusion_seconds == pytest.approx(got.total_seconds)


def test_scoring_module_is_cheap_to_import():
    code = (
        "import sys, colabkit.pipelines.diarization.evaluate.metrics; "
        "sys.exit(any(m in sys.modules for m in ('scipy', 'torch', 'pandas', 'pyannote')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
