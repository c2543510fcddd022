"""Claim: segments' npz are read >= 2x as fast as by numpy.load with the same checks, their headers alone >= 3x as fast.

The headers are read by a sixtieth of the bytes. Speech is found >= 3x as fast as by silero_vad's own
get_speech_timestamps, in the same places.

    python benchmarks/dataset_segments.py [--items 400] [--minutes 10] [--rounds 5] [--data FOLDER]

Rounds alternate; ratios are of medians. Each side reads the same bytes with one thread, and for the speech also with
two. The audio is LibriSpeech's where the folder with recordings exists, else made on the spot.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from colabkit.core.table import Table  # noqa: E402
from colabkit.io.audio import read_audio  # noqa: E402
from colabkit.io.places import Folder  # noqa: E402
from colabkit.io.voices import make_speakers, utterance  # noqa: E402
from colabkit.pipelines.dataset.cut.spans import find_speech  # noqa: E402
from colabkit.pipelines.dataset.cut.vad import FRAME_SAMPLES, load_detector  # noqa: E402
from colabkit.pipelines.dataset.profile.headers import inspect  # noqa: E402
from colabkit.pipelines.dataset.segments.npz import read_npz, write_npz  # noqa: E402
from colabkit.pipelines.dataset.segments.rules import CutRules  # noqa: E402
from colabkit.pipelines.dataset.segments.segment import Segment  # noqa: E402

NPZ_BYTES = 337_000


def speech(data: Path, seconds: float) -> np.ndarray:
    """Return speech at 16 kHz with a pause after each utterance. Shape: (sample,) float32."""
    found = sorted((data / "librispeech-mini").glob("*.flac"))
    parts, total = [], 0.0
    for number in range(10_000):
        wave = (
            read_audio(found[number % len(found)])
            if found
            else utterance(make_speakers(8)[number % 8], number // 8).wave
        )
        parts += [wave, np.zeros(int(16_000 * (0.3 + 0.1 * (number % 9))), np.float32)]
        total += (len(parts[-2]) + len(parts[-1])) / 16_000
        if total >= seconds:
            return np.concatenate(parts)
    raise AssertionError("unreachable")


def by_numpy(payload: bytes) -> dict:
    """Read an npz with numpy and make the checks that read_npz makes."""
    with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
        values = {name: arrays[name] for name in arrays.files}
    wave = values["audio"]
    if wave.dtype != np.float32 or not np.isfinite(wave).all() or np.abs(wave).max() > 2:
        raise ValueError("not a wave")
    return {**{name: str(values[name]) for name in ("speaker", "channel", "text", "sample_rate")}, "wave": wave}


def alternate(calls: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Run the calls in turn; returns the seconds of each round of each."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if number:  # the first warms up
                taken[name].append(time.perf_counter() - began)
    return taken


def reading(items: int, rounds: int, rows: list) -> dict[str, float]:
    draw = np.random.default_rng(0)
    payloads = []
    for number in range(items):
        wave = (
            (draw.standard_normal(NPZ_BYTES // 4 + int(draw.integers(-9_000, 9_000))) * 0.1)
            .clip(-1, 1)
            .astype(np.float32)
        )
        payloads.append(
            write_npz(
                Segment(
                    key="",
                    wave=wave,
                    rate_hz=24_000,
                    speaker=f"s{number}",
                    channel="c",
                    text="text " * 9,
                    metadata={"start_seconds": "1.5"},
                )
            )
        )
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as place:
        for number, payload in enumerate(payloads):
            Path(place, f"{number:05d}.npz").write_bytes(payload)
        objects = Folder(place)
        listing = list(objects.list())
        num_bytes = []

        def look_at(found) -> None:
            def read(start: int, stop: int) -> bytes:
                num_bytes.append(stop - start)
                return objects.get(found.name, start, stop)

            inspect(read, found.name, found.size)

        taken = alternate(
            {
                "read_npz": lambda: [read_npz(p, "a.npz") for p in payloads],
                "numpy.load": lambda: [by_numpy(p) for p in payloads],
                "headers of a folder": lambda: [look_at(o) for o in listing],
                "whole files of a folder": lambda: [by_numpy(objects.get(o.name)) for o in listing],
            },
            rounds,
        )
    medians = {name: statistics.median(values) / items for name, values in taken.items()}
    rows += [
        [
            name,
            f"{value * 1e6:.0f} us a file",
            f"{min(taken[name]) / items * 1e6:.0f}-{max(taken[name]) / items * 1e6:.0f}",
        ]
        for name, value in medians.items()
    ]
    print(
        f"headers: {sum(num_bytes) / items / (rounds + 1) / 1024:.1f} KiB of a file of {NPZ_BYTES / 1024:.0f} KiB "
        f"are read, by {len(num_bytes) / items / (rounds + 1):.1f} requests"
    )
    return {
        "read_npz v numpy.load": medians["numpy.load"] / medians["read_npz"],
        "headers v whole files": medians["whole files of a folder"] / medians["headers of a folder"],
    }


def speaking(wave: np.ndarray, rounds: int, rows: list) -> dict[str, float]:
    try:
        import torch
        from silero_vad import get_speech_timestamps, load_silero_vad
    except (ImportError, OSError) as error:
        print(f"silero_vad's own code does not run here ({error}): left out")
        return {}
    torch.set_num_threads(1)
    detector, rules = load_detector(), CutRules(min_speech_seconds=0.25)
    tensor, halves = torch.from_numpy(wave), np.array_split(wave, 2)
    models = {
        "get_speech_timestamps, torch.jit": load_silero_vad(),
        "get_speech_timestamps, onnx": load_silero_vad(onnx=True),
    }
    theirs: list[list[dict]] = []

    def listen(audio: np.ndarray) -> list[tuple[int, int]]:
        return find_speech(detector.probabilities(audio), rules)

    pool = ThreadPoolExecutor(2)
    calls: dict[str, Callable[[], object]] = {
        "find_speech": lambda: listen(wave),
        "find_speech, two recordings at once": lambda: list(pool.map(listen, halves)),
    }
    for name, model in models.items():
        calls[name] = lambda model=model: theirs.append(get_speech_timestamps(tensor, model, speech_pad_ms=0))
    taken = alternate(calls, rounds)
    seconds = len(wave) / 16_000
    medians = {name: statistics.median(values) for name, values in taken.items()}
    rows += [
        [
            name,
            f"{seconds / value:.0f}x real time",
            f"{seconds / max(taken[name]):.0f}-{seconds / min(taken[name]):.0f}",
        ]
        for name, value in medians.items()
    ]
    ours, peer = np.zeros(len(wave), bool), np.zeros(len(wave), bool)
    for start, stop in listen(wave):
        ours[start * FRAME_SAMPLES : stop * FRAME_SAMPLES] = True
    for span in theirs[-1]:
        peer[span["start"] : span["end"]] = True
    print(
        f"speech: {ours.mean():.1%} of the audio here, {peer.mean():.1%} by silero_vad, the same for "
        f"{(ours == peer).mean():.2%}"
    )
    return {f"find_speech v {name}": medians[name] / medians["find_speech"] for name in models}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("COLABKIT_TEST_DATA", str(ROOT.parent / "shared" / "data")))
    parser.add_argument("--items", type=int, default=400)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rows: list[list] = []
    ratios = reading(options.items, options.rounds, rows)
    ratios |= speaking(speech(Path(options.data), 60 * options.minutes), options.rounds, rows)
    print(Table(["what", "median", "range"], rows))
    print("ratios: " + ", ".join(f"{name} {value:.2f}x" for name, value in ratios.items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
