"""Batch sizes on a GPU: what they fill, the probing steps they took, their speed against a rule of thumb and batch 1.

A part of gpu_all.py. The models have random weights and the samples log-normal lengths of 1 to 30 s.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from colabkit.pipelines.asr.config import Config, ModelConfig
from colabkit.pipelines.asr.workload import workload
from colabkit.training.sizing.choose import size
from colabkit.training.sizing.devices import GIB, Device, here
from colabkit.training.sizing.out_of_memory import release
from colabkit.training.sizing.partition import cut
from colabkit.training.sizing.probe import confirm
from colabkit.training.sizing.real_step import RealStep
from colabkit.training.sizing.request import seed_rule
from colabkit.training.sizing.tracing.accounting import Meter
from colabkit.training.sizing.workload import Workload
from tests.training.sizing.real_steps import MeteredStep
from tests.training.sizing.sized import emulated

MODELS = ("facebook/wav2vec2-base", "facebook/wav2vec2-xls-r-300m", "facebook/wav2vec2-xls-r-1b")
MOST_SAMPLES = 256  # at once: of short samples no GPU gains by more
SECONDS_EACH = 8.0  # of passes timed for each way to batch


@dataclass
class Ground:
    """Where it is measured: a GPU, or with `meter_bytes` an emulated one, for trying the script out."""

    device: Device
    torch_device: str = "cuda"
    meter_bytes: int | None = None

    def step(self, work: Workload, regime: Any) -> RealStep:
        if self.meter_bytes is None:
            return RealStep(work, regime, self.torch_device)
        return MeteredStep(work, regime, Meter(self.meter_bytes))


def ground() -> Ground:
    return Ground(here())


def dry_ground(budget_bytes: int = 64 << 20) -> Ground:
    return Ground(emulated(budget_bytes), "cpu", budget_bytes)


def work_of(name: str) -> Workload:
    return workload(Config(model=ModelConfig(name=name)), offline=True)


def skewed(num: int = 4000, longest: float = 30.0) -> np.ndarray:
    return np.random.default_rng(0).lognormal(1.5, 0.8, num).clip(1.0, longest)


def sizing_of(work: Workload, place: Ground, lengths: np.ndarray, seconds_each: float = SECONDS_EACH) -> dict[str, Any]:
    """Return the figures of one model: probes, fill of the worst cases, and the speed of three ways to batch."""
    began = time.perf_counter()
    sizing = size(work, device=place.device, lengths=lengths, effective_batch=MOST_SAMPLES, most=MOST_SAMPLES)
    predicted_seconds = time.perf_counter() - began
    with place.step(work, sizing.regime) as step:
        began = time.perf_counter()
        confirmed = confirm(sizing, step, timed=place.meter_bytes is None)
        figures = {
            "regime": confirmed.regime.describe(),
            "probes": confirmed.num_probes,
            "prediction_seconds": round(predicted_seconds, 1),
            "probing_seconds": round(time.perf_counter() - began, 1),
            "limit_gib": round(confirmed.limit_bytes / GIB, 2),
            "knee_seconds": confirmed.knee_seconds,
            "probed": [
                [m.num_samples, round(m.seconds, 1), m.peak_bytes and round(m.peak_bytes / GIB, 3), m.taken_seconds]
                for m in confirmed.measured
            ],
            "predicted": [round(sizing.bytes(m.num_samples, m.seconds) / GIB, 3) for m in confirmed.measured],
        }
        buckets = confirmed.buckets
        held = [worst(step, confirmed, b) for b in (buckets[0], buckets[len(buckets) // 2], buckets[-1])]
        figures["fill_of_limit"] = [None if h is None else round(h / confirmed.limit_bytes, 3) for h in held]
        figures["share_of_memory"] = [None if h is None else round(h / place.device.usable_bytes, 3) for h in held]
        weights = sum(4 * p.numel() + 12 * p.numel() * p.requires_grad for p in step.model.parameters())
        rule = seed_rule(float(lengths.mean()), weights, place.device.total_bytes)[0]
        order = np.random.default_rng(1).permutation(len(lengths))
        ways = {
            "chosen": shuffled(cut(lengths.tolist(), confirmed.capacity)),
            f"rule of thumb, {rule}": np.array_split(order, -(-len(order) // rule)),
            "one at a time": np.array_split(order, len(order)),
        }
        figures["audio_per_second"] = {
            name: speed(step, lengths, batches, seconds_each) for name, batches in ways.items()
        }
    return figures


def worst(step: RealStep, sizing: Any, bucket: Any) -> float | None:
    """Return what the device held at a bucket's worst case, context included; None where memory ran out."""
    try:
        return step(bucket.num_samples, bucket.longest_seconds)[1] + sizing.device.context_bytes
    except torch.OutOfMemoryError as error:
        release(error)
        return None


def shuffled(parts: list[list[int]]) -> list[list[int]]:
    return [parts[i] for i in np.random.default_rng(2).permutation(len(parts))]


def speed(step: RealStep, lengths: np.ndarray, batches: Any, seconds: float) -> float | str:
    """Return audio seconds trained on in a second, padding not counted; or that memory ran out."""
    audio = spent = 0.0
    for number, batch in enumerate(batches):
        try:
            taken, _ = step(len(batch), float(lengths[batch].max()))
        except torch.OutOfMemoryError as error:
            return f"out of memory after {number} passes: {release(error)[:80]}"
        if number:  # the first one warms up
            audio, spent = audio + float(lengths[batch].sum()), spent + taken
        if spent > seconds:
            break
    return round(audio / spent, 1) if spent else "a single pass"


def prediction() -> dict[str, Any]:
    """Return the errors of predicted peaks against torch's own, over 33 points."""
    from benchmarks.sizing_prediction import measure_on_gpu, summary

    return summary(measure_on_gpu())


def parts() -> dict[str, Any]:
    """Return {name: what measures it}."""
    lengths = skewed()
    return {"prediction": prediction} | {
        f"sizing of {name}": partial(lambda n: sizing_of(work_of(n), ground(), lengths), name) for name in MODELS
    }


def dry_parts() -> dict[str, Any]:
    """Return the same with a small model on an emulated device: that the script holds together."""
    small = workload(Config(model=ModelConfig(hidden_size=16, num_layers=1)))
    return {"sizing of a small model": lambda: sizing_of(small, dry_ground(24 << 20), skewed(100, 4.0), 0.1)}
