"""Cut speech into segments: from probabilities of speech in frames to spans of frames."""

from __future__ import annotations

import math

import numpy as np

from colabkit.pipelines.dataset.cut.vad import FRAME_SECONDS
from colabkit.pipelines.dataset.segments.rules import CutRules

Span = tuple[int, int]  # frames [start, stop)

_FALL = 0.15  # speech ends when its probability falls so far below the threshold
_MIN_SILENCE_SECONDS = 0.1
_COST_OF_LEVEL = 0.02  # a frame 25 dB quieter is worth cutting at like one half as likely to be speech
_SMOOTH_FRAMES = 3


def find_speech(probabilities: np.ndarray, rules: CutRules) -> list[Span]:
    """Return the runs of frames that are speech; each begins above the threshold and ends where it falls well below."""
    low = rules.speech_probability - _FALL
    runs: list[Span] = []
    start, quiet = -1, -1  # where the run began, and where it may have ended
    patience = _frames(_MIN_SILENCE_SECONDS)
    for i, p in enumerate(probabilities.tolist()):
        if p >= rules.speech_probability:
            start, quiet = (i if start < 0 else start), -1
        elif start >= 0 and (p < low or quiet >= 0):
            quiet = i if quiet < 0 else quiet
            if i - quiet + 1 >= patience:
                runs.append((start, quiet))
                start = quiet = -1
    if start >= 0:
        runs.append((start, quiet if quiet >= 0 else len(probabilities)))
    shortest = _frames(rules.min_speech_seconds)
    return [(a, b) for a, b in runs if b - a >= shortest]


def cut(
    probabilities: np.ndarray,
    level_db: np.ndarray,
    rules: CutRules,
    *,
    breaks: np.ndarray | None = None,
    keep_whole: np.ndarray | None = None,
) -> list[Span]:
    """Return the spans of segments, without padding: speech with short pauses in one, at most `max_seconds` long.

    All arguments are of shape (frame,). `breaks` is True where another speaker begins: no span goes over it.
    `keep_whole` is True where a cut would go through a line of the transcript.
    """
    runs = find_speech(probabilities, rules)
    if breaks is not None:
        runs = [piece for run in runs for piece in _at_breaks(run, breaks)]
    cost = _smooth(probabilities) + _COST_OF_LEVEL * _smooth(level_db)
    if keep_whole is not None:
        cost = cost + 2.0 * keep_whole
    pieces = [piece for run in runs for piece in split(run, cost, rules)]
    most, pause = _most_frames(rules), _frames(rules.max_pause_seconds)
    spans: list[Span] = []
    for start, stop in pieces:
        if (
            spans
            and start - spans[-1][1] <= pause
            and stop - spans[-1][0] <= most
            and not (breaks is not None and breaks[spans[-1][1] : start + 1].any())
        ):
            spans[-1] = (spans[-1][0], stop)
        else:
            spans.append((start, stop))
    return spans


def split(run: Span, cost: np.ndarray, rules: CutRules) -> list[Span]:
    """Split a run that is too long where the cost is lowest, into pieces that are neither too long nor too short."""
    most, least = _most_frames(rules), _frames(rules.min_seconds)
    start, stop = run
    pieces: list[Span] = []
    while stop - start > most:
        even = (stop - start) / math.ceil((stop - start) / most)
        first = start + max(least, int(even / 2))
        last = min(start + most, stop - least)
        place = first + int(np.argmin(cost[first : last + 1])) if last >= first else start + most
        pieces.append((start, place))
        start = place
    return [*pieces, (start, stop)]


def padded(spans: list[Span], num_frames: int, rules: CutRules) -> list[Span]:
    """Return the spans with what is kept around speech: never more than half of the pause, nor beyond the recording."""
    pad, wider = _frames(rules.pad_seconds), []
    for i, (start, stop) in enumerate(spans):
        before = start - spans[i - 1][1] if i else 2 * start
        after = spans[i + 1][0] - stop if i + 1 < len(spans) else 2 * (num_frames - stop)
        wider.append((start - min(pad, before // 2), stop + min(pad, after // 2)))
    return wider


def last_rest(probabilities: np.ndarray, rules: CutRules) -> int:
    """Return the last frame at which cutting may begin anew without changing a span before or after it, 0 for none."""
    pad = _frames(rules.pad_seconds) + 1
    wanted = max(_frames(rules.max_pause_seconds) + 1, 2 * pad, _frames(_MIN_SILENCE_SECONDS) + pad)
    quiet = np.asarray(probabilities) < rules.speech_probability - _FALL
    edges = np.flatnonzero(np.diff(np.concatenate([[False], quiet, [False]]).astype(np.int8)))
    starts, stops = edges[::2], edges[1::2]
    long = np.flatnonzero(stops - starts >= wanted)
    return int(stops[long[-1]]) - pad if len(long) else 0


def _at_breaks(run: Span, breaks: np.ndarray) -> list[Span]:
    places = [run[0], *(run[0] + 1 + np.flatnonzero(breaks[run[0] + 1 : run[1]])).tolist(), run[1]]
    return [(a, b) for a, b in zip(places, places[1:], strict=False) if b > a]


def _smooth(values: np.ndarray) -> np.ndarray:
    if len(values) < _SMOOTH_FRAMES:
        return np.asarray(values, np.float64)
    wide = np.pad(np.asarray(values, np.float64), _SMOOTH_FRAMES // 2, mode="edge")
    return np.convolve(wide, np.full(_SMOOTH_FRAMES, 1 / _SMOOTH_FRAMES), mode="valid")


def _most_frames(rules: CutRules) -> int:
    """Return the longest span, so that with its padding it stays within `max_seconds`."""
    return max(_frames(rules.min_seconds) + 1, int((rules.max_seconds - 2 * rules.pad_seconds) / FRAME_SECONDS))


def _frames(seconds: float) -> int:
    return max(1, round(seconds / FRAME_SECONDS)) if seconds > 0 else 0
