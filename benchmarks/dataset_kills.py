"""Claim: encoding that is killed without warning 1,000 times loses nothing and commits nothing twice.

It encodes at most one micro-batch again a kill. All this over a store that refuses and resets and a disk that is full
now and then.

    python benchmarks/dataset_kills.py [--kills 1000] [--seed 0]

A third of the kills come at random instants, the others just before or after a request, a write of the spool or the
journal, or a call of the codec. The store is a loopback S3 with TLS behind a proxy that answers some requests with 429
or 503, resets connections before, within and after answers, and cuts bodies short. Scratch folders lie on a tmpfs of
just the quota where one can be mounted, and writes there fail with ENOSPC at random besides. A killed run is started
again until it ends; then every object must have the bytes of an undisturbed run. Kinds of work alternate: codes alone,
full npz, claims. The last line is the result; the exit code is 1 if anything differed.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from colabkit.core.table import Table  # noqa: E402
from colabkit.io.places import S3Profile, open_place  # noqa: E402
from colabkit.loopback.certificates import make_certificates  # noqa: E402
from tests.pipelines.dataset.encode.killing import KINDS, QUOTA, Campaign  # noqa: E402
from tests.pipelines.dataset.encode.small_codec import make_wave, npz_bytes  # noqa: E402
from tests.servers.faults import FaultProxy  # noqa: E402

RATES = {"resets": 0.02, "truncations": 0.02, "refusals": 0.04}
DISK_FULL = 0.01  # of the spool's writes


def serve(folder: Path, items: int) -> None:
    """Serve segments until standard input ends; prints the addresses of the server and of the proxy before it."""
    from colabkit.loopback.s3 import S3Server

    context = make_certificates(folder / "certificates").server_context()
    with S3Server() as server, FaultProxy(server.url, **RATES, tls=context) as proxy:
        rng = random.Random(0)
        for i in range(items):
            content = npz_bytes(make_wave(i, 4000 * rng.randint(1, 3)), speaker=f"s{i % 7}")
            server.put("bucket", f"segments/channel{i % 3}/{i:05d}.npz", content)
        server.put("bucket", "segments/channel0/broken.npz", b"PK no zip")
        print(json.dumps({"proxy": proxy.url}), flush=True)
        sys.stdin.read()
        print(json.dumps(proxy.counts), flush=True)


def mounted(folder: Path, num_bytes: int) -> bool:
    folder.mkdir(parents=True)
    return not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={num_bytes}", "tmpfs", str(folder)], capture_output=True
    ).returncode


class Disks(Campaign):
    """A campaign whose scratch folders are disks of just the quota; what is done with is removed."""

    def trial(self, number: int, chances: random.Random, most_events: int, most_kills: int) -> None:
        """Work on one output until it is done."""
        disk = self.folder / f"trial-{number}"
        is_disk = mounted(disk, QUOTA)
        try:
            super().trial(number, chances, most_events, most_kills)
        finally:
            if is_disk:
                subprocess.run(["umount", "-l", str(disk)], check=True)
            if not self.faults:
                shutil.rmtree(disk, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--items", type=int, default=120, help="segments of one piece of work")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(Path(options.serve), options.items)
        return 0
    rows, kills, faults, most_again, again, where = [], 0, [], 0, 0, Counter()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kills-") as place:
        server = subprocess.Popen(
            [sys.executable, __file__, "--serve", place, "--items", str(options.items)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        profile = S3Profile(
            bucket="bucket",
            endpoint=json.loads(server.stdout.readline())["proxy"],
            region="us-east-1",
            access_key="bench",
            secret_key="bench",
            ca_bundle=f"{place}/certificates/authority.pem",
        )
        kinds = ["sidecar", "npz", "claims"]
        for number, kind in enumerate(kinds):
            campaign = Disks(
                Path(place, kind),
                lambda kind=kind: open_place(f"s3://bucket/{kind}", profile=profile),
                full=DISK_FULL,
                **KINDS[kind],
                open_source=lambda: open_place("s3://bucket/segments", profile=profile),
            )
            campaign.folder.mkdir()
            events = campaign.learn()
            wanted = options.kills * (number + 1) // len(kinds) - options.kills * number // len(kinds)
            campaign.run_all(wanted, events, random.Random(options.seed + number))
            told = campaign.told()
            rows.append(
                [kind, told["kills"], told["runs"], events, told["again"], told["most_again"], len(told["faults"])]
            )
            kills, again, most_again = kills + told["kills"], again + told["again"], max(most_again, told["most_again"])
            faults += told["faults"]
            where.update(told["where"])
            for fault in told["faults"]:
                print("FAULT", fault)
        counts = json.loads(server.communicate("")[0])
    print(Table(["kind", "kills", "runs", "events of a run", "encoded again", "most a kill", "faults"], rows))
    print("kills stood at: " + ", ".join(f"{name} {count}" for name, count in where.most_common()))
    print(
        f"injected: {counts['resets']} resets, {counts['429'] + counts['503']} refusals, "
        f"{counts['truncations']} cut bodies in {counts['requests']} requests; "
        f"{DISK_FULL:.0%} of spool writes failed with ENOSPC; {time.monotonic() - began:.0f} s"
    )
    print(
        f"{kills} kills: {len(faults)} faults (lost, committed twice, other bytes, more than a batch encoded again); "
        f"{again} segments encoded again, at most {most_again} a kill"
    )
    return 1 if faults or kills < options.kills else 0


if __name__ == "__main__":
    sys.exit(main())
