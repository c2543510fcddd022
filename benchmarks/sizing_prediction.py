"""Claim: the memory of a training step is predicted without running it.

The median error is 3% at most, and no prediction is 2% too little.

    python benchmarks/sizing_prediction.py [--device cpu|cuda] [--json FILE]

On a CPU: real steps of small models with random weights, their allocations as torch's profiler records them, against
predictions; then an emulated budget that the predicted number of samples must fit into. With --device cuda: real steps
of models of middle size against torch.cuda.max_memory_allocated(). Last the peer, torch's MemTracker
(torch.distributed._tools) on fake tensors: it runs the whole of 300 million parameters at one size, where colabkit
predicts all of them; the ratio of times is printed last.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from colabkit.training.sizing.memory_model import MemoryModel  # noqa: E402
from colabkit.training.sizing.predict import predict  # noqa: E402
from colabkit.training.sizing.real_step import make_optimizer  # noqa: E402
from colabkit.training.sizing.tracing.accounting import Meter  # noqa: E402
from colabkit.training.sizing.tracing.cuda_like import worst_case_shapes  # noqa: E402
from colabkit.training.sizing.workload import Regime, Workload  # noqa: E402
from tests.training.sizing.real_steps import RealStep, profiled  # noqa: E402
from tests.training.sizing.sized import peak_phase  # noqa: E402
from tests.training.sizing.workloads import vocoder, wav2vec2, wav2vec2_bert, whisper  # noqa: E402

MIB, GIB = 2**20, 2**30
TARGETS = {"median error": 0.03, "most too little": -0.02}


@dataclass(frozen=True)
class Row:
    """A step predicted and measured, in bytes."""

    model: str
    regime: str
    num_samples: int
    seconds: float
    predicted: float
    measured: float
    phase: str

    @property
    def error(self) -> float:
        return self.predicted / self.measured - 1


def small_models() -> dict[str, Workload]:
    large_convolutions = {"conv_dim": (64,) * 7}
    return {
        "wav2vec2": wav2vec2(6),
        "HuBERT": wav2vec2(6, family="hubert", masked=False, **large_convolutions),
        "w2v-BERT": wav2vec2_bert(6),
        "Whisper": whisper(6, num_frames=800),
        "vocoder": vocoder(),
    }


SMALL_REGIMES = (
    Regime(),
    Regime(precision="bf16"),
    Regime(checkpointing=True, optimizer="adafactor"),
    Regime(accumulates=False, optimizer="sgd"),
)
SMALL_SIZES = ((2, 3.7), (6, 1.4))


def measure_on_cpu() -> list[Row]:
    """Return 40 points of small models on this machine's CPU."""
    rows = []
    for name, workload in small_models().items():
        for regime in SMALL_REGIMES:
            model = predict(workload, regime, shortest_seconds=1, longest_seconds=5, on_gpu=False, with_scratch=True)
            for samples, seconds in SMALL_SIZES:
                measured = profiled(workload, regime, samples, seconds)
                rows.append(row(name, regime, samples, seconds, model, measured))
    return rows


def row(name: str, regime: Regime, samples: int, seconds: float, model: MemoryModel, measured: float) -> Row:
    made = Row(
        name,
        regime.describe() + ("" if regime.accumulates else ", one part"),
        samples,
        seconds,
        model.peak_bytes(samples, seconds),
        measured,
        peak_phase(model, samples, seconds),
    )
    print(
        f"{made.model:10} {made.regime:42} {samples:4} x {seconds:4.1f} s  "
        f"predicted {made.predicted / MIB:9.1f} MiB  measured {made.measured / MIB:9.1f} MiB  "
        f"{made.error:+7.2%}  {made.phase}",
        flush=True,
    )
    return made


def fit_into_budgets() -> list[tuple[str, int, bool, bool]]:
    """Return (model, samples predicted to fit, whether they do, whether one more is refused) in emulated budgets.

    A budget lies halfway between the predictions for ten samples and for eleven.
    """
    found = []
    for name, workload in small_models().items():
        regime = Regime(checkpointing=name == "w2v-BERT")
        model = predict(workload, regime, shortest_seconds=1, longest_seconds=3, on_gpu=False)
        budget = int((model.peak_bytes(10, 2.0) + model.peak_bytes(11, 2.0)) / 2)
        samples = model.capacity(2.0, budget)
        found.append(
            (name, samples, fits(workload, regime, samples, budget), not fits(workload, regime, samples + 1, budget))
        )
        print(
            f"{name:10} emulated {budget / MIB:6.1f} MiB: {samples} samples {'fit' if found[-1][2] else 'DO NOT FIT'}, "
            f"{samples + 1} {'do not' if found[-1][3] else 'DO TOO'}",
            flush=True,
        )
    return found


def fits(workload: Workload, regime: Regime, samples: int, budget: int) -> bool:
    """Return whether two real steps go through without an operator being refused."""
    meter = Meter(budget)
    step = RealStep(workload, regime, samples, 2.0, meter)
    with meter:
        try:
            step.run()
            step.run()
        except torch.OutOfMemoryError:
            return False
    return True


def middle_models() -> dict[str, tuple[Callable[[], Workload], tuple[tuple[int, float], ...]]]:
    """Return {name: (workload, sizes)} of models that a real GPU takes seconds for."""
    large = {
        "hidden_size": 1024,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "conv_dim": (512,) * 7,
        "num_conv_pos_embeddings": 128,
        "num_conv_pos_embedding_groups": 16,
    }
    base = large | {
        "hidden_size": 768,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "do_stable_layer_norm": False,
        "feat_extract_norm": "group",
        "conv_bias": False,
    }
    small = {
        "d_model": 768,
        "encoder_attention_heads": 12,
        "decoder_attention_heads": 12,
        "encoder_ffn_dim": 3072,
        "decoder_ffn_dim": 3072,
        "vocab_size": 51865,
    }
    conformer = {"hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096}
    return {
        "wav2vec2-large": (lambda: wav2vec2(24, **large), ((8, 10.0), (32, 4.0), (4, 20.0))),
        "HuBERT-base": (lambda: wav2vec2(12, family="hubert", **base), ((16, 10.0), (8, 20.0))),
        "w2v-BERT": (lambda: wav2vec2_bert(12, **conformer), ((8, 10.0), (24, 5.0))),
        "Whisper-small": (lambda: whisper(12, **small), ((4, 10.0), (12, 20.0))),
        "vocoder": (lambda: vocoder(512), ((16, 4.0), (64, 2.0))),
    }


def measure_on_gpu() -> list[Row]:
    """Return 33 points on this machine's GPU, against the peak of what torch allocated."""
    regimes = (Regime(precision="bf16"), Regime(precision="bf16", checkpointing=True), Regime(accumulates=False))
    rows = []
    for name, (make, sizes) in middle_models().items():
        for regime in regimes:
            lengths = [seconds for _, seconds in sizes]
            model = predict(make(), regime, shortest_seconds=min(lengths) / 2, longest_seconds=max(lengths))
            for samples, seconds in sizes:
                try:
                    measured = gpu_peak(make(), regime, samples, seconds)
                except torch.OutOfMemoryError:
                    print(f"{name} {regime.describe()} {samples} x {seconds} s: this GPU is too small", flush=True)
                    continue
                rows.append(row(name, regime, samples, seconds, model, measured))
    return rows


def gpu_peak(workload: Workload, regime: Regime, samples: int, seconds: float) -> int:
    """Return max_memory_allocated of a step in the middle of training."""
    gc.collect()
    torch.cuda.empty_cache()
    with torch.device("cuda"):
        model = workload.build(None, regime.checkpointing)
        batch = workload.batch(samples, seconds)
    optimizer = make_optimizer(
        regime.optimizer, [weight for weight in model.parameters() if weight.requires_grad], on_gpu=True
    )
    for step in range(2):
        if step:
            torch.cuda.reset_peak_memory_stats()
        for _ in range(1 + regime.accumulates):
            with torch.autocast("cuda", dtype=torch.bfloat16, enabled=regime.precision != "fp32"):
                loss = workload.loss(model, batch)
            loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


def tracked(workload: Workload, regime: Regime, sizes: list[tuple[int, float]]) -> list[float]:
    """Return the peaks that torch's MemTracker finds, running the whole step on fake tensors at every size."""
    from torch.distributed._tools.mem_tracker import MemTracker

    peaks = []
    with torch.random.fork_rng(devices=[]), worst_case_shapes(), FakeTensorMode(allow_non_fake_inputs=True):
        model = workload.build(None, regime.checkpointing)
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        # one tensor after another asks fake ones for values
        optimizer = torch.optim.AdamW(weights, lr=1e-4, fused=True)
        for samples, seconds in sizes:
            batch = workload.batch(samples, seconds)
            for _ in range(2):  # states of the optimizer are there from the second step on
                tracker = MemTracker()
                tracker.track_external(model, optimizer, *(batch.values() if isinstance(batch, dict) else [batch]))
                with tracker, torch.autocast("cpu", dtype=torch.bfloat16, enabled=regime.precision != "fp32"):
                    loss = workload.loss(model, batch)
                    loss.backward()
                    optimizer.step()
                    optimizer.zero_grad()
            snapshot = tracker.get_tracker_snapshot("peak")
            peaks.append(max(sum_of["Total"] for sum_of in snapshot.values()))
    return peaks


def against_the_peer() -> tuple[float, float, float]:
    """Return (the peer's seconds for one size, ours for all, the difference of the peaks) for 300 million parameters.

    Nothing is frozen: MemTracker raises RuntimeError at weights that need no gradient.
    """

    def make() -> Workload:
        made = wav2vec2(
            24,
            hidden_size=1024,
            num_attention_heads=16,
            intermediate_size=4096,
            conv_dim=(512,) * 7,
            num_conv_pos_embeddings=128,
            num_conv_pos_embedding_groups=16,
        )
        return replace(made, build=lambda depth, checkpointing: made.build(depth, checkpointing).requires_grad_())

    regime, sizes = Regime(precision="bf16", accumulates=False), [(7, 11.0)]
    began = time.perf_counter()
    model = predict(make(), regime, shortest_seconds=1, longest_seconds=20, on_gpu=False)
    ours = time.perf_counter() - began
    began = time.perf_counter()
    peaks = tracked(make(), regime, sizes)
    theirs = time.perf_counter() - began
    apart = max(abs(peak / model.peak_bytes(*size) - 1) for peak, size in zip(peaks, sizes, strict=True))
    return theirs, ours, apart


def summary(rows: list[Row]) -> dict[str, float]:
    errors = [row.error for row in rows]
    return {
        "points": len(rows),
        "median error": median(map(abs, errors)),
        "most too little": min(errors),
        "most too much": max(errors),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    wav2vec2(2).build(1, False)  # imports are not part of any figure
    rows = measure_on_gpu() if args.device == "cuda" else measure_on_cpu()
    found: dict = summary(rows)
    print(
        f"{found['points']} points: median error {found['median error']:.2%} (target {TARGETS['median error']:.0%}), "
        f"most too little {found['most too little']:+.2%} (target {TARGETS['most too little']:+.0%}), "
        f"most too much {found['most too much']:+.2%}"
    )
    if args.device == "cpu":
        found["budgets"] = fit_into_budgets()
    theirs, ours, apart = against_the_peer()
    print(
        f"300 million parameters: MemTracker {theirs:.1f} s for one size, colabkit {ours:.1f} s for all; "
        f"peaks differ by {apart:.2%}"
    )
    if args.json:
        rows_told = [asdict(row) for row in rows]
        args.json.write_text(json.dumps(found | {"rows": rows_told, "peer_seconds": theirs, "seconds": ours}, indent=1))
    print(f"time of MemTracker over ours: {theirs / ours:.1f}")


if __name__ == "__main__":
    main()
