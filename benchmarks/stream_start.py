"""Claim: from a saved state to the next batch is >= 100x faster than with lhotse 1.33 and datasets 5.2.

The state is at 90% of an epoch of a million samples; at 99% it is no slower than at 1% (<= 1.2x).

    python benchmarks/stream_start.py --peers PATH-OF-VENV [--samples 1000000] [--limit-seconds 300] [--repeats 5]

Timed is all there is between a state and the sample numbers of the next batch, imports and audio left out.
colabkit, in seconds (train.effective_seconds) and in samples (train.effective_batch), both by length, as ASR trains:
read the durations from a file, plan the batches, check and load the state, name the batch.
lhotse: open the manifest lazily, make DynamicBucketingSampler, load its state, which replays the epoch; stopped after
the limit, it is extrapolated from the batches replayed. colabkit, shuffled: the same without durations, batches of 50.
datasets: resolve 100 Parquet files, load the state, shuffle(1000) and take 50 rows; once rows with a number alone, once
with 50 kB each, half of what ten seconds of speech take, as it reads again what it skips (from a local disk, all of it
in memory). Each repeat is a process of its own. The environment of the peers: benchmarks/peers/requirements.txt. About
three minutes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from colabkit.core import files  # noqa: E402
from colabkit.core.table import Table  # noqa: E402
from colabkit.training.stream.batch_plan import SampleOrder, length_order  # noqa: E402
from colabkit.training.stream.stream import Source, Stream  # noqa: E402

PEER = ROOT / "benchmarks" / "peers" / "start.py"
FRACTIONS = ("0.01", "0.9", "0.99")
ORDERS = {"plan": "colabkit, in seconds", "count": "colabkit, in samples", "order": "colabkit, shuffled"}
ASKED = {"plan": {"effective_seconds": 600.0}, "count": {"effective_batch": 50}}
# What does the same work here.
PEERS = {
    "lhotse": ("lhotse", "plan"),
    "datasets-wide": ("datasets, rows of 50 kB", "order"),
    "datasets": ("datasets, tiny rows", "order"),
}
TARGET, TARGET_FLAT = 100.0, 1.2


def open_stream(folder: Path, order: str) -> Stream:
    if order in ASKED:
        batches = length_order(np.load(folder / "seconds.npy"), seed=0, **ASKED[order])
    else:
        batches = SampleOrder(files.read_json(folder / "size.json"), seed=0, batch_samples=50)
    return Stream([Source("speech", "0" * 64, batches)], seed=0)


def prepare(folder: Path, num_samples: int) -> None:
    seconds = np.random.default_rng(0).gamma(6.0, 2.0, num_samples).clip(1, 35).round(4)
    np.save(folder / "seconds.npy", seconds)
    files.write_json(folder / "size.json", num_samples)
    for order in ORDERS:
        stream = open_stream(folder, order)
        for fraction in FRACTIONS:
            stream.position = int(float(fraction) * len(stream.sources[0].order))
            files.write_json(folder / f"{order}-{fraction}.json", stream.state())


def start(folder: Path, order: str, fraction: str) -> dict:
    """Return the seconds from a state to a batch, and those of a batch elsewhere once the plan is there."""
    began = time.perf_counter()
    stream = open_stream(folder, order)
    stream.load_state(files.read_json(folder / f"{order}-{fraction}.json"))
    loaded = next(stream.load(lambda source, sample: sample, workers=0))
    seconds = time.perf_counter() - began
    assert loaded.values == loaded.item.samples.tolist()
    again = time.perf_counter()
    for step in range(20):
        stream.item(stream.position + step)
    return {"seconds": seconds, "batch": (time.perf_counter() - again) / 20}


def timed(command: list[str], repeats: int) -> dict[str, float]:
    """Return medians of what a command measures in processes of its own."""
    found = []
    for _ in range(repeats):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr[-2000:])
        found.append(json.loads(done.stdout.splitlines()[-1]))
        if found[-1].get("share", 1) < 1:
            break  # once is enough to learn that it takes longer than the limit
    return {
        name: statistics.median(one[name] for one in found) if name != "version" else found[0][name]
        for name in found[0]
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default="/tmp/peers", help="virtual environment with the peers")
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--limit-seconds", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--start", nargs=3, help=argparse.SUPPRESS)  # folder, order and fraction: one repeat
    options = parser.parse_args()
    if options.start:
        print(json.dumps(start(Path(options.start[0]), *options.start[1:])))
        return 0
    rows, figures = [], {}
    with tempfile.TemporaryDirectory(prefix="start-") as place:
        prepare(Path(place), options.samples)
        for order, fraction in product(ORDERS, FRACTIONS):
            own = timed([sys.executable, __file__, "--start", place, order, fraction], options.repeats)
            figures[order, fraction] = own["seconds"]
            rows.append(
                [
                    ORDERS[order],
                    f"{float(fraction):.0%}",
                    f"{own['seconds']:.4f} s",
                    f"any further batch {own['batch'] * 1e3:.2f} ms",
                ]
            )
        python = str(Path(options.peers, "bin", "python"))
        for peer, repeats in (("datasets", 3), ("datasets-wide", 3), ("lhotse", 1)):
            arguments = [python, str(PEER), peer, place, str(options.samples)]
            subprocess.run([*arguments, "prepare", "0.9"], check=True, capture_output=True)
            theirs = timed([*arguments, "0.9", str(options.limit_seconds)], repeats)
            figures[peer, "0.9"] = theirs["seconds"]
            note = (
                ""
                if theirs["share"] == 1
                else f"extrapolated: {theirs['share']:.0%} done after {options.limit_seconds} s"
            )
            rows.append([f"{PEERS[peer][0]} ({theirs['version']})", "90%", f"{theirs['seconds']:.4f} s", note])
    print(Table(["loader", "of the epoch", "to the first batch", ""], rows))
    flat = max(figures[order, "0.99"] / figures[order, "0.01"] for order in ORDERS)
    ratios = [
        f"{figures[peer, '0.9'] / figures[order, '0.9']:.0f}x faster than {name}"
        for peer, (name, order) in PEERS.items()
    ]
    print(
        f"ratios: {'; '.join(ratios)} (target >= {TARGET:.0f}x); "
        f"at 99% {flat:.2f}x the time at 1% (target <= {TARGET_FLAT:g}x)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
