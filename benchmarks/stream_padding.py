"""Claim: of what ASR training sends through the network at most 2% is padding, with exact effective batches, at the
parts that sizing chooses for a T4 and an A100 and with no fewer samples a second; batches in seconds pad no more than
lhotse's at the same budget, and the order of an epoch forgets that of the files (rank correlation <= 0.01).

    python benchmarks/stream_padding.py --peers PATH-OF-VENV [--durations FOLDER] [--samples 100000] [--budget 600]

Durations are shaped like LibriSpeech's (most from 12 to 16.5 s, the others spread below, a few up to 35), or drawn from
those of the audio files in a folder.

Batches: lhotse and `train.effective_seconds` make one epoch of batches of at most 600 padded seconds, compared whole.
"fill" is the mean padded length of a batch over the budget, "rank correlation" that of an epoch's order with the order
of the files, its size's median over five epochs for colabkit. Files stand in random order, and once by length.

Steps as trained: an optimizer step of 32 samples, or of 384 s, is cut into the parts that go through at once, as the
guard of memory cuts it, by the predicted capacity of each GPU (samples up to 30 s). "before": windows of 16 batches and
the fewest parts, as it was until 2026-11-30. "if 10, 20, 50" is the time of an epoch over that of before, if a pass
costs what so many seconds of audio cost, as is supposed of GPUs; "here" is audio a second over that of before on this
machine's processor, by forward and backward of a small network in exactly these parts, step by step in turn on one
thread.

The environment of the peer: benchmarks/peers/requirements.txt. A few minutes.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from colabkit.core.table import Table  # noqa: E402
from colabkit.pipelines.asr.config import Config, ModelConfig  # noqa: E402
from colabkit.pipelines.asr.workload import request, workload  # noqa: E402
from colabkit.training.sizing.chosen import Sizing  # noqa: E402
from colabkit.training.sizing.devices import find  # noqa: E402
from colabkit.training.sizing.partition import cut, tally  # noqa: E402
from colabkit.training.stream.batch_plan import GroupedOrder, length_order  # noqa: E402

PEER = ROOT / "benchmarks" / "peers" / "padding.py"
NUM_BUCKETS, NUM_EPOCHS = 30, 5
TARGET, TARGET_CORRELATION = 0.02, 0.01
MODELS, GPUS = ("facebook/wav2vec2-base", "facebook/wav2vec2-xls-r-300m"), ("T4", "A100-40")
LONGEST_SECONDS, EFFECTIVE_BATCH, EFFECTIVE_SECONDS = 30.0, 32, 384.0
SUPPOSED_COSTS = (10.0, 20.0, 50.0)  # of a pass, in seconds of audio
NUM_SIZED, NUM_STEPS, NUM_TIMED = 200, 1000, 24  # samples; steps to count and to time


def speech_like(num: int) -> np.ndarray:
    """Return durations as LibriSpeech's histogram has them; whole samples of 16 kHz."""
    rng = np.random.default_rng(0)
    full, short, long = (
        rng.normal(14.6, 1.1, num).clip(10, 17),
        rng.gamma(3.0, 2.4, num).clip(1.3, 17),
        rng.uniform(17, 35, num),
    )
    return np.round(np.choose(rng.choice(3, num, p=[0.68, 0.315, 0.005]), [full, short, long]) * 16_000) / 16_000


def drawn_from(folder: Path, num: int) -> np.ndarray:
    """Return durations drawn from those of a folder's audio files."""
    import soundfile

    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".flac", ".wav", ".ogg", ".mp3"))
    real = np.array([soundfile.info(path).duration for path in paths])
    print(f"{len(real)} recordings of {real.min():.1f} to {real.max():.1f} s, {real.mean():.1f} s on average")
    return np.random.default_rng(0).choice(real, num)


def ours(seconds: np.ndarray, padded_seconds: float) -> dict:
    plan = length_order(seconds, effective_seconds=padded_seconds, seed=0)
    batches = [plan.batch(0, k) for k in range(len(plan))]
    padded = [len(batch) * seconds[batch].max() for batch in batches]
    assert np.array_equal(np.sort(np.concatenate(batches)), np.arange(len(seconds)))
    correlations = [rank_correlation([plan.batch(epoch, k) for k in range(len(plan))]) for epoch in range(NUM_EPOCHS)]
    return {
        "padding": 1 - seconds.sum() / sum(padded),
        "fill": np.mean(padded) / padded_seconds,
        "most": max(padded) / padded_seconds,
        "batches": len(batches),
        "correlation": float(np.median(np.abs(correlations))),
        "version": "",
    }


def rank_correlation(batches: list[np.ndarray]) -> float:
    order = np.concatenate(batches)
    return np.corrcoef(np.arange(len(order)), order)[0, 1]


def theirs(seconds: np.ndarray, padded_seconds: float, peers: str, folder: Path) -> dict:
    np.save(folder / "seconds.npy", seconds)
    done = subprocess.run(
        [str(Path(peers, "bin", "python")), str(PEER), str(folder), str(padded_seconds), str(NUM_BUCKETS)],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def sizings(seconds: np.ndarray) -> dict[str, Sizing]:
    """Return what sizing chooses for each model on each GPU, for optimizer steps of 32 samples."""
    lengths = np.sort(np.append(np.random.default_rng(0).choice(seconds, NUM_SIZED), seconds.max()))
    found = {}
    for model in MODELS:
        asked = replace(request(Config(model=ModelConfig(name=model))), lengths=tuple(lengths.tolist()))
        predictions = asked.predictions()
        for gpu in GPUS:
            found[f"{model.partition('/')[2]} on {gpu}"] = asked.size(find(gpu), predictions=predictions)
    return found


def as_trained(seconds: np.ndarray) -> list[list]:
    """Return a row for each model, GPU and way to say a batch: padding, parts a step, time and speed against before."""
    samples, audio = {"effective_batch": EFFECTIVE_BATCH}, {"effective_seconds": EFFECTIVE_SECONDS}
    orders = {
        "before": GroupedOrder(seconds, EFFECTIVE_BATCH, seed=0),
        f"effective_batch={EFFECTIVE_BATCH}": length_order(seconds, seed=0, **samples),
        f"effective_seconds={EFFECTIVE_SECONDS:g}": length_order(seconds, seed=0, **audio),
    }
    chosen = {name: np.random.default_rng(0).permutation(len(order))[:NUM_STEPS] for name, order in orders.items()}
    steps = {name: [seconds[order.batch(0, int(k))].tolist() for k in chosen[name]] for name, order in orders.items()}
    rows = []
    for which, sizing in sizings(seconds).items():
        ways = {name: (sizing.capacity, math.inf if name == "before" else sizing.pass_seconds) for name in orders}
        speeds, before = timed(steps, ways), None
        for name in orders:
            num_parts, padded, padding = tally(steps[name], *ways[name])
            times = np.array([padded + num_parts * cost for cost in SUPPOSED_COSTS]) / (padded - padding)
            before = times if before is None else before
            rows.append(
                [
                    which,
                    name,
                    f"{padding / padded:.2%}",
                    f"{num_parts / len(steps[name]):.2f}",
                    " ".join(f"{ratio:.3f}" for ratio in times / before),
                    f"{speeds[name] / speeds['before']:.2f}",
                ]
            )
    return rows


def timed(steps: dict[str, list[list[float]]], ways: dict[str, tuple[Callable, float]]) -> dict[str, float]:
    """Return the seconds of audio, padding left out, that a small network trains on here in a second, for each way."""
    import torch

    torch.set_num_threads(1)
    work = workload(Config(model=ModelConfig(hidden_size=32, num_layers=1)))
    network = work.build(None, False)

    def through(parts: list[list[int]], lengths: Sequence[float]) -> float:
        began = time.process_time()  # on one thread: what else the machine does is not counted
        for part in parts:
            work.loss(network, work.batch(len(part), max(lengths[i] for i in part))).backward()
        network.zero_grad()
        return time.process_time() - began

    taken, heard = dict.fromkeys(steps, 0.0), dict.fromkeys(steps, 0.0)
    for k in range(-1, NUM_TIMED):  # one to warm up
        for name, (capacity, pass_seconds) in ways.items():
            lengths = steps[name][max(k, 0)]
            seconds = through(cut(lengths, capacity, pass_seconds), lengths)
            if k >= 0:
                taken[name], heard[name] = taken[name] + seconds, heard[name] + sum(lengths)
    return {name: heard[name] / taken[name] for name in steps}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default="/tmp/peers", help="virtual environment with the peer")
    parser.add_argument("--durations", type=Path, help="folder of audio files whose lengths are drawn from")
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--budget", type=float, default=600.0, help="padded seconds of a batch")
    options = parser.parse_args()
    seconds = drawn_from(options.durations, options.samples) if options.durations else speech_like(options.samples)
    rows, figures = [], {}
    with tempfile.TemporaryDirectory(prefix="padding-") as place:
        for files, lengths in (("in random order", seconds), ("by length", np.sort(seconds))):
            for name, found in (
                ("lhotse", theirs(lengths, options.budget, options.peers, Path(place))),
                ("colabkit", ours(lengths, options.budget)),
            ):
                figures[name, files] = found
                rows.append(
                    [
                        f"{name} {found['version']}",
                        files,
                        f"{found['padding']:.2%}",
                        f"{found['fill']:.1%}",
                        f"{found['most']:.1%}",
                        found["batches"],
                        f"{abs(found['correlation']):.4f}",
                    ]
                )
    print(Table(["loader", "files", "padding", "fill", "fullest", "batches", "rank correlation"], rows))
    own, peer = figures["colabkit", "in random order"], figures["lhotse", "in random order"]
    trained = as_trained(seconds[seconds <= LONGEST_SECONDS])
    print(Table(["model and GPU", "steps", "padding", "parts a step", "if 10, 20, 50", "here"], trained))
    most = max(float(row[2].rstrip("%")) / 100 for row in trained if row[1] != "before")
    print(
        f"padding as trained {most:.2%} at most (target <= {TARGET:.0%}); whole batches of {options.budget:g} s "
        f"{own['padding']:.2%}, {own['padding'] / peer['padding']:.2f}x lhotse's (target <= 1x); "
        f"rank correlation {own['correlation']:.4f} (target <= {TARGET_CORRELATION})"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
