"""Diarization error rate, Jaccard error rate and frame accuracy.

Conventions, and where the two usual scorers differ:

- Overlapping turns of one speaker count once, as in NIST md-eval. pyannote.metrics counts each track: give it
  `annotation.support()` to get the figures of this module.
- `collar_seconds` is md-eval's `-c`: the time left out on EACH side of every boundary of a reference turn.
  pyannote's `collar` is the whole width, twice as much: its 0.5 is 0.25 here. Boundaries are those of the
  merged turns, so there is no collar inside a speaker's continuous speech (md-eval puts one at both ends of
  every RTTM line, and its `-1` also takes two overlapping lines of one speaker for an overlap).
- Without a UEM all time covered by reference or hypothesis is scored, as in pyannote. md-eval stops at the
  first and last boundary of the reference, and so does not see false alarms outside of it: pass
  `uem=extent(reference)` for its figure.
- Speakers are mapped on the time that is scored, as in pyannote. md-eval maps them before it takes out
  collars and overlaps; with a collar its error can therefore be slightly higher, never lower.
- JER: Second DIHARD Challenge evaluation plan 1.1. A reference without speech has JER 1, as in pyannote.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields

import numpy as np

from colabkit.core.errors import DataError, UsageError
from colabkit.pipelines.diarization.rttm import SAME_TIME_SECONDS, Turn, check_turns

MAX_SPEAKERS_PERMUTED = 6  # 720 permutations are tried one and all; 10 speakers would have 3.6 million
Regions = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class DiarizationScore:
    """Durations in seconds of speaker time, and what follows from them; add scores to pool recordings."""

    total_seconds: float = 0.0
    correct_seconds: float = 0.0
    false_alarm_seconds: float = 0.0
    missed_seconds: float = 0.0
    confusion_seconds: float = 0.0
    jaccard_error_sum: float = 0.0
    num_reference_speakers: int = 0  # those with scored speech
    mapping: dict[str, str] = field(default_factory=dict)  # hypothesis speaker -> reference speaker
    reference_speakers: tuple[str, ...] = ()
    hypothesis_speakers: tuple[str, ...] = ()
    # (reference speaker, hypothesis speaker)
    overlap_seconds: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)), compare=False)

    @property
    def error_seconds(self) -> float:
        """Seconds of false alarm, missed speech and confusion together."""
        return self.false_alarm_seconds + self.missed_seconds + self.confusion_seconds

    @property
    def der(self) -> float:
        """Diarization error rate, may exceed 1; without reference speech 1, or 0 if nothing is wrong."""
        if self.total_seconds > 0:
            return self.error_seconds / self.total_seconds
        return 1.0 if self.error_seconds > 0 else 0.0

    @property
    def jer(self) -> float:
        """Jaccard error rate, mean over the reference speakers, 0 to 1; 1 when there are none."""
        return self.jaccard_error_sum / self.num_reference_speakers if self.num_reference_speakers else 1.0

    def __add__(self, other: DiarizationScore) -> DiarizationScore:
        """Return the pooled score: durations and speakers add up, mapping and overlap matrix are left out."""
        if not isinstance(other, DiarizationScore):
            return NotImplemented
        return DiarizationScore(*(getattr(self, name) + getattr(other, name) for name in _ADDITIVE))

    def __str__(self) -> str:
        return (
            f"DER {self.der:.2%} (false alarm {self.false_alarm_seconds:.2f} s, missed "
            f"{self.missed_seconds:.2f} s, confusion {self.confusion_seconds:.2f} s of "
            f"{self.total_seconds:.2f} s), JER {self.jer:.2%}"
        )


_ADDITIVE = tuple(f.name for f in fields(DiarizationScore))[:7]


def score(
    reference: Sequence[Turn],
    hypothesis: Sequence[Turn],
    *,
    uem: Regions | None = None,
    collar_seconds: float = 0.0,
    skip_overlap: bool = False,
) -> DiarizationScore:
    """Compare a hypothesis with the reference of one recording, under the best mapping of speakers.

    `uem` lists the scored regions (start, end); None scores all, an empty list nothing. `collar_seconds` is
    left out on each side of reference boundaries (pyannote's collar is twice that). `skip_overlap` leaves
    out the time in which two or more reference speakers talk. Conventions and sources: top of this file.

    Example:
        >>> score([Turn(0, 4, "ann")], [Turn(1, 4, "x"), Turn(4, 5, "y")]).der
        0.5
    """
    from scipy.optimize import linear_sum_assignment

    if not 0 <= collar_seconds < math.inf:
        raise UsageError(
            "Cannot score",
            got=collar_seconds,
            expected="collar_seconds >= 0",
            fix="set collar_seconds=0.0, or 0.25 as is usual for CALLHOME",
        )
    ref_times, ref_rows, ref_names = _arrays(reference, "Cannot score the reference")
    hyp_times, hyp_rows, hyp_names = _arrays(hypothesis, "Cannot score the hypothesis")
    num_ref, num_hyp = len(ref_names), len(hyp_names)
    spans = [(ref_times, ref_rows), (hyp_times, hyp_rows + num_ref)]
    num_rows = num_ref + num_hyp
    if uem is not None:
        uem_times = _region_array(uem)
        spans.append((uem_times, np.full(uem_times.shape[1], num_rows)))
        num_rows += 1
    if collar_seconds:
        edges = _merged_edges(ref_times, ref_rows)
        collars = np.stack([edges - collar_seconds, edges + collar_seconds])
        spans.append((collars, np.full(len(edges), num_rows)))
        num_rows += 1

    active, width = _sweep(spans, num_rows)
    ref_active, hyp_active = active[:num_ref], active[num_ref : num_ref + num_hyp]
    ref_count, hyp_count = ref_active.sum(axis=0), hyp_active.sum(axis=0)
    if uem is not None:
        width *= active[num_ref + num_hyp]
    if collar_seconds:
        width *= ~active[-1]
    if skip_overlap:
        width *= ref_count < 2

    weighted_ref = ref_active * width
    overlap = weighted_ref @ hyp_active.T.astype(np.float64)
    ref_seconds, hyp_seconds = weighted_ref.sum(axis=1), hyp_active @ width
    total, hyp_total = float(ref_seconds.sum()), float(hyp_seconds.sum())
    both = float(np.minimum(ref_count, hyp_count) @ width)
    refs, hyps = linear_sum_assignment(overlap, maximize=True)
    matched = overlap[refs, hyps]
    paired = matched > 0
    refs, hyps, matched = refs[paired], hyps[paired], matched[paired]
    correct = float(matched.sum())
    num_present = int(np.count_nonzero(ref_seconds))
    jaccard = float((matched / (ref_seconds[refs] + hyp_seconds[hyps] - matched)).sum())
    return DiarizationScore(
        total,
        correct,
        # differences of sums that are equal in a perfect hypothesis: float noise must not make them negative
        _clear(hyp_total - both, hyp_total),
        _clear(total - both, total),
        _clear(both - correct, both),
        num_present - jaccard,
        num_present,
        {hyp_names[h]: ref_names[r] for r, h in zip(refs.tolist(), hyps.tolist(), strict=True)},
        tuple(ref_names),
        tuple(hyp_names),
        overlap,
    )


def score_many(
    pairs: Iterable[tuple[Sequence[Turn], Sequence[Turn]]],
    *,
    uems: Iterable[Regions | None] | None = None,
    collar_seconds: float = 0.0,
    skip_overlap: bool = False,
) -> DiarizationScore:
    """Pool (reference, hypothesis) pairs of several recordings: sum of errors over sum of speaker time.

    `uems` gives the scored regions of each pair, in the same order.
    """
    pairs = list(pairs)
    regions = [None] * len(pairs) if uems is None else list(uems)
    if len(regions) != len(pairs):
        raise UsageError(
            "Cannot score",
            got=f"{len(regions)} uems",
            expected=f"{len(pairs)}, one a pair",
            fix="pass None for a recording without uem",
        )
    return sum(
        (
            score(ref, hyp, uem=uem, collar_seconds=collar_seconds, skip_overlap=skip_overlap)
            for (ref, hyp), uem in zip(pairs, regions, strict=True)
        ),
        DiarizationScore(),
    )


def extent(turns: Sequence[Turn]) -> list[tuple[float, float]]:
    """Return the region from the first start to the last end, as a uem; empty for no turns."""
    if not turns:
        return []
    return [(min(turn.start_seconds for turn in turns), max(turn.end_seconds for turn in turns))]


def single_speaker_baseline(reference: Sequence[Turn], uem: Regions | None = None) -> list[Turn]:
    """Return the hypothesis that one speaker talks all the time: the figure any diarization has to beat."""
    return [Turn(start, end, "everyone") for start, end in (extent(reference) if uem is None else uem)]


def frame_accuracy(reference: np.ndarray, hypothesis: np.ndarray) -> float:
    """Return the fraction of frames whose set of speakers is exactly right, under the best permutation.

    reference (frame, speaker) and hypothesis (frame, speaker') are bool; missing speakers count as silent.
    With up to 6 speakers every permutation is tried; with more, speakers are paired by the frames they
    share.
    """
    reference, hypothesis = _checked_frames(reference), _checked_frames(hypothesis)
    if len(reference) != len(hypothesis):
        raise UsageError(
            "Cannot compare frames",
            got=f"{len(reference)} and {len(hypothesis)} frames",
            expected="the same number",
            fix="cut both to the same length",
        )
    reference, hypothesis = reference[:, reference.any(axis=0)], hypothesis[:, hypothesis.any(axis=0)]
    num_speakers = max(reference.shape[1], hypothesis.shape[1])
    if num_speakers > MAX_SPEAKERS_PERMUTED:
        from scipy.optimize import linear_sum_assignment

        shared = reference.T.astype(np.float64) @ hypothesis
        refs, hyps = linear_sum_assignment(shared, maximize=True)
        right = (reference[:, refs] == hypothesis[:, hyps]).all(axis=1)
        right &= ~np.delete(reference, refs, axis=1).any(axis=1)
        right &= ~np.delete(hypothesis, hyps, axis=1).any(axis=1)
        return float(right.mean())
    places = np.arange(num_speakers)
    ref_codes = reference @ (1 << places[: reference.shape[1]])
    hyp_codes = hypothesis @ (1 << places[: hypothesis.shape[1]])
    joint, counts = np.unique((ref_codes << num_speakers) | hyp_codes, return_counts=True)
    bits = (joint[:, None] >> places) & 1  # (code, speaker) of the hypothesis
    permutations = np.array(list(itertools.permutations(range(num_speakers))), dtype=np.int64)
    renamed = (1 << permutations) @ bits.T  # (permutation, code)
    return float(((renamed == joint >> num_speakers) @ counts).max() / len(reference))


def _checked_frames(frames: np.ndarray) -> np.ndarray:
    """Return frames as an array, or say why it is not a bool array (frame, speaker) of one frame or more."""
    frames = np.asarray(frames)
    if frames.ndim != 2 or frames.dtype != np.bool_ or not len(frames):
        raise UsageError(
            "Cannot compare frames",
            got=f"{frames.dtype} array of shape {frames.shape}",
            expected="bool array (frame, speaker) with at least one frame",
            fix="threshold the scores first, e.g. scores > 0.5",
        )
    return frames


def _arrays(turns: Sequence[Turn], what: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return times (2, turn) of the turns that have a length, the row of each one's speaker, all names."""
    if not turns:
        return np.zeros((2, 0)), np.zeros(0, dtype=np.intp), []
    starts, ends, who = zip(*turns, strict=True)
    names = sorted(set(who), key=str)
    row_of = {name: row for row, name in enumerate(names)}
    times = np.array([starts, ends], dtype=np.float64)
    rows = np.array([row_of[name] for name in who], dtype=np.intp)
    seconds = times[1] - times[0]
    if not (seconds.min() > SAME_TIME_SECONDS and np.isfinite(seconds).all()):
        check_turns(turns, what=what)
        kept = seconds > SAME_TIME_SECONDS
        times, rows = times[:, kept], rows[kept]
    return times, rows, names


def _region_array(uem: Regions) -> np.ndarray:
    """Return the regions as times (2, region)."""
    times = np.array(uem, dtype=np.float64).reshape(-1, 2).T
    if not ((times[0] <= times[1]).all() and np.isfinite(times).all()):
        raise DataError(
            "Cannot score",
            got=[tuple(region) for region in uem][:5],
            expected="regions (start, end) with finite start <= end",
            fix="correct the UEM",
        )
    return times


def _merged_edges(times: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return starts and ends of the turns after those of one speaker that overlap or touch are joined."""
    if not len(rows):
        return times[0]
    order = np.lexsort((times[0], rows))
    (starts, ends), rows = times[:, order], rows[order]
    # one running maximum serves all speakers: each is moved to a range of time of its own
    offset = rows * (ends.max() - starts.min() + 1.0)
    so_far = np.maximum.accumulate(ends + offset)
    opens = np.r_[True, (starts + offset)[1:] > so_far[:-1] + SAME_TIME_SECONDS]
    return np.r_[starts[opens], np.maximum.reduceat(ends, np.flatnonzero(opens))]


def _sweep(spans: list[tuple[np.ndarray, np.ndarray]], num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut time at every boundary: return active (row, piece), True where a row has a span, width (piece,).

    Each of spans is (times (2, n), rows (n,)). Pieces up to SAME_TIME_SECONDS wide get width 0.
    """
    times = np.concatenate([part.ravel() for part, _ in spans])
    rows = np.concatenate([part for _, of_span in spans for part in (of_span, of_span)])
    signs = np.concatenate([np.repeat(np.array([1, -1], dtype=np.int32), part.shape[1]) for part, _ in spans])
    order = np.argsort(times)
    times = times[order]
    steps = np.zeros((num_rows, len(times)), dtype=np.int32)
    steps[rows[order], np.arange(len(times))] = signs[order]
    width = np.diff(times, append=times[-1:])
    width[width <= SAME_TIME_SECONDS] = 0.0
    return np.cumsum(steps, axis=1, dtype=np.int32) > 0, width


def _clear(difference: float, scale: float) -> float:
    """Return the difference of two sums of size scale, 0 where it is float noise."""
    return difference if difference > 1e-12 * scale else 0.0
