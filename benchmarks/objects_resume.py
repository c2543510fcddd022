"""Claim: at 656,300 items an upload that finds nothing to do takes <= 2 requests and <= 2 s with its manifest.

Without one it takes <= 660 listings.

    python benchmarks/objects_resume.py [--items 656300] [--rounds 3] [--peers s5cmd,rclone] [--folder PLACE]

The files are sparse, of 337 KB each, in three folders; the bucket is colabkit's own server on loopback behind TLS,
which counts what it is asked. Times are those of whole processes; the share of the call itself, without starting
Python, stands beside them, and the processor time of the whole, which says more on a machine that others use too.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from colabkit.core.table import Table  # noqa: E402
from colabkit.loopback.certificates import make_certificates  # noqa: E402
from colabkit.loopback.s3 import S3Server  # noqa: E402
from colabkit.loopback.s3_buckets import Bucket, Stored  # noqa: E402

BUCKET, ITEM_BYTES, KEY = "bucket", 337_000, "AKIALOOPBACK00000001"
CHANNELS = ("Atheer", "Thmanyah", "ZadTVchannel")
MANIFEST = "p/UPLOADED.parquet"
OURS = """
import json, sys, time
from colabkit.io.places import S3Profile, open_place
from colabkit.io.transfer.upload import upload_folder
objects = open_place("s3://bucket/p", profile=S3Profile.find("bucket", endpoint=sys.argv[2], ca_bundle=sys.argv[3]))
began = time.perf_counter()
done = upload_folder(sys.argv[1], objects)
print(json.dumps([time.perf_counter() - began, done.num_files, done.num_sent]))
"""


def names_of(count: int) -> list[str]:
    return [f"{CHANNELS[number % 3]}/{CHANNELS[number % 3]}_{number:07d}.npz" for number in range(count)]


class Sizes(Bucket):
    """A bucket that keeps the manifest whole and of all else the sizes."""

    def put(self, key: str, content: bytes, etag: str = "") -> Stored:
        self.keep_bodies = key == MANIFEST
        return super().put(key, content, etag)

    def fill(self, count: int) -> None:
        now = time.time()
        self._objects = {
            f"p/{name}": Stored(ITEM_BYTES, f'"{number:032x}"', now, None)
            for number, name in enumerate(names_of(count))
        }


def serve(folder: str, count: int) -> None:
    """Serve a full bucket until standard input ends; a line asks for the counts, "forget" takes the manifest away."""
    server = S3Server(tls=make_certificates(Path(folder)).server_context())
    bucket = server.buckets[BUCKET] = Sizes()
    bucket.fill(count)
    bucket.keys_after("", 1)  # sorted once, before anything is timed
    with server:
        print(server.url, flush=True)
        for line in sys.stdin:
            if line.strip() == "forget":
                bucket.delete(MANIFEST)
                bucket.keys_after("", 1)
            print(json.dumps(server.counts), flush=True)
            server.counts.clear()


def write_items(folder: Path, count: int) -> None:
    for channel in CHANNELS:
        (folder / channel).mkdir(parents=True)
    for name in names_of(count):
        handle = os.open(folder / name, os.O_CREAT | os.O_WRONLY)
        os.ftruncate(handle, ITEM_BYTES)
        os.close(handle)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=656_300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", default="s5cmd,rclone")
    parser.add_argument("--folder", default="", help="where the files are written (default: a temporary folder)")
    parser.add_argument("--serve", nargs=2, metavar="X", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve[0], int(options.serve[1]))
        return 0
    with tempfile.TemporaryDirectory(dir=options.folder or None) as place:
        items, certificates = Path(place) / "items", Path(place) / "certificates"
        write_items(items, options.items)
        server = subprocess.Popen(
            [sys.executable, __file__, "--serve", str(certificates), str(options.items)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        url, authority = server.stdout.readline().strip(), str(certificates / "authority.pem")

        def asked(line: str) -> dict[str, int]:
            server.stdin.write(line + "\n")
            server.stdin.flush()
            return json.loads(server.stdout.readline())

        try:
            measure(options, items, url, authority, asked)
        finally:
            server.stdin.close()
            server.wait(60)
    return 0


def measure(options: argparse.Namespace, items: Path, url: str, authority: str, asked) -> None:
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "PYTHONPATH": str(ROOT),
        "AWS_CONFIG_FILE": "/dev/null",
    }
    environment.pop("AWS_CA_BUNDLE", None)  # each client is told on its command line, as far as it can be
    commands = {
        "colabkit": [sys.executable, "-c", OURS, str(items), url, authority],
        "s5cmd": [
            "s5cmd",
            "--log",
            "error",
            "--endpoint-url",
            url,
            "sync",
            "--size-only",
            f"{items}/",
            f"s3://{BUCKET}/p/",
        ],
        "rclone": [
            "rclone",
            "copy",
            str(items),
            f":s3:{BUCKET}/p",
            "--size-only",
            "--fast-list",
            "--s3-provider",
            "Other",
            "--s3-endpoint",
            url,
            "--s3-env-auth",
            "--s3-force-path-style",
            "--ca-cert",
            authority,
            "--s3-no-check-bucket",
            "--config",
            "/dev/null",
        ],
    }
    figures: dict[str, list[tuple[float, float, dict[str, int], float]]] = {}

    def run(name: str, client: str) -> None:
        before = {**environment, "AWS_CA_BUNDLE": authority} if client == "s5cmd" else environment
        began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(commands[client], env=before, capture_output=True, text=True)
        seconds, now = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_seconds = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
        if done.returncode:
            raise SystemExit(f"{client}: exit {done.returncode}\n{done.stderr[-2000:]}")
        inside = seconds
        if client == "colabkit":
            inside, num_files, num_sent = json.loads(done.stdout.splitlines()[-1])
            assert (num_files, num_sent) == (options.items, 0), (num_files, num_sent)
        counts = asked("counts")
        assert not counts.get("put", 0) - (name == "colabkit, no manifest"), counts
        figures.setdefault(name, []).append((seconds, inside, counts, cpu_seconds))
        print(f"{name}: {seconds:.2f} s, {inside:.2f} s inside, {cpu_seconds:.2f} CPU-s, {counts}", flush=True)

    for _ in range(options.rounds):
        asked("forget")
        run("colabkit, no manifest", "colabkit")
        run("colabkit", "colabkit")
        for peer in filter(None, options.peers.split(",")):
            run(peer, peer)
    rows, middle = [], {}
    for name, found in figures.items():
        middle[name] = statistics.median(one[0] for one in found)
        inside = statistics.median(one[1] for one in found)
        counts = found[0][2]
        cpu = statistics.median(one[3] for one in found)
        rows.append(
            [name, f"{middle[name]:.2f}", f"{inside:.2f}", f"{cpu:.2f}", sum(counts.values()), counts.get("list", 0)]
        )
    columns = ["client", "s", "s without start", "CPU-s", "requests", "listings"]
    print(Table(columns, rows, title=f"{options.items} items, nothing to do"))
    own = figures["colabkit"]
    told = [
        f"{peer} {middle[peer] / middle['colabkit']:.1f}x with the manifest, "
        f"{middle[peer] / middle['colabkit, no manifest']:.1f}x without"
        for peer in filter(None, options.peers.split(","))
    ]
    print(
        f"{max(sum(one[2].values()) for one in own)} requests (target 2), "
        f"{statistics.median(one[1] for one in own):.2f} s (target 2), "
        f"{max(one[2].get('list', 0) for one in figures['colabkit, no manifest'])} listings without a manifest "
        f"(target 660); " + "; ".join(told)
    )


if __name__ == "__main__":
    raise SystemExit(main())
