"""Score the same meetings with pyannote.metrics and with colabkit: same figures, ratio of times.

    python benchmarks/der_scoring.py [--repeats 3] [--meetings 50]

Work: simulated meetings of 400 turns and 4 speakers, and the RTTM files of ../shared/data/turn_taking where
they are (COLABKIT_TEST_DATA names another folder). Hypotheses are the references with moved boundaries, lost,
invented and mislabelled turns. Both sides start from objects in memory; no file is read while timed.
About two minutes, nearly all of them the peer's.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
from pyannote.core import Annotation, Segment, Timeline
from pyannote.metrics.diarization import DiarizationErrorRate, JaccardErrorRate

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a checkout that is not installed

from colabkit.pipelines.diarization.evaluate.metrics import DiarizationScore, extent, score
from colabkit.pipelines.diarization.rttm import Turn, merge_own_overlaps, read_rttm

TARGET = 30.0
TOLERANCE = 1e-9
NUM_TURNS, NUM_SPEAKERS = 400, 4
REAL_DATA = Path(os.environ.get("COLABKIT_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


def simulated_meeting(rng: np.random.Generator) -> list[Turn]:
    """Return turns of 0.3 to some 15 s with pauses, backchannels and overlap, in milliseconds."""
    durations = rng.lognormal(mean=0.6, sigma=0.9, size=NUM_TURNS).clip(0.3)
    overlap, pause = rng.exponential(0.5, NUM_TURNS), rng.exponential(0.7, NUM_TURNS)
    gaps = np.where(rng.random(NUM_TURNS) < 0.3, -overlap, pause)
    starts = np.maximum(0, np.cumsum(gaps + np.r_[0, durations[:-1]])).round(3)
    ends = (starts + durations).round(3)
    speakers = np.cumsum(rng.integers(1, NUM_SPEAKERS, NUM_TURNS)) % NUM_SPEAKERS
    return list(map(Turn, starts.tolist(), ends.tolist(), [f"spk{number}" for number in speakers]))


def perturbed(turns: list[Turn], rng: np.random.Generator) -> list[Turn]:
    """Return what a fair system might say instead."""
    names = sorted({turn.speaker for turn in turns})
    heard = []
    for start, end, speaker in turns:
        if rng.random() < 0.06:
            continue
        shift = rng.normal(0, 0.15, 2)
        start = round(max(0.0, start + shift[0]), 3)
        who = speaker if rng.random() > 0.08 else names[rng.integers(len(names))]
        heard.append(Turn(start, round(max(start + 0.1, end + shift[1]), 3), f"sys_{who}"))
        if rng.random() < 0.03:
            heard.append(Turn(end, end + 0.4, "sys_ghost"))
    return merge_own_overlaps(heard)[0]


def annotation(turns: list[Turn]) -> Annotation:
    """Return the turns as pyannote's object, own overlaps merged."""
    made = Annotation()
    for track, turn in enumerate(turns):
        made[Segment(turn.start_seconds, turn.end_seconds), track] = turn.speaker
    return made.support()


def seconds_of(call) -> float:
    """Return the wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    """Check that both agree, then time them by turns."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--meetings", type=int, default=50)
    options = parser.parse_args()
    warnings.simplefilter("ignore")

    rng = np.random.default_rng(0)
    references = [merge_own_overlaps(simulated_meeting(rng))[0] for _ in range(options.meetings)]
    paths = sorted(REAL_DATA.glob("turn_taking/*.rttm"))
    references += [turns for path in paths for turns in read_rttm(path).values()]
    pairs = [(reference, perturbed(reference, rng)) for reference in references]
    peers = [(annotation(reference), annotation(hypothesis)) for reference, hypothesis in pairs]
    num_turns = sum(len(reference) + len(hypothesis) for reference, hypothesis in pairs)
    print(
        f"{options.meetings} simulated and {len(paths)} real meetings, {num_turns} turns; "
        f"median of {options.repeats} interleaved repeats"
    )

    ratios = []
    for label, collar, skip_overlap, with_uem in (
        ("no collar", 0.0, False, False),
        ("collar 0.25 s", 0.25, False, True),
        ("no overlap", 0.25, True, False),
    ):
        regions = [extent(reference) if with_uem else None for reference, _ in pairs]
        timelines = [Timeline([Segment(*part) for part in region]) if region else None for region in regions]

        def theirs(kind=DiarizationErrorRate, collar=collar, skip_overlap=skip_overlap, timelines=timelines):
            metric = kind(collar=2 * collar, skip_overlap=skip_overlap)
            for (reference, hypothesis), uem in zip(peers, timelines, strict=True):
                metric(reference, hypothesis, uem=uem)
            return metric

        def ours(collar=collar, skip_overlap=skip_overlap, regions=regions):
            total = DiarizationScore()
            for (reference, hypothesis), uem in zip(pairs, regions, strict=True):
                total += score(reference, hypothesis, uem=uem, collar_seconds=collar, skip_overlap=skip_overlap)
            return total

        check(ours(), theirs(), theirs(JaccardErrorRate))
        timed = [(seconds_of(theirs), seconds_of(ours)) for _ in range(options.repeats)]
        peer, own = (statistics.median(column) for column in zip(*timed, strict=True))
        ratios.append(peer / own)
        print(
            f"{label:14s} DER {ours().der:7.3%}  pyannote.metrics {peer:7.3f} s (DER alone)  "
            f"colabkit {own:7.4f} s (DER and JER)  {peer / own:6.1f}x"
        )
    print(
        f"ratio: {min(ratios):.1f}x faster than pyannote.metrics {version('pyannote-metrics')} "
        f"(target >= {TARGET:.0f}x)"
    )


def check(own: DiarizationScore, der: DiarizationErrorRate, jer: JaccardErrorRate) -> None:
    """Stop the benchmark if the two do not compute the same thing."""
    both = {
        "total": (own.total_seconds, der["total"]),
        "correct": (own.correct_seconds, der["correct"]),
        "false alarm": (own.false_alarm_seconds, der["false alarm"]),
        "missed detection": (own.missed_seconds, der["missed detection"]),
        "confusion": (own.confusion_seconds, der["confusion"]),
        "DER": (own.der, abs(der)),
        "JER": (own.jer, abs(jer)),
    }
    for name, (mine, peer) in both.items():
        if abs(mine - peer) > TOLERANCE * max(1.0, abs(peer)):
            raise SystemExit(f"{name} differs: {mine} here, {peer} in pyannote.metrics")


if __name__ == "__main__":
    main()
