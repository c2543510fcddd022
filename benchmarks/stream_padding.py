"""Claim: with 30 buckets at most 3% of a batch is padding, and no more than with lhotse at the same budget; the order of an
epoch forgets that of the files (rank correlation <= 0.01).

    python benchmarks/stream_padding.py --peers PATH-OF-VENV [--durations FOLDER] [--samples 100000] [--budget 600]

Durations are shaped like LibriSpeech's (most from 12 to 16.5 s, the others spread below, a few up to 35), or drawn from those
of the audio files in a folder. Both loaders make one epoch of batches of at most 600 padded seconds in 30 buckets. "fill" is
the mean padded length of a batch over the budget, "rank correlation" that of an epoch's order with the order of the files,
its size's median over five epochs for colabkit. Files stand in random order, and once in the order of their length. The
environment of the peer: benchmarks/peers/requirements.txt. About a minute.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from colabkit.core.table import Table  # noqa: E402
from colabkit.training.stream.batch_plan import BatchPlan, Budget  # noqa: E402

PEER = ROOT / "benchmarks" / "peers" / "padding.py"
NUM_BUCKETS, NUM_EPOCHS = 30, 5
TARGET, TARGET_CORRELATION = 0.03, 0.01


def speech_like(num: int) -> np.ndarray:
    """Return durations as LibriSpeech's histogram has them; whole samples of 16 kHz."""
    rng = np.random.default_rng(0)
    full, short, long = rng.normal(14.6, 1.1, num).clip(10, 17), rng.gamma(3.0, 2.4, num).clip(1.3, 17), rng.uniform(17, 35, num)
    return np.round(np.choose(rng.choice(3, num, p=[0.68, 0.315, 0.005]), [full, short, long]) * 16_000) / 16_000


def drawn_from(folder: Path, num: int) -> np.ndarray:
    """Return durations drawn from those of a folder's audio files."""
    import soundfile
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".flac", ".wav", ".ogg", ".mp3"))
    real = np.array([soundfile.info(path).duration for path in paths])
    print(f"{len(real)} recordings of {real.min():.1f} to {real.max():.1f} s, {real.mean():.1f} s on average")
    return np.random.default_rng(0).choice(real, num)


def ours(seconds: np.ndarray, padded_seconds: float) -> dict:
    plan = BatchPlan(seconds, Budget(padded_seconds=padded_seconds), seed=0, num_buckets=NUM_BUCKETS)
    batches = [plan.batch(0, k) for k in range(len(plan))]
    padded = [len(batch) * seconds[batch].max() for batch in batches]
    assert np.array_equal(np.sort(np.concatenate(batches)), np.arange(len(seconds)))
    correlations = [rank_correlation([plan.batch(epoch, k) for k in range(len(plan))]) for epoch in range(NUM_EPOCHS)]
    return {"padding": 1 - seconds.sum() / sum(padded), "fill": np.mean(padded) / padded_seconds,
            "most": max(padded) / padded_seconds, "batches": len(batches),
            "correlation": float(np.median(np.abs(correlations))), "version": ""}


def rank_correlation(batches: list[np.ndarray]) -> float:
    order = np.concatenate(batches)
    return np.corrcoef(np.arange(len(order)), order)[0, 1]


def theirs(seconds: np.ndarray, padded_seconds: float, peers: str, folder: Path) -> dict:
    np.save(folder / "seconds.npy", seconds)
    done = subprocess.run([str(Path(peers, "bin", "python")), str(PEER), str(folder), str(padded_seconds), str(NUM_BUCKETS)],
                          capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


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
            for name, found in (("lhotse", theirs(lengths, options.budget, options.peers, Path(place))),
                                ("colabkit", ours(lengths, options.budget))):
                figures[name, files] = found
                rows.append([f"{name} {found['version']}", files, f"{found['padding']:.2%}", f"{found['fill']:.1%}",
                             f"{found['most']:.1%}", found["batches"], f"{abs(found['correlation']):.4f}"])
    print(Table(["loader", "files", "padding", "fill", "fullest", "batches", "rank correlation"], rows))
    own, peer = figures["colabkit", "in random order"], figures["lhotse", "in random order"]
    print(f"padding {own['padding']:.2%} (target <= {TARGET:.0%}), {own['padding'] / peer['padding']:.2f}x lhotse's "
          f"(target <= 1x); rank correlation {own['correlation']:.4f} (target <= {TARGET_CORRELATION})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
