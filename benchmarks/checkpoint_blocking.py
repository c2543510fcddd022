"""Claim: a checkpoint holds training up for <= 1/10 of the time torch.save takes to a slow folder (50 MB/s).

At the default interval it holds it up for <= 5% of the training time.

    python benchmarks/checkpoint_blocking.py [--megabytes-per-second 50]

Both write the same state (network, averaged network, AdamW moments, random generators) through writes that are held
to the given speed. The default network and a 90 M parameter one; what counts is the time until training may go on.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from colabkit.core import files
from colabkit.pipelines.diarization.config import Config
from colabkit.pipelines.diarization.train.loop import build_model
from colabkit.training.checkpoints.checkpoints import Checkpoints, random_state

REPEATS = 5


class SlowFile(io.FileIO):
    """A file that takes bytes at a fixed speed."""

    bytes_per_second = 50e6

    def write(self, data) -> int:
        time.sleep(memoryview(data).nbytes / self.bytes_per_second)
        return super().write(data)


def state_of(model: torch.nn.Module) -> dict:
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return {
        "model": model.state_dict(),
        "averaged": {k: v.clone() for k, v in model.state_dict().items()},
        "optimizer": optimizer.state_dict(),
        "random": random_state(),
    }


def seconds_of_torch_save(state: dict, folder: Path) -> float:
    times = []
    for repeat in range(REPEATS):
        began = time.perf_counter()
        with SlowFile(folder / f"{repeat}.pt", "wb") as target:
            torch.save(state, target)
            os.fsync(target.fileno())
        times.append(time.perf_counter() - began)
        (folder / f"{repeat}.pt").unlink()
    return statistics.median(times)


def seconds_of_ours(state: dict, folder: Path) -> float:
    """Time the calls of save with enough work between them, as in training; the writes go through slow os.write."""
    plain_write = os.write

    def slow_write(handle, data):
        time.sleep(memoryview(data).nbytes / SlowFile.bytes_per_second)
        return plain_write(handle, data)

    files.os.write = slow_write
    try:
        checkpoints, times = Checkpoints(folder), []
        for repeat in range(REPEATS):
            began = time.perf_counter()
            checkpoints.save(repeat, state)
            times.append(time.perf_counter() - began)
            checkpoints.wait()  # the interval between two checkpoints is longer than the write
        return statistics.median(times)
    finally:
        files.os.write = plain_write


def seconds_a_step(model: torch.nn.Module, windows: int, seconds: float) -> float:
    wave = torch.randn(windows, int(16_000 * seconds)) * 0.1
    optimizer = torch.optim.AdamW(model.parameters())
    times = []
    for _ in range(6):
        began = time.perf_counter()
        logits, embeddings = model(wave)
        (logits.square().mean() + embeddings.mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - began)
    return statistics.median(times[2:])


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes-per-second", type=float, default=50.0)
    SlowFile.bytes_per_second = parser.parse_args().megabytes_per_second * 1e6
    config = Config()
    model = build_model(config.model)
    seconds = seconds_a_step(model, config.train.effective_batch, config.simulate.window_seconds)
    interval = config.train.checkpoint_every_steps * seconds
    large = torch.nn.Sequential(*(torch.nn.Linear(3_000, 3_000) for _ in range(10)))
    worst = float("inf")
    for name, network in (("default network", model), ("90 M parameters", large)):
        state = state_of(network)
        with tempfile.TemporaryDirectory() as folder:
            theirs = seconds_of_torch_save(state, Path(folder))
            ours = seconds_of_ours(state, Path(folder))
        worst = min(worst, theirs / ours)
        print(
            f"{name}: torch.save {theirs:.3f} s, Checkpoints.save holds up {ours * 1e3:.1f} ms, "
            f"{theirs / ours:.0f}x less"
        )
        if network is model:
            share = ours / interval
            print(
                f"  at the default interval of {config.train.checkpoint_every_steps} steps ({interval:.0f} s here): "
                f"{share:.3%} of training time (target <= 5%)"
            )
    print(f"ratio: {worst:.1f}x less blocking than torch.save (target >= 10x)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
