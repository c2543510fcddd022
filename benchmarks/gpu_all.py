"""Everything that only a GPU can tell, in one call of under ten minutes and without a network.

    python benchmarks/gpu_all.py [--output out/gpu.json]

Training throughput of the `quick` network by precision, the peak memory by batch, recovery when memory runs out, speed
of diarization, time a checkpoint holds training up. Prints a table, writes JSON, and ends with the ratio of training
throughput in the automatic precision to that in float32.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from colabkit.core.checkpoint import Checkpoints  # noqa: E402
from colabkit.pipelines.diarization import FRAME_SECONDS, RATE_HZ  # noqa: E402
from colabkit.pipelines.diarization.config import InferConfig, quick  # noqa: E402
from colabkit.pipelines.diarization.data import Batch  # noqa: E402
from colabkit.pipelines.diarization.infer import Diarizer  # noqa: E402
from colabkit.pipelines.diarization.losses import DiarizationLoss  # noqa: E402
from colabkit.pipelines.diarization.train import accumulate_gradients, build_model, choose_precision  # noqa: E402

STEPS = 30


def random_batch(windows: int, seconds: float, num_speakers: int) -> Batch:
    frames = round(seconds / FRAME_SECONDS)
    return Batch(torch.randn(windows, round(seconds * RATE_HZ)) * 0.1, torch.rand(windows, frames, num_speakers) > 0.6,
                 torch.randint(0, 200, (windows, num_speakers)), torch.ones(windows, frames, dtype=torch.bool))


class Bench:
    """The quick preset's network, loss and optimizer on the GPU at one precision."""

    def __init__(self, precision: str):
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState
        AcceleratorState._reset_state(reset_partial_state=True)
        self.config = quick()
        self.accelerator = Accelerator(mixed_precision=precision)
        self.chosen: list[tuple] = []
        self.run = SimpleNamespace(choose=lambda name, value, reason: (self.chosen.append((name, value, reason)), value)[1])
        torch.manual_seed(0)
        model = build_model(self.config.model)
        loss = DiarizationLoss(model.powerset, 200, self.config.model.embedding_size, 0.2)
        optimizer = torch.optim.AdamW([*model.parameters(), *loss.parameters()], lr=1e-4)
        self.model, self.loss, self.optimizer = self.accelerator.prepare(model, loss, optimizer)

    def step(self, batch: Batch, micro: int) -> int:
        micro, _ = accumulate_gradients(self.model, self.loss, batch, micro, self.accelerator, self.run)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return micro

    def throughput(self, windows: int) -> tuple[float, float]:
        """Return windows a second and the peak memory in GiB."""
        batch = random_batch(windows, self.config.simulate.window_seconds, self.config.model.num_speakers)
        batch = batch.to(self.accelerator.device)
        for _ in range(5):
            self.step(batch, windows)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        for _ in range(STEPS):
            self.step(batch, windows)
        torch.cuda.synchronize()
        return STEPS * windows / (time.perf_counter() - began), torch.cuda.max_memory_allocated() / 2**30


def recovery_when_memory_runs_out() -> dict:
    """Give the process a fiftieth of the memory and a batch that does not fit; it must shrink and finish."""
    bench = Bench("no")
    windows = 512
    batch = random_batch(windows, bench.config.simulate.window_seconds, bench.config.model.num_speakers).to("cuda")
    torch.cuda.set_per_process_memory_fraction(0.05)
    try:
        micro = bench.step(batch, windows)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    return {"windows": windows, "fits_at_once": micro, "events": len(bench.chosen)}


def diarization_speed() -> float:
    """Return how many seconds of a recording are diarized in one second."""
    model = build_model(quick().model).cuda().eval()

    def run_windows(waves):
        with torch.no_grad():
            return tuple(part.float().cpu().numpy() for part in model(torch.from_numpy(waves).cuda()))
    diarizer = Diarizer(run_windows, model.powerset.table_CS.cpu().numpy(), InferConfig())
    wave = torch.randn(600 * RATE_HZ).numpy() * 0.1
    diarizer.run(wave[: 60 * RATE_HZ])
    began = time.perf_counter()
    diarizer.run(wave)
    return 600 / (time.perf_counter() - began)


def checkpoint_blocking_ms() -> float:
    bench = Bench("no")
    bench.step(random_batch(8, 10.0, bench.config.model.num_speakers).to("cuda"), 8)
    state = {"model": bench.model.state_dict(), "optimizer": bench.optimizer.state_dict()}
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(folder)
        began = time.perf_counter()
        checkpoints.save(1, state)
        blocked = time.perf_counter() - began
        checkpoints.wait()
    return blocked * 1e3


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", default=str(ROOT / "out" / "gpu.json"))
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no GPU here: nothing measured")
        return 0
    figures: dict = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__}
    automatic = choose_precision(quick().train, SimpleNamespace(choose=lambda name, value, reason: value))
    for precision in ("no", "fp16", "bf16"):
        for windows in (64, 256):
            speed, memory = Bench(precision).throughput(windows)
            figures[f"{precision}, {windows} windows"] = {"windows_per_second": round(speed, 1), "peak_gib": round(memory, 2)}
            print(precision, windows, figures[f"{precision}, {windows} windows"], flush=True)
    figures["recovery"] = recovery_when_memory_runs_out()
    figures["diarized_seconds_per_second"] = round(diarization_speed(), 1)
    figures["checkpoint_blocking_ms"] = round(checkpoint_blocking_ms(), 1)
    print(json.dumps(figures, indent=1))
    Path(options.output).parent.mkdir(parents=True, exist_ok=True)
    Path(options.output).write_text(json.dumps(figures, indent=1) + "\n")
    ratio = figures[f"{automatic}, 64 windows"]["windows_per_second"] / figures["no, 64 windows"]["windows_per_second"]
    print(f"ratio: {ratio:.2f}x the training throughput of float32 in {automatic}, the automatic choice")
    return 0


if __name__ == "__main__":
    sys.exit(main())
