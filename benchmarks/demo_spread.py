"""Claim: the demo's figure is that of any seed, not of a lucky one.

    python benchmarks/demo_spread.py diarization [--seeds 0-7] [--speech-seed] [--set NAME=VALUE]

Runs the demo preset once a seed, each from the command line in a fresh state folder. The seed is `train.seed`: initial
weights, conversations or order of samples, dropout; voices and test stay the same. With --speech-seed it is the one of
the voices and of their split. One row a run as it is done; last the mean, the best and the worst. A run takes two
minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
METRIC = {"diarization": "der", "asr": "wer"}
VOICES_SEED = {"diarization": "speech.seed", "asr": "data.seed"}
ALSO = {
    "diarization": ("missed", "false_alarm", "confusion", "validation_der", "best_step", "cluster_distance"),
    "asr": ("cer", "validation_wer", "best_step"),
}


def main() -> None:
    options = parse()
    name, metric = options.pipeline, METRIC[options.pipeline]
    setting = VOICES_SEED[name] if options.speech_seed else "train.seed"
    print(f"{setting:>12} {metric.upper():>6} {'seconds':>8}  beside", flush=True)
    values, seconds = [], []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory(prefix="demo-spread-") as place:
            state = Path(options.keep, f"{setting}-{seed}") if options.keep else Path(place)
            metrics, spent = run(name, state, [f"{setting}={seed}", *options.set])
        values.append(metrics[metric])
        seconds.append(spent)
        beside = ", ".join(f"{key} {metrics[key]:.4g}" for key in ALSO[name] if key in metrics)
        print(f"{seed:12} {values[-1]:6.1%} {spent:8.1f}  {beside}", flush=True)
    print(f"{sum(seconds) / len(seconds):.1f} s a run")
    print(
        f"{metric.upper()} over {len(values)} seeds: mean {sum(values) / len(values):.1%}, best {min(values):.1%}, "
        f"worst {max(values):.1%}"
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipeline", choices=METRIC)
    parser.add_argument("--seeds", type=seeds, default=range(8), metavar="FIRST-LAST", help="which (default: 0-7)")
    parser.add_argument(
        "--speech-seed", action="store_true", help="vary the voices and their split instead of the training"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting other than the demo's"
    )
    parser.add_argument("--keep", default="", metavar="DIR", help="keep the runs there")
    return parser.parse_args()


def seeds(text: str) -> range:
    """Return the seeds that a text like 3 or 0-7 names."""
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def run(name: str, state: Path, settings: list[str]) -> tuple[dict, float]:
    """Run every step of the demo in its own process; return its metrics and the seconds it took, imports included."""
    arguments = ["run", name, "--preset", "demo", "--state", str(state)]
    arguments += [part for setting in settings for part in ("--set", setting)]
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "colabkit", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    spent = time.monotonic() - began
    if done.returncode:
        raise SystemExit(f"the run with {' '.join(settings)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return json.loads((state / name / "demo" / "report.json").read_text(encoding="utf-8"))["metrics"], spent


if __name__ == "__main__":
    main()
