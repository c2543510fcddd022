"""Claim: on identical batches and the same wall clock, DER <= 0.6x that of PyanNet, >= 3x its training throughput.

In ONNX it takes <= 1/3 of PyanNet's inference time.

    python benchmarks/against_pyannet.py [--minutes 8] [--data ../shared/data]

PyanNet (Bredin 2023, pyannote segmentation 3.0) is built here from its published description: SincNet of stride 10,
four bidirectional LSTM layers of 128, two linear layers of 128, powerset classes, 1.47 M parameters. Its package
needs CUDA-linked extensions that do not import beside a CPU build of PyTorch. Both networks learn from the same
batches (simulated from real speech, or from synthetic voices where there is none) with the same loss, optimizer and
schedule, one after the other; both are scored on the same mixes of speakers never heard.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from colabkit.core.teller import Teller  # noqa: E402
from colabkit.pipelines.diarization import FRAME_SAMPLES  # noqa: E402
from colabkit.pipelines.diarization.config import Config, EvaluateConfig, InferConfig, SpeechConfig  # noqa: E402
from colabkit.pipelines.diarization.evaluate.step import conversation, diarize_all, measure  # noqa: E402
from colabkit.pipelines.diarization.infer import Diarizer  # noqa: E402
from colabkit.pipelines.diarization.model.losses import DiarizationLoss  # noqa: E402
from colabkit.pipelines.diarization.model.network import FastDiarizationModel  # noqa: E402
from colabkit.pipelines.diarization.model.powerset import Powerset  # noqa: E402
from colabkit.pipelines.diarization.speech.pool import load_bank  # noqa: E402
from colabkit.pipelines.diarization.speech.step import list_speech  # noqa: E402
from colabkit.pipelines.diarization.train.batches import TrainingBatches, held_out_simulator, training_simulator  # noqa: E402
from colabkit.pipelines.diarization.train.loop import average_weights  # noqa: E402


class SincConv(nn.Module):
    """Band-pass filters with learned edges (Ravanelli & Bengio 2018): 40 cosine and 40 sine filters of 251 taps."""

    def __init__(self, num_filters: int = 40, taps: int = 251, stride: int = 10, rate_hz: int = 16_000):
        super().__init__()
        mel = torch.linspace(
            2595 * math.log10(1 + 30 / 700), 2595 * math.log10(1 + (rate_hz / 2 - 100) / 700), num_filters + 1
        )
        hz = 700 * (10 ** (mel / 2595) - 1)
        self.low, self.band = nn.Parameter(hz[:-1, None]), nn.Parameter(hz.diff()[:, None])
        self.register_buffer("time", torch.arange(-(taps // 2), taps // 2 + 1) / rate_hz, persistent=False)
        self.register_buffer("window", torch.hamming_window(taps, periodic=False), persistent=False)
        self.stride, self.rate_hz = stride, rate_hz

    def filters(self) -> torch.Tensor:
        low = 50 + self.low.abs()
        high = (low + 50 + self.band.abs()).clamp(50, self.rate_hz / 2)
        centre, half = math.pi * (low + high) * self.time, math.pi * (high - low) * self.time
        envelope = torch.sinc(half / math.pi) * self.window
        filters = torch.cat([envelope * centre.cos(), envelope * centre.sin()])[:, None]
        return filters / filters.abs().sum(-1, keepdim=True)

    def forward(self, wave):
        return F.conv1d(wave, self.fixed if hasattr(self, "fixed") else self.filters(), stride=self.stride)

    def fix(self) -> None:
        """Keep the filters as they are now: what remains is a plain convolution, which ONNX can hold."""
        self.fixed = self.filters().detach()


class PyanNet(nn.Module):
    """wave (B, T) -> logits (B, frame of about 17 ms, C)."""

    def __init__(self, num_classes: int, hidden: int = 128, num_layers: int = 4):
        super().__init__()
        self.wave_norm = nn.InstanceNorm1d(1, affine=True)
        self.convolutions = nn.ModuleList([SincConv(), nn.Conv1d(80, 60, 5), nn.Conv1d(60, 60, 5)])
        self.norms = nn.ModuleList([nn.InstanceNorm1d(n, affine=True) for n in (80, 60, 60)])
        self.lstm = nn.LSTM(60, hidden, num_layers, batch_first=True, bidirectional=True, dropout=0.5)
        self.linear = nn.Sequential(nn.Linear(2 * hidden, 128), nn.LeakyReLU(), nn.Linear(128, 128), nn.LeakyReLU())
        self.classify = nn.Linear(128, num_classes)

    def forward(self, wave):
        feats = self.wave_norm(wave[:, None])
        for index, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            feats = convolution(feats)
            feats = F.leaky_relu(norm(F.max_pool1d(feats.abs() if index == 0 else feats, 3, 3)))
        return self.classify(self.linear(self.lstm(feats.transpose(1, 2))[0]))


class PyanNetAtOurRate(nn.Module):
    """PyanNet with its logits read at our 20 ms frames, and no embeddings."""

    def __init__(self, num_speakers: int):
        super().__init__()
        self.powerset = Powerset(num_speakers)
        self.network = PyanNet(self.powerset.num_classes)

    def forward(self, wave):
        logits = self.network(wave).transpose(1, 2)
        num_frames = -(-wave.shape[-1] // FRAME_SAMPLES)
        logits = F.interpolate(logits, size=num_frames, mode="linear", align_corners=False).transpose(1, 2)
        return logits, logits.new_zeros(*logits.shape[:2], 1)

    def count_parameters(self) -> int:
        return sum(p.numel() for p in self.network.parameters())


def train(model, loss_of, batches, minutes: float, learning_rate: float) -> tuple[nn.Module, float]:
    """Train for a wall-clock time; returns the averaged model and the windows a second."""
    averaged = copy.deepcopy(model)
    parameters = [*model.parameters(), *loss_of.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.01)
    feed = batches.from_step(0)
    began, step = time.monotonic(), 0
    while (share := (time.monotonic() - began) / (60 * minutes)) < 1:
        batch = next(feed)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * share))
        loss, _ = loss_of(*model(batch.wave), batch, loss_of.counts(batch))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average_weights(averaged, model, 0.998, step)
        step += 1
    seconds = time.monotonic() - began
    feed.close()
    return averaged.eval(), step * batches.effective_batch / seconds


def score(model, mixes) -> dict[str, float]:
    def run_windows(waves):
        with torch.no_grad():
            return tuple(part.numpy() for part in model(torch.from_numpy(waves)))

    diarizer = Diarizer(run_windows, model.powerset.table_CS.numpy(), InferConfig())
    return measure(mixes, diarize_all(diarizer, mixes), 0.25)


def onnx_seconds(models: list[nn.Module], *, seconds: float = 10.0, repeats: int = 15) -> list[float]:
    """Return the median time of one 10 s window for each model, taken in turns."""
    import onnxruntime

    sessions = []
    with tempfile.TemporaryDirectory() as folder:
        for index, model in enumerate(models):
            path = f"{folder}/{index}.onnx"
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    model.eval(),
                    (torch.zeros(1, int(seconds * 16_000)),),
                    path,
                    dynamo=False,
                    opset_version=17,
                    input_names=["wave"],
                    output_names=["logits", "embeddings"],
                )
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3
            sessions.append(onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]))
    wave = np.random.default_rng(0).standard_normal((1, int(seconds * 16_000))).astype(np.float32) * 0.1
    times = [[] for _ in sessions]
    for _ in range(repeats):
        for session, measured in zip(sessions, times, strict=True):
            began = time.perf_counter()
            session.run(None, {"wave": wave})
            measured.append(time.perf_counter() - began)
    return [float(np.median(measured[2:])) for measured in times]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=8.0, help="training time of each network")
    parser.add_argument("--data", default=os.environ.get("COLABKIT_TEST_DATA", str(ROOT.parent / "shared" / "data")))
    options = parser.parse_args()
    folder = Path(options.data).resolve() / "librispeech-mini"
    speech = (
        SpeechConfig(source=(str(folder),), speaker_from="name") if folder.is_dir() else SpeechConfig(num_voices=120)
    )
    config = Config(speech=speech)
    with tempfile.TemporaryDirectory() as listing:
        spoken = list_speech(speech, Path(listing), Teller())
        bank, unheard = (load_bank(spoken, split, Teller()) for split in ("train", "test"))
    torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))  # as the pipeline does: one core makes the batches
    print(
        f"{len(bank.speakers)} training speakers ({bank.hours:.2f} h), {len(unheard.speakers)} unheard, "
        f"from {speech.source}"
    )
    simulator = held_out_simulator(unheard, EvaluateConfig(), seconds=20.0, num_speakers=2, seed=1000)
    mixes = [conversation(f"mix{i}", simulator.sample(i)) for i in range(100)]
    num_speakers = config.model.num_speakers

    results = []
    for make in (
        lambda: PyanNetAtOurRate(num_speakers),
        lambda: FastDiarizationModel(num_speakers, config.model.hidden_size),
    ):
        torch.manual_seed(0)
        model = make()
        embedding_size = model(torch.zeros(1, 16_000))[1].shape[-1]
        loss_of = DiarizationLoss(
            model.powerset,
            len(bank.speakers),
            embedding_size,
            config.train.embedding_weight if embedding_size > 1 else 0.0,
        )
        batches = TrainingBatches(
            training_simulator(bank, config.simulate, seed=0, max_speakers=num_speakers),
            None,
            real_fraction=0.0,
            effective_batch=config.train.effective_batch,
            seed=0,
        )
        averaged, throughput = train(model, loss_of, batches, options.minutes, config.train.learning_rate)
        scores = score(averaged, mixes)
        name = "PyanNet" if isinstance(model, PyanNetAtOurRate) else "FastDiarizationModel"
        print(
            f"{name}: {model.count_parameters():,} parameters, {throughput:.1f} windows/s, DER {scores['der']:.2%} "
            f"(no collar {scores['der_no_collar']:.2%}, confusion {scores['confusion']:.2%})",
            flush=True,
        )
        results.append((averaged, throughput, scores["der"]))
    (their_model, their_speed, their_der), (our_model, our_speed, our_der) = results
    their_model.network.convolutions[0].fix()
    theirs, ours = onnx_seconds([their_model, our_model])
    print(f"ONNX, one 10 s window: PyanNet {theirs * 1e3:.1f} ms, FastDiarizationModel {ours * 1e3:.1f} ms")
    print(
        f"ratio: DER {our_der / their_der:.2f}x (target <= 0.6x), training throughput {our_speed / their_speed:.1f}x "
        f"(target >= 3x), ONNX inference time {ours / theirs:.2f}x (target <= 0.33x)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
