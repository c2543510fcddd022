"""Everything that only a GPU can tell, in one call of under ten minutes and without a network.

    python benchmarks/gpu_all.py [--output out/gpu.json] [--only PART,PART] [--dry]

Batch sizes: error of the predicted memory against torch's own peak (33 points), probing steps, fill and speed of the
chosen batches against a rule of thumb and one sample at a time. Diarization: training throughput of the `quick` network
by precision, peak memory by batch, recovery when memory runs out, speed on a recording, time a checkpoint holds
training up. Codecs: NeuCodec in batches against its own call, and whether the codes are the same. A part that fails is
told, the others go on; parts that would begin after nine minutes are left out. Writes JSON after every part, and ends
with the ratio of audio trained on in a second with the chosen batches to the rule of thumb's. --dry tries the script on
a CPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import traceback
from pathlib import Path
from types import SimpleNamespace

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import gpu_codecs, gpu_sizing  # noqa: E402
from colabkit.core.teller import Teller  # noqa: E402
from colabkit.pipelines.diarization import FRAME_SECONDS, RATE_HZ  # noqa: E402
from colabkit.pipelines.diarization.config import InferConfig, quick  # noqa: E402
from colabkit.pipelines.diarization.infer import Diarizer  # noqa: E402
from colabkit.pipelines.diarization.model.losses import DiarizationLoss  # noqa: E402
from colabkit.pipelines.diarization.train.batches import Batch  # noqa: E402
from colabkit.pipelines.diarization.train.loop import accumulate_gradients, build_model, choose_precision  # noqa: E402
from colabkit.training.checkpoints.checkpoints import Checkpoints  # noqa: E402
from colabkit.training.processes.ranks import join  # noqa: E402
from colabkit.training.sizing.guard import Guard  # noqa: E402

STEPS = 30
MOST_SECONDS = 540.0  # a part that would begin later is left out


def random_batch(windows: int, seconds: float, num_speakers: int) -> Batch:
    frames = round(seconds / FRAME_SECONDS)
    return Batch(
        torch.randn(windows, round(seconds * RATE_HZ)) * 0.1,
        torch.rand(windows, frames, num_speakers) > 0.6,
        torch.randint(0, 200, (windows, num_speakers)),
        torch.ones(windows, frames, dtype=torch.bool),
    )


class Bench:
    """The quick preset's network, loss and optimizer on the GPU at one precision."""

    def __init__(self, precision: str):
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(reset_partial_state=True)
        self.config = quick()
        self.accelerator = Accelerator(mixed_precision=precision)
        torch.manual_seed(0)
        model = build_model(self.config.model)
        loss = DiarizationLoss(model.powerset, 200, self.config.model.embedding_size, 0.2)
        optimizer = torch.optim.AdamW([*model.parameters(), *loss.parameters()], lr=1e-4)
        self.model, self.loss, self.optimizer = self.accelerator.prepare(model, loss, optimizer)

    def guard(self, windows: int) -> Guard:
        """Return a guard that lets so many windows through at once until memory runs out."""
        return Guard(lambda seconds: windows, ranks=join(), teller=Teller(), buffers_of=[self.model])

    def step(self, batch: Batch, guard: Guard) -> None:
        accumulate_gradients(self.model, self.loss, batch, guard, self.accelerator)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def throughput(self, windows: int) -> tuple[float, float]:
        """Return windows a second and the peak memory in GiB."""
        batch = random_batch(windows, self.config.simulate.window_seconds, self.config.model.num_speakers)
        batch = batch.to(self.accelerator.device)
        guard = self.guard(windows)
        for _ in range(5):
            self.step(batch, guard)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        for _ in range(STEPS):
            self.step(batch, guard)
        torch.cuda.synchronize()
        return STEPS * windows / (time.perf_counter() - began), torch.cuda.max_memory_allocated() / 2**30


def recovery_when_memory_runs_out() -> dict:
    """Give the process a fiftieth of the memory and a batch that does not fit; it must shrink and finish."""
    bench = Bench("no")
    windows = 512
    batch = random_batch(windows, bench.config.simulate.window_seconds, bench.config.model.num_speakers).to("cuda")
    torch.cuda.set_per_process_memory_fraction(0.05)
    try:
        guard = bench.guard(windows)
        bench.step(batch, guard)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    return {
        "windows": windows,
        "fits_at_once": min(guard.limits.values(), default=windows),
        "events": dict(guard.events),
    }


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
    bench.step(random_batch(8, 10.0, bench.config.model.num_speakers).to("cuda"), bench.guard(8))
    state = {"model": bench.model.state_dict(), "optimizer": bench.optimizer.state_dict()}
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(folder)
        began = time.perf_counter()
        checkpoints.save(1, state)
        blocked = time.perf_counter() - began
        checkpoints.wait()
    return blocked * 1e3


def training_throughput() -> dict:
    """Return windows a second and peak memory by precision, and what is chosen."""
    run = SimpleNamespace(choose=lambda name, value, reason: value)
    figures: dict = {"automatic": choose_precision(quick().train, join(), run)}
    for precision in ("no", "fp16", "bf16"):
        for windows in (64, 256):
            speed, memory = Bench(precision).throughput(windows)
            figures[f"{precision}, {windows} windows"] = {
                "windows_per_second": round(speed, 1),
                "peak_gib": round(memory, 2),
            }
    return figures


def carry_out(parts: dict, output: Path, figures: dict) -> dict:
    """Measure the parts one after the other; what one of them raises is kept as its figure."""
    began = time.monotonic()
    for name, measure in parts.items():
        if time.monotonic() - began > MOST_SECONDS:
            figures[name] = "left out: no time was left"
            continue
        started = time.monotonic()
        try:
            figures[name] = measure()
        except Exception as error:  # one figure lost must not lose the others
            traceback.print_exc()
            figures[name] = f"failed: {type(error).__name__}: {error}"[:500]
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        print(f"{name} ({time.monotonic() - started:.0f} s): {json.dumps(figures[name], default=str)}", flush=True)
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(figures, indent=1, default=str) + "\n")
    return figures


def ratio_line(figures: dict) -> str:
    """Return the last line: the chosen batches' speed over the rule of thumb's, for the model where it is least."""
    ratios = []
    for name, found in figures.items():
        speeds = found.get("audio_per_second", {}) if isinstance(found, dict) else {}
        chosen, rule = speeds.get("chosen"), next((v for key, v in speeds.items() if key.startswith("rule")), None)
        if isinstance(chosen, float) and isinstance(rule, float):
            ratios.append((chosen / rule, name))
    if not ratios:
        return "ratio: not measured"
    least, where = min(ratios)
    return (
        f"ratio: {least:.2f}x the audio in a second of the rule of thumb's batch ({where}, the least of {len(ratios)})"
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default=str(ROOT / "out" / "gpu.json"))
    parser.add_argument("--only", default="", help="parts to measure, with commas between")
    parser.add_argument(
        "--dry", action="store_true", help="small models on an emulated device: does the script hold together?"
    )
    options = parser.parse_args(arguments)
    if not options.dry and not torch.cuda.is_available():
        print("no GPU here: nothing measured")
        return 0
    parts = (
        {**gpu_sizing.dry_parts(), **gpu_codecs.dry_parts()}
        if options.dry
        else {
            **gpu_sizing.parts(),
            **gpu_codecs.parts(),
            "training throughput": training_throughput,
            "recovery": recovery_when_memory_runs_out,
            "diarized_seconds_per_second": lambda: round(diarization_speed(), 1),
            "checkpoint_blocking_ms": lambda: round(checkpoint_blocking_ms(), 1),
        }
    )
    wanted = [name.strip() for name in options.only.split(",") if name.strip()] or list(parts)
    unknown = sorted(set(wanted) - set(parts))
    if unknown:
        parser.error(f"no such part: {unknown[0]}; there are {', '.join(parts)}")
    heading = {"gpu": "none" if options.dry else torch.cuda.get_device_name(), "torch": torch.__version__}
    figures = carry_out({name: parts[name] for name in wanted}, Path(options.output), heading)
    print(ratio_line(figures))
    return 1 if any(isinstance(value, str) and value.startswith("failed") for value in figures.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
