"""Claim: from the same files with the same decoder, >= 2x the samples a second of datasets + StatefulDataLoader.

They are also >= 1x those of litdata and lhotse (Shar), with two workers each.

    python benchmarks/stream_throughput.py --peers PATH-OF-VENV [--seconds 20] [--data FOLDER]

The audio is LibriSpeech's where the folder with recordings exists, else synthetic; each loader reads it in the layout
it is made for: Parquet (datasets and colabkit), tar (lhotse and colabkit), litdata's chunks. One column is FLAC, where
decoding takes most of the time, the other wav, where loading does. Rounds alternate; the ratios are of medians.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from colabkit.core.table import Table  # noqa: E402
from colabkit.core.teller import Teller  # noqa: E402
from colabkit.io.audio import read_audio  # noqa: E402
from colabkit.io.samples import Samples  # noqa: E402
from colabkit.io.samples.build import build_index  # noqa: E402
from colabkit.io.samples.shards import ShardWriter, flac_bytes  # noqa: E402
from colabkit.io.samples.source import find_source  # noqa: E402
from colabkit.training.stream.batch_plan import SampleOrder  # noqa: E402
from colabkit.training.stream.stream import Source, Stream  # noqa: E402

BATCH, COPIES = 16, 8
PEER = ROOT / "benchmarks" / "peers" / "throughput.py"
TARGETS = {"datasets": 2.0, "litdata": 1.0, "lhotse": 1.0}


def make_waves(data: Path) -> list[np.ndarray]:
    found = sorted((data / "librispeech-mini").glob("*.flac"))
    if found:
        return [read_audio(path) for path in found]
    rng = np.random.default_rng(0)
    return [(rng.standard_normal(int(16_000 * rng.uniform(6, 17))) * 0.05).astype(np.float32) for _ in range(250)]


def wav_bytes(wave: np.ndarray) -> bytes:
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, wave, 16_000, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def write_layouts(folder: Path, kind: str, waves: list[np.ndarray], peers: str) -> None:
    """Write the same files as Parquet, tar, Shar and litdata chunks."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    contents = [flac_bytes(w, 16_000) if kind == "flac" else wav_bytes(w) for w in waves] * COPIES
    (folder / "parquet").mkdir(parents=True)
    (folder / "kind.json").write_text(json.dumps(kind))
    with ShardWriter(folder / "tar", shard_bytes=64 << 20) as writer:
        for number, content in enumerate(contents):
            writer.add(f"{number:06d}", content, f".{kind}", {})
    for shard, start in enumerate(range(0, len(contents), 400)):
        rows = [
            {"bytes": content, "path": f"{start + i}.{kind}"} for i, content in enumerate(contents[start : start + 400])
        ]
        pq.write_table(
            pa.table({"audio": rows}),
            folder / "parquet" / f"{shard:04d}.parquet",
            row_group_size=100,
            compression="none",
        )
    for peer in ("litdata", "lhotse"):
        subprocess.run([peers, str(PEER), f"prepare-{peer}", str(folder), "0", "0"], check=True, capture_output=True)


def ours(folder: Path, layout: str, seconds: float, workers: int) -> dict:
    """Return samples a second of colabkit's stream, batches of waves as the peers'."""
    index = build_index(find_source(str(folder / layout)), folder / f"{layout}-parts", teller=Teller())
    samples = Samples(index)
    began = time.perf_counter()
    stream = Stream([Source("a", index.fingerprint, SampleOrder(len(index), seed=0, batch_samples=BATCH))], seed=0)
    count, first = 0, None
    with closing(
        stream.load(lambda source, number: samples.read_wave(number), workers=workers, ahead=2 * workers)
    ) as batches:
        for loaded in batches:
            now = time.perf_counter()
            stream.acknowledge(loaded)
            if first is None:
                first, begin = now - began, now
                continue
            count += len(loaded.values)
            if now - begin > seconds:
                return {"samples_per_second": count / (now - begin), "first_batch_seconds": first}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", default="/tmp/peers", help="virtual environment with the peers")
    parser.add_argument("--data", default=os.environ.get("COLABKIT_TEST_DATA", str(ROOT.parent / "shared" / "data")))
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    python = str(Path(options.peers) / "bin" / "python")
    waves, rows, ratios = make_waves(Path(options.data)), [], {}
    with tempfile.TemporaryDirectory() as place:
        for kind in ("flac", "wav"):
            folder = Path(place) / kind
            write_layouts(folder, kind, waves, python)
            figures: dict[str, list[float]] = {}
            for _ in range(options.rounds):
                for layout in ("parquet", "tar"):
                    figures.setdefault(f"colabkit {layout}", []).append(
                        ours(folder, layout, options.seconds, options.workers)["samples_per_second"]
                    )
                for peer in TARGETS:
                    done = subprocess.run(
                        [python, str(PEER), peer, str(folder), str(options.workers), str(options.seconds)],
                        capture_output=True,
                        text=True,
                    )
                    if done.returncode:
                        print(peer, done.stderr[-1500:])
                        continue
                    figures.setdefault(peer, []).append(json.loads(done.stdout.splitlines()[-1])["samples_per_second"])
            medians = {name: statistics.median(values) for name, values in figures.items()}
            rows += [
                [kind, name, f"{value:.0f}", f"{min(figures[name]):.0f}-{max(figures[name]):.0f}"]
                for name, value in medians.items()
            ]
            for peer, own in (("datasets", "parquet"), ("litdata", "tar"), ("lhotse", "tar")):
                if peer in medians:
                    ratios[f"{kind} v {peer}"] = medians[f"colabkit {own}"] / medians[peer]
    print(Table(["files", "loader", "samples/s, median", "range"], rows))
    print(
        "ratios: "
        + ", ".join(f"{name} {value:.2f}x (target {TARGETS[name.split()[-1]]:g}x)" for name, value in ratios.items())
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
