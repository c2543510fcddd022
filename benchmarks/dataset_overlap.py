"""Claim: download, encode and upload overlap so that the whole runs at >= 0.92 of its slowest stage alone.

The disk quota is 15% of the data. The whole is >= 2.2x the usual loop of batches in turns; the first segment is encoded
within 2 s.

    python benchmarks/dataset_overlap.py [--items 900] [--rounds 2] [--http]

A loopback S3 server (TLS with a certificate made for it) in a process of its own gives and takes bytes at chosen rates,
and the codec sleeps as long as a GPU would compute: so two cores are enough, and what is measured is how well the
stages overlap. The scratch folder is a tmpfs of just the quota where one can be mounted, else its largest size is
watched. Rounds alternate between each stage alone, the loop and colabkit; figures are medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from peers import serial_flow  # noqa: E402

from colabkit.core.table import Table  # noqa: E402
from colabkit.core.teller import Teller  # noqa: E402
from colabkit.io.places import S3Profile, open_place  # noqa: E402
from colabkit.loopback.certificates import make_certificates  # noqa: E402
from colabkit.loopback.messages import Request  # noqa: E402
from colabkit.loopback.s3 import S3Server  # noqa: E402
from colabkit.pipelines.dataset.encode.job import encode  # noqa: E402
from colabkit.pipelines.dataset.segments.npz import write_npz  # noqa: E402
from colabkit.pipelines.dataset.segments.read import read_segment  # noqa: E402
from colabkit.pipelines.dataset.segments.segment import Segment  # noqa: E402
from tests.pipelines.dataset.encode.small_codec import SmallCodec  # noqa: E402

RATE_HZ, DOWNLOADS, UPLOADS, SHARE = 24_000, 16, 8, 0.15
LATENCY_SECONDS = 0.01
TARGET_OVERLAP, TARGET_LOOP, TARGET_FIRST_SECONDS = 0.92, 2.2, 2.0
# Bytes a second down and up, and seconds of audio a second: which stage is the slowest, and all alike.
CASES = {
    "download": (16e6, 24e6, 240.0),
    "encode": (24e6, 24e6, 160.0),
    "upload": (24e6, 16e6, 240.0),
    "all alike": (18e6, 18e6, 180.0),
}


class Link:
    """A line of so many bytes a second that all requests share."""

    def __init__(self) -> None:
        self.bytes_per_second, self._free_at, self._lock = float("inf"), 0.0, threading.Lock()

    def carry(self, num_bytes: int) -> None:
        """Wait as long as the line needs."""
        with self._lock:
            now = time.monotonic()
            self._free_at = max(now, self._free_at) + num_bytes / self.bytes_per_second
            wait = self._free_at + LATENCY_SECONDS - now
        time.sleep(wait)


def serve(folder: Path, items: int, seed: int, tls: bool) -> None:
    """Make the data and serve it until standard input ends."""
    context = make_certificates(folder / "certificates").server_context() if tls else None
    down, up = Link(), Link()
    with S3Server(tls=context) as server:
        rng, total = np.random.default_rng(seed), 0
        for i in range(items):
            num_samples = int(rng.uniform(1.0, 6.0) * 50) * RATE_HZ // 50
            wave = (rng.integers(-3000, 3000, num_samples) / 32768).astype(np.float32)
            content = write_npz(Segment(key="", wave=wave, rate_hz=RATE_HZ, speaker=f"s{i % 5}", channel=f"c{i % 3}"))
            server.put("bucket", f"data/segments/c{i % 3}/{i:06d}.npz", content)
            total += len(content)

        def before(request: Request) -> None:
            key = request.path.partition("/bucket/")[2]
            if request.method == "PUT":
                up.carry(len(request.body))
            elif request.method == "GET" and key and (found := server.make_bucket("bucket").find(key)):
                down.carry(found.size)

        server.before = before
        print(json.dumps({"url": server.url, "num_bytes": total}), flush=True)
        for line in sys.stdin:
            down.bytes_per_second, up.bytes_per_second = json.loads(line)
            print("set", flush=True)


class Store:
    """The server, from outside."""

    def __init__(self, folder: Path, items: int, tls: bool):
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve", str(folder), "--items", str(items), *([] if tls else ["--http"])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        told = json.loads(self._process.stdout.readline())
        self.num_bytes = told["num_bytes"]
        self.profile = S3Profile(
            bucket="bucket",
            endpoint=told["url"],
            region="us-east-1",
            access_key="bench",
            secret_key="bench",
            ca_bundle=str(folder / "certificates" / "authority.pem") if tls else "",
        )
        self.source = self.open("data/segments")

    def open(self, prefix: str):
        return open_place(f"s3://bucket/{prefix}", profile=self.profile)

    def set(self, down: float, up: float) -> None:
        """Choose the rates."""
        self._process.stdin.write(json.dumps([down, up]) + "\n")
        self._process.stdin.flush()
        self._process.stdout.readline()

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(10)


@contextmanager
def scratch_disk(folder: Path, quota: int) -> Iterator[tuple[Path, str]]:
    """Give a disk of just the quota, or a folder where that cannot be mounted."""
    folder.mkdir(parents=True)
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={quota}", "tmpfs", str(folder)], capture_output=True
    ).returncode:
        yield folder, "folder"
        return
    try:
        yield folder, "tmpfs"
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def alone(store: Store, codec: SmallCodec, stage: str, prefix: str) -> float:
    """Return how long one stage takes when nothing else is done."""
    listed = list(store.source.list())
    if stage == "download":
        began = time.perf_counter()
        with ThreadPoolExecutor(DOWNLOADS) as pool:
            list(pool.map(lambda entry: len(store.source.get(entry.name)), listed))
        return time.perf_counter() - began
    if stage == "encode":
        seconds = sum((entry.size - 1000) / 4 / RATE_HZ for entry in listed)
        began = time.perf_counter()
        full = np.zeros(int(codec.most_seconds() * codec.rate_hz_in), np.float32)
        while seconds > 0:
            part = full[: int(seconds * codec.rate_hz_in)]
            codec.encode_batch([part])
            seconds -= codec.most_seconds()
        return time.perf_counter() - began
    output = store.open(prefix)
    began = time.perf_counter()
    with ThreadPoolExecutor(UPLOADS) as pool:
        list(pool.map(lambda entry: output.put(entry.name, b"\0" * (entry.size + 300)), listed))
    return time.perf_counter() - began


def warm_up(store: Store, place: Path) -> None:
    """Import what is imported on first use: that is not timed."""
    store.set(1e9, 1e9)
    encode(
        store.source,
        store.open("warm"),
        SmallCodec(),
        scratch=place / "warm",
        read_segment=read_segment,
        limit=3,
        quota_bytes=64 << 20,
        teller=Teller(say=lambda line: None),
    )


def measure(store: Store, case: str, items: int, rounds: int, place: Path) -> dict:
    """Return medians of each stage alone, of the loop and of colabkit."""
    down, up, speed = CASES[case]
    quota = int(SHARE * store.num_bytes)
    store.set(down, up)
    times: dict[str, list[float]] = {}
    more: dict[str, float] = {}
    for i in range(rounds):
        codec = SmallCodec(most=30.0, seconds_per_second=1 / speed)
        name = f"{case.replace(' ', '-')}-{i}"
        for stage in ("download", "encode", "upload"):
            times.setdefault(stage, []).append(alone(store, codec, stage, f"{name}/alone"))
        with scratch_disk(place / f"{name}-loop", quota) as (folder, _):
            began = time.perf_counter()
            done = serial_flow.run(
                store.source,
                store.open(f"{name}/loop"),
                codec,
                folder,
                read_segment=read_segment,
                write_npz=write_npz,
                batch_bytes=int(0.8 * quota),
                downloads=DOWNLOADS,
                uploads=UPLOADS,
            )
            times.setdefault("loop", []).append(time.perf_counter() - began)
            assert done == items
        with scratch_disk(place / f"{name}-ours", quota) as (folder, kind):
            began = time.perf_counter()
            result = encode(
                store.source,
                store.open(f"{name}/ours"),
                codec,
                scratch=folder,
                read_segment=read_segment,
                write_npz=write_npz,
                output_format="npz",
                quota_bytes=quota,
                piece_bytes=quota // 8,
                num_downloads=DOWNLOADS,
                num_uploads=UPLOADS,
                teller=Teller(say=lambda line: None),
            )
            times.setdefault("colabkit", []).append(time.perf_counter() - began)
        assert result.num_encoded == items and result.is_finished, result
        more = {
            "first": max(more.get("first", 0.0), result.seconds_to_first),
            "kind": kind,
            "used": max(more.get("used", 0), result.most_bytes_used / quota),
            "batches": result.num_batches,
        }
    medians = {name: statistics.median(values) for name, values in times.items()}
    slowest = max(medians[stage] for stage in ("download", "encode", "upload"))
    return (
        medians
        | more
        | {"overlap": slowest / medians["colabkit"], "against the loop": medians["loop"] / medians["colabkit"]}
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=900, help="segments, of 340 KB on average")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--case", action="append", choices=CASES, default=[])
    parser.add_argument("--http", action="store_true", help="without TLS")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(Path(options.serve), options.items, 0, not options.http)
        return 0
    rows, figures = [], {}
    with tempfile.TemporaryDirectory(prefix="overlap-") as place:
        store = Store(Path(place), options.items, not options.http)
        try:
            warm_up(store, Path(place))
            for case in options.case or CASES:
                found = figures[case] = measure(store, case, options.items, options.rounds, Path(place))
                rows.append(
                    [
                        case,
                        *(f"{found[name]:.1f}" for name in ("download", "encode", "upload", "loop", "colabkit")),
                        f"{found['overlap']:.3f}",
                        f"{found['against the loop']:.2f}x",
                        f"{found['first']:.2f}",
                        f"{found['used']:.0%} of a {found['kind']}",
                        found["batches"],
                    ]
                )
        finally:
            store.close()
        print(
            f"{options.items} segments, {store.num_bytes / 1e6:.0f} MB, quota {SHARE:.0%}, {os.cpu_count()} cores, "
            f"{'http' if options.http else 'TLS'}"
        )
    print(
        Table(
            [
                "slowest",
                "download alone, s",
                "encode alone",
                "upload alone",
                "loop",
                "colabkit",
                "overlap",
                "against the loop",
                "first, s",
                "quota used",
                "batches",
            ],
            rows,
        )
    )
    worst = min(found["overlap"] for found in figures.values())
    first = max(found["first"] for found in figures.values())
    against = {case: found["against the loop"] for case, found in figures.items()}
    print(
        f"ratios: overlap {worst:.3f} at worst (target {TARGET_OVERLAP}), against the loop "
        + ", ".join(f"{value:.2f}x ({case})" for case, value in against.items())
        + f" (target {TARGET_LOOP}x where the stages are alike), first in {first:.2f} s "
        f"(target {TARGET_FIRST_SECONDS:g} s)"
    )
    return (
        0 if worst >= TARGET_OVERLAP and max(against.values()) >= TARGET_LOOP and first <= TARGET_FIRST_SECONDS else 1
    )


if __name__ == "__main__":
    raise SystemExit(main())
