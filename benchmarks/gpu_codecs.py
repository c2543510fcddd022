"""NeuCodec on a GPU: batches of equally many frames against neucodec's own call, a wave at a time; parity of the codes.

A part of gpu_all.py, or alone: python benchmarks/gpu_codecs.py [--device cpu] [--small]. Needs no network: the model
has its published size (w2v-BERT with 16 layers, as transformers has it) and random weights. neucodec 0.0.6 is emulated
with the same
weights: see peers/codec_calls.py. Segments of five lengths, 1.5 to 15 s, each as often: of 656,300 segments there are
about 900 for every number of frames, so that full batches are the rule. "fp32" rounds nothing to TF32; "tf32" is what
torch itself does in convolutions, and so in neucodec's own call. Parity is the share of codes that are the same as
those of one wave a call.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.peers import codec_calls  # noqa: E402
from colabkit.core.teller import Teller  # noqa: E402
from colabkit.pipelines.dataset.codecs import at_once  # noqa: E402
from colabkit.pipelines.dataset.codecs.families import FAMILIES  # noqa: E402
from colabkit.pipelines.dataset.codecs.transformers_codec import TransformersCodec  # noqa: E402

TARGET = 8.0
MOST_SECONDS = 75.0  # what would begin later is left out
PRECISIONS = ("fp32", "tf32", "bf16")


def lengths(small: bool) -> np.ndarray:
    return np.array([0.5, 0.8]) if small else np.array([1.5, 4.0, 7.0, 10.0, 15.0])


def measure(device: str = "cuda", *, small: bool = False, most_seconds: float = MOST_SECONDS) -> dict[str, Any]:
    """Return audio encoded in a second by each way, parity, memory, and the ratio to neucodec's own call."""
    began = time.monotonic()
    model = codec_calls.build("neucodec", small=small, device=device)
    figures: dict[str, Any] = {
        "built_seconds": round(time.monotonic() - began, 1),
        "million_parameters": round(sum(p.numel() for p in model.parameters()) / 1e6),
    }
    own = codec_calls.NeuCodecsOwn(model, 6 if small else 24)
    singles = [codec_calls.speech(s, 16_000, i) for i, s in enumerate(lengths(small))]
    audio, times = sum(map(len, singles)) / 16_000, 1 if small else 4
    expected = own(singles)  # and every kernel is chosen
    started = time.perf_counter()
    for _ in range(times):
        own(singles)
    figures["own_call_audio_per_second"] = round(audio * times / (time.perf_counter() - started), 1)
    figures["codes_used"] = int(len(np.unique(np.concatenate(expected, 1))))
    at_once.forget()
    for precision in PRECISIONS:
        if time.monotonic() - began < most_seconds:
            figures[precision] = ours(model, device, precision, singles, expected, began + most_seconds, small)
    figures["ratio"] = round(figures["fp32"]["audio_per_second"] / figures["own_call_audio_per_second"], 2)
    return figures


class _Chosen(Teller):
    """Keeps what is chosen."""

    def __init__(self) -> None:
        super().__init__()
        self.chosen: list[str] = []

    def choose(self, name: str, value: float, reason: str) -> float:
        self.chosen.append(f"{value} s: {reason}")
        return value


def ours(
    model: Any,
    device: str,
    precision: str,
    singles: list[np.ndarray],
    expected: list[np.ndarray],
    until: float,
    small: bool,
) -> dict[str, Any]:
    """Encode full batches of each length, each counted as often, until the time is up."""
    teller = _Chosen()
    codec = TransformersCodec(
        "neucodec",
        model,
        FAMILIES["neucodec"](model.config, {}),
        f"random {precision}",
        device=torch.device(device),
        precision=precision,
        teller=teller,
    )
    most = min(codec.most_seconds(), 3.0 if small else 1e9)
    alone = [codec.encode_batch([wave])[0] for wave in singles]
    audio = spent = agreeing = total = 0.0
    for wave in sorted(singles, key=len, reverse=True):
        batch = [np.roll(wave, 1_000 * i) for i in range(max(1, int(most * 16_000 / len(wave))))]
        codec.encode_batch(batch)  # kernels for these shapes are chosen
        started = time.perf_counter()
        codes = codec.encode_batch(batch)
        spent, audio = spent + (time.perf_counter() - started) / len(batch), audio + len(wave) / 16_000
        for i in {0, len(batch) // 2, len(batch) - 1}:
            one = codec.encode_batch([batch[i]])[0]
            agreeing, total = agreeing + (codes[i] == one).sum(), total + one.size
        if time.monotonic() > until:
            break
    figures = {
        "audio_per_second": round(audio / spent, 1),
        "chosen": teller.chosen,
        "parity_with_one_a_call": float(agreeing / total),
        "as_own_call": float(np.mean(np.concatenate(alone, 1) == np.concatenate(expected, 1))),
    }
    if device == "cuda":
        figures["peak_gib"] = round(torch.cuda.max_memory_reserved() / 2**30, 2)
    return figures


def parts() -> dict[str, Any]:
    """Return {name: what measures it}, for gpu_all.py."""
    return {"codecs": measure}


def dry_parts() -> dict[str, Any]:
    """Return the same with a small model on the CPU: that the script holds together."""
    return {"codecs": lambda: measure("cpu", small=True)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="a small model: does the script hold together?")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("no GPU here: nothing measured (--device cpu --small tries the script)")
        return 0
    figures = measure(options.device, small=options.small)
    print(json.dumps(figures, indent=1))
    print(
        f"parity {figures['fp32']['parity_with_one_a_call']:.4%} (target 100%); ratio: {figures['ratio']:.2f}x "
        f"the audio in a second of neucodec's own call (target >= {TARGET:.0f}x)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
