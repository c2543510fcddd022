"""Claim: 30 length buckets are sized with at most 6 real steps, 25 times fewer than by doubling and bisection.

An epoch then never runs out of memory, fills 95% of the limit, and puts 3 times the audio of one batch size for all
lengths through a pass.

    python benchmarks/sizing_buckets.py [--models hubert,conformer,whisper,vocoder] [--samples 6000] [--json FILE]

Small models train on an emulated device: every tensor that an operator makes is counted, and what goes over the budget
raises torch.OutOfMemoryError. Lengths are log-normal, 1 to 30 s. "fill" is the measured peak of a pass over the limit
(85% of the budget), the mean over the passes of an epoch; "worst case" the same with every third bucket at its longest.
All of colabkit's passes are on real CPU tensors. The peers' are on fake ones, which allocate the same and compute
nothing; finders of one batch size draw their samples at random, and their passes are told apart by quarters of a
second. Models hear an eighth of every second, so that some tens of the longest samples fit into little memory. A
quarter of an hour.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.peers import batch_sizes  # noqa: E402
from colabkit.core.table import Table  # noqa: E402
from colabkit.training.sizing.choose import size  # noqa: E402
from colabkit.training.sizing.out_of_memory import release  # noqa: E402
from colabkit.training.sizing.partition import cut  # noqa: E402
from colabkit.training.sizing.probe import confirm  # noqa: E402
from colabkit.training.sizing.tracing.accounting import Meter  # noqa: E402
from colabkit.training.sizing.tracing.cuda_like import worst_case_shapes  # noqa: E402
from colabkit.training.sizing.workload import Workload  # noqa: E402
from tests.training.sizing import workloads  # noqa: E402
from tests.training.sizing.real_steps import MeteredStep  # noqa: E402
from tests.training.sizing.sized import emulated  # noqa: E402

MIB = 2**20
NUM_BUCKETS, LONGEST, SHORTEST = 30, 30.0, 1.0
WORST_EVERY = 3  # buckets tried at their longest
TARGETS = {"probes": 6, "fewer": 25.0, "fill": 0.95, "audio": 3.0}
FIRST_BATCH = 256  # where the finders of one batch size start


def models() -> dict:
    """Return {name: (workload, budget in MiB)}; budgets are such that some tens of the longest samples fit."""
    hubert = workloads.wav2vec2(
        2,
        family="hubert",
        hidden_size=16,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(8,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
    )
    conformer = workloads.wav2vec2_bert(
        2, hidden_size=16, num_attention_heads=2, intermediate_size=32, output_hidden_size=16
    )
    whisper = workloads.whisper(
        2,
        d_model=16,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_source_positions=188,
    )

    def heard(num_samples: int, seconds: float) -> dict:  # an eighth of Whisper's 30 s, with all of the text
        tokens = torch.ones(num_samples, max(4, round(seconds * 6)), dtype=torch.long)
        return {
            "input_features": torch.zeros(num_samples, 80, 376),
            "decoder_input_ids": tokens,
            "labels": tokens.clone(),
        }

    return {
        "hubert": (coarse(hubert), 100),
        "conformer": (coarse(conformer), 80),
        "whisper": (replace(whisper, batch=heard, identity=whisper.identity + " coarse"), 120),
        "vocoder": (coarse(workloads.vocoder(8)), 30),
    }


def coarse(workload: Workload) -> Workload:
    """Return the workload hearing an eighth of every second."""
    return replace(
        workload, identity=workload.identity + " coarse", batch=lambda n, seconds: workload.batch(n, seconds / 8)
    )


def skewed(num: int) -> np.ndarray:
    return np.random.default_rng(0).lognormal(1.5, 0.8, num).clip(SHORTEST, LONGEST)


@contextmanager
def fake_step(workload, regime, budget_bytes: int):
    """Give run(num_samples, seconds) on fake tensors under a budget."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with ExitStack() as stack:
        stack.enter_context(worst_case_shapes())
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        yield stack.enter_context(MeteredStep(workload, regime, Meter(budget_bytes)))


def ours(workload, budget_bytes: int, lengths: np.ndarray) -> dict:
    sizing = size(
        workload,
        device=emulated(budget_bytes),
        lengths=lengths,
        effective_batch=len(lengths),
        checkpointing="no",
        num_buckets=NUM_BUCKETS,
    )
    meter, refused, fills, worst = Meter(budget_bytes), 0, [], []
    with MeteredStep(workload, sizing.regime, meter) as step:
        sizing = confirm(sizing, step, timed=False)
        limit = sizing.limit_bytes
        parts = cut(lengths.tolist(), sizing.capacity)
        for part in parts:
            refused, peak = tried(step, len(part), lengths[part].max(), refused)
            fills.append(peak / limit)
        for bucket in (*sizing.buckets[::WORST_EVERY], sizing.buckets[-1]):
            refused, peak = tried(step, bucket.num_samples, bucket.longest_seconds, refused)
            worst.append(peak / limit)
    return {
        "probes": sizing.num_probes,
        "buckets": len(sizing.buckets),
        "refused": refused,
        "fill": float(np.mean(fills)),
        "fullest": max(*fills, *worst),
        "worst": float(np.mean(worst)),
        "least": min(worst),
        "passes": len(parts),
        "audio": float(lengths.sum()) / len(parts),
        "sizing": sizing,
    }


def tried(step, num_samples: int, seconds: float, refused: int) -> tuple[int, float]:
    try:
        return refused, step(num_samples, float(seconds))[1]
    except torch.OutOfMemoryError:
        return refused + 1, float("nan")


def theirs(workload, sizing, lengths: np.ndarray) -> dict:
    """Return steps and audio of a pass of each peer, at the same limit."""
    order = np.random.default_rng(1).permutation(len(lengths))
    with fake_step(workload, sizing.regime, int(sizing.limit_bytes)) as step:

        @cache
        def fits(num_samples: int, seconds: float) -> bool:
            try:
                step(num_samples, seconds)
                return True
            except torch.OutOfMemoryError as error:
                release(error)
            gc.collect()  # what a failed pass held must not count against the next
            return False

        def run(num_samples: int, seconds: float) -> None:
            if not fits(num_samples, float(np.ceil(4 * seconds) / 4)):
                raise torch.OutOfMemoryError("CUDA out of memory.")

        def pass_of(batch: np.ndarray) -> None:
            run(len(batch), float(lengths[batch].max()))

        def epoch(batch_size: int) -> None:
            for start in range(0, len(order), batch_size):
                pass_of(order[start : start + batch_size])

        def first_batches(batch_size: int) -> None:
            for start in range(0, 3 * batch_size, batch_size):
                pass_of(np.resize(order, start + batch_size)[start:])

        _, bisection = batch_sizes.oomptimizer(run, [bucket.longest_seconds for bucket in sizing.buckets])
        found = {
            "accelerate": batch_sizes.accelerate_finder(epoch, FIRST_BATCH),
            "HF Trainer": batch_sizes.trainer_finder(epoch, FIRST_BATCH),
            "Lightning": batch_sizes.lightning_finder(first_batches, epoch),
        }
    audio = {name: float(lengths.sum()) / -(-len(lengths) // at_once) for name, (at_once, _) in found.items()}
    return {
        "bisection": bisection.steps,
        "sizes": {name: at_once for name, (at_once, _) in found.items()},
        "audio": audio,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="hubert,conformer,whisper,vocoder")
    parser.add_argument("--samples", type=int, default=6000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    lengths, rows, figures = skewed(options.samples), [], {}
    print(f"{len(lengths)} samples of {lengths.min():.1f} to {lengths.max():.1f} s, {lengths.mean():.1f} s on average")
    for name in options.models.split(","):
        workload, budget = models()[name]
        mine = ours(workload, budget * MIB, lengths)
        others = theirs(workload, mine.pop("sizing"), lengths)
        ratios = {peer: mine["audio"] / audio for peer, audio in others["audio"].items()}
        figures[name] = {
            **mine,
            **others,
            "audio": mine["audio"],
            "audio_peers": others["audio"],
            "fewer": others["bisection"] / mine["probes"],
            "ratio": min(ratios.values()),
        }
        row = figures[name]
        told = (f"{peer} {audio:.0f} ({others['sizes'][peer]} at once)" for peer, audio in others["audio"].items())
        rows.append(
            [
                name,
                f"{budget} MiB",
                row["buckets"],
                f"{row['probes']} / {row['bisection']}",
                row["refused"],
                f"{row['fill']:.1%}",
                f"{row['worst']:.1%}",
                f"{row['fullest']:.1%}",
                round(row["audio"]),
                ", ".join(told),
            ]
        )
        print(name, json.dumps({k: v for k, v in row.items() if k != "sizing"}), flush=True)
    print(
        Table(
            [
                "model",
                "budget",
                "buckets",
                "steps: ours / bisection",
                "out of memory",
                "fill",
                "worst case",
                "fullest",
                "audio s a pass",
                "one batch size for all: audio s a pass",
            ],
            rows,
        )
    )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    probes, fewer = max(f["probes"] for f in figures.values()), min(f["fewer"] for f in figures.values())
    fill, refused = float(np.mean([f["fill"] for f in figures.values()])), sum(f["refused"] for f in figures.values())
    print(
        f"{probes} real steps at most (target <= {TARGETS['probes']}), {fewer:.0f}x fewer than bisection (target >= "
        f"{TARGETS['fewer']:.0f}x); {refused} times out of memory (target 0); mean fill {fill:.1%} (target >= "
        f"{TARGETS['fill']:.0%})"
    )
    ratio = min(f["ratio"] for f in figures.values())
    print(
        f"ratio: {ratio:.2f}x the audio in a pass of the best of accelerate, HF Trainer and Lightning, "
        f"for the model where it is least (target >= {TARGETS['audio']:.0f}x)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
