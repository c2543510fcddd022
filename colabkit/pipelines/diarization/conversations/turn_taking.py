"""Turn taking: histograms of pauses, gaps, overlaps and turn lengths, measured from RTTM files.

Source: the conversation statistics of Landini et al. 2022, "From simulated mixtures to simulated conversations".
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources

import numpy as np

# Finer where it matters; the last edge bounds what is drawn. Seconds.
EDGES = np.concatenate([np.arange(0, 1, 0.1), np.arange(1, 3, 0.25), np.arange(3, 10, 1.0), np.arange(10, 31, 5.0)])

TOUCHING_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class TurnTaking:
    """Histograms over EDGES (counts), and the share of speaker changes that overlap.

    same_pause: silence between two turns of one speaker; change_gap: silence between two speakers;
    overlap: how long two speakers talk at once; turn: how long a turn lasts.
    """

    same_pause: np.ndarray
    change_gap: np.ndarray
    overlap: np.ndarray
    turn: np.ndarray
    same_probability: float
    overlap_probability: float
    source: str

    def draw(self, kind: str, rng: np.random.Generator) -> float:
        """Draw seconds from one of the histograms, evenly inside the bin."""
        counts = getattr(self, kind)
        bin_index = int(np.searchsorted(np.cumsum(counts), rng.random() * counts.sum(), side="right"))
        return float(rng.uniform(EDGES[bin_index], EDGES[bin_index + 1]))

    @classmethod
    def from_dict(cls, data: dict) -> TurnTaking:
        return cls(**{name: np.asarray(v, float) if isinstance(v, list) else v for name, v in data.items()})


def measured_meetings() -> TurnTaking:
    """Return the statistics that ship with the package: AMI meetings, see the `source` field."""
    text = resources.files(__package__).joinpath("turn_taking.json").read_text(encoding="utf-8")
    return TurnTaking.from_dict(json.loads(text))


def measure(recordings: dict[str, list], source: str) -> TurnTaking:
    """Measure turn taking in recordings {name: turns}, turns having start_seconds, end_seconds and speaker.

    Many RTTM files were made by systems that never let two people talk at once: they cut overlaps into turns that
    touch. Such recordings count for pauses and turns, but neither for overlaps nor for gaps of zero.
    """
    counts = {kind: np.zeros(len(EDGES) - 1) for kind in ("same_pause", "change_gap", "overlap", "turn")}
    num_same = num_changes = num_overlapping = num_changes_where_overlaps = 0
    for turns in recordings.values():
        ordered = sorted((t.start_seconds, t.end_seconds, t.speaker) for t in turns)
        # From the end of all that was said before, so that a short "yes" inside a turn makes no pause of its rest.
        ends = np.maximum.accumulate([end for _, end, _ in ordered]).tolist() if ordered else []
        pairs = [(b[0] - end, a[2] == b[2]) for a, b, end in zip(ordered, ordered[1:], ends, strict=False)]
        holds_overlaps = any(gap < -TOUCHING_SECONDS and not is_same for gap, is_same in pairs)
        for start, end, _ in ordered:
            _count(counts["turn"], end - start)
        for gap, is_same in pairs:
            num_same += is_same
            num_changes += not is_same
            num_changes_where_overlaps += holds_overlaps and not is_same
            if is_same:
                _count(counts["same_pause"], max(gap, 0.0))
            elif gap > TOUCHING_SECONDS:
                _count(counts["change_gap"], gap)
            elif holds_overlaps:
                num_overlapping += 1
                _count(counts["overlap"], -min(gap, 0.0))
    return TurnTaking(
        **{kind: np.maximum(c, 1e-6) for kind, c in counts.items()},
        same_probability=num_same / max(num_same + num_changes, 1),
        overlap_probability=num_overlapping / max(num_changes_where_overlaps, 1),
        source=source,
    )


def _count(histogram: np.ndarray, seconds: float) -> None:
    if seconds < EDGES[-1]:
        histogram[np.searchsorted(EDGES, seconds, side="right") - 1] += 1
