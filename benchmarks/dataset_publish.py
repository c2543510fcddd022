"""Claim: publishing reads the source once (datasets' push_to_hub with max_shard_size: twice).

It makes no finished shard again after a kill, needs at most 10 commits for 442 shards, and waits out a Hub that answers
429.

    python benchmarks/dataset_publish.py [--segments 2652] [--shards 442]

The same loose npz segments go to a new loopback Hub each time, by colabkit and by datasets'
IterableDataset.push_to_hub, in turn: once in peace, once killed with SIGKILL when half of the shards are uploaded and
run again. The Hub refuses with 429 whoever asks its API more often than 3 times a second; the peer gives up at the
first 429 and is measured without. What is counted is bytes read of the segments, and shards made. The ratio comes last.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from colabkit.core.table import Table  # noqa: E402
from colabkit.io.places import Folder  # noqa: E402
from colabkit.pipelines.dataset.publish.layout import PublishSettings, make_plan  # noqa: E402
from colabkit.pipelines.dataset.publish.table import open_rows  # noqa: E402
from tests.pipelines.dataset.publish.sets import make_store  # noqa: E402
from tests.servers.busy_hub import BusyHub, Quota  # noqa: E402

PEER = ROOT / "benchmarks" / "peers" / "push_to_hub.py"
TOKEN = "hf_" + "b" * 34


def publish(store: str, scratch: str, log: str, repo: str, shard_bytes: str) -> None:
    """Publish in this process, which may be killed; write down what is read and which shards are made."""
    from colabkit.pipelines.dataset.publish import hub_dataset

    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    make_shard = hub_dataset.make_shard

    def noted(path, shard, *args, **kwargs):
        os.write(handle, f"shard {shard.id}\n".encode())
        return make_shard(path, shard, *args, **kwargs)

    class Counted(Folder):
        def get(self, name, start=0, stop=None, *, version=""):
            content = super().get(name, start, stop, version=version)
            os.write(handle, f"{len(content)}\n".encode())
            return content

    add = hub_dataset.Records.add

    def noted_add(self, record):
        add(self, record)
        os.write(handle, f"sent {record.id}\n".encode())

    hub_dataset.make_shard, hub_dataset.Records.add = noted, noted_add
    hub_dataset.publish_dataset(
        Counted(Path(store) / "segments"),
        Folder(store),
        repo,
        scratch=scratch,
        settings=PublishSettings(shard_bytes=int(shard_bytes), split_by="none"),
    )


def find_shard_bytes(store: Path, place: Path, wanted: int) -> int:
    """Return the size that cuts the set into `wanted` shards, or nearly."""
    rows = open_rows(None, Folder(store), place)
    low, high = 1, 1 << 32
    while low < high:
        middle = (low + high) // 2
        if len(make_plan(rows, PublishSettings(shard_bytes=middle, split_by="none")).shards) > wanted:
            low = middle + 1
        else:
            high = middle
    return low


def run(command: list[str], hub: BusyHub, kill_after: int) -> tuple[float, int]:
    """Run a publisher, killed once after `kill_after` uploaded shards and started again; return seconds and kills."""
    environment = {**os.environ, **hub.environment(), "HF_TOKEN": TOKEN, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    began, kills, first = time.monotonic(), 0, len(hub.requests)
    while True:
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        while process.poll() is None and not kills and kill_after:
            time.sleep(0.05)
            if sum(method == "PUT" for method, *_ in hub.requests[first:]) >= kill_after:
                os.kill(process.pid, signal.SIGKILL)
                kills += 1
        told = process.communicate()[1]
        if process.returncode == 0:
            return time.monotonic() - began, kills
        if process.returncode != -signal.SIGKILL:
            raise SystemExit(f"{command}: {told[-2000:]}")


def measure(kind: str, place: Path, store: Path, shards: int, shard_bytes: int, kill_after: int) -> dict:
    """Publish the set to a Hub of its own and return what it took."""
    with BusyHub(folder=place / f"hub-{kind}-{kill_after}") as hub:
        hub.writers = {TOKEN: ("me",)}
        return _measure(kind, place, store, hub, shards, shard_bytes, kill_after)


def _measure(kind: str, place: Path, store: Path, hub: BusyHub, shards: int, shard_bytes: int, kill_after: int) -> dict:
    name = f"{kind}-{'killed' if kill_after else 'peace'}"
    log, repo = place / f"{name}.log", f"me/{name}"
    own = [str(Path(__file__)), "--publish", str(store), str(place / name), str(log), repo, str(shard_bytes)]
    peers = [str(PEER), str(store), str(log), repo, str(shards), str(shard_bytes)]
    command = [sys.executable, *(own if kind == "colabkit" else peers)]
    hub.api_quota = Quota(3, 1.0) if kind == "colabkit" else None
    seconds, kills = run(command, hub, kill_after)
    lines = log.read_text().splitlines()
    sent: set[str] = set()
    again = in_hand = 0
    for line in lines:
        kind_of, _, shard = line.rpartition(" ")
        again += kind_of == "shard" and shard in sent
        in_hand += kind_of == "shard"
        sent |= {shard} if kind_of == "sent" else set()
    num_uploads = sum(m == "PUT" for m, *_ in hub.requests)
    files = hub.repos[repo].find("main").files
    source = sum(p.stat().st_size for p in (store / "segments").rglob("*.npz"))
    read = sum(int(line) for line in lines if line[0].isdigit())
    return {
        "publisher": kind,
        "killed": kills,
        "seconds": seconds,
        "read": read / source,
        "shards": sum(n.endswith(".parquet") for n in files),
        "again": again if kind == "colabkit" else "all",
        "in_hand": in_hand - len(sent) if kind == "colabkit" else "",
        "uploads": num_uploads,
        "commits": len(hub.repos[repo].commits) - 1,
        "429": hub.api_quota.refused if hub.api_quota else 0,
    }


def stands_429(place: Path, store: Path, hub: BusyHub) -> str:
    """Return how the peer ends at a Hub that refuses what comes too often."""
    hub.api_quota = Quota(3, 1.0)
    command = [sys.executable, str(PEER), str(store), str(place / "429.log"), "me/peer-429", "4", "1000000000"]
    done = subprocess.run(
        command, env={**os.environ, **hub.environment(), "HF_TOKEN": TOKEN}, capture_output=True, text=True
    )
    return "finishes" if not done.returncode else "ends with " + done.stderr.strip().splitlines()[-1][:100]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segments", type=int, default=2652, help="loose npz files (default: 2652)")
    parser.add_argument("--shards", type=int, default=442, help="shards they are cut into (default: 442)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dataset-publish-") as folder:
        place = Path(folder)
        store = make_store(place / "store", options.segments)
        shard_bytes = find_shard_bytes(store, place, options.shards)
        found = []
        for killed in (False, True):
            for number, kind in enumerate(("colabkit", "datasets")):
                kill_after = found[number]["shards"] // 2 if killed else 0
                found.append(measure(kind, place, store, options.shards, shard_bytes, kill_after))
                print(json.dumps(found[-1]), flush=True)
        with BusyHub() as hub:
            hub.writers = {TOKEN: ("me",)}
            stands = stands_429(place, store, hub)
    print(
        Table(
            [
                "publisher",
                "kills",
                "source read",
                "shards",
                "finished ones made again",
                "in hand",
                "uploads",
                "commits",
                "429s",
                "seconds",
            ],
            [
                [
                    f["publisher"],
                    f["killed"],
                    f"{f['read']:.3f}x",
                    f["shards"],
                    f["again"] if f["killed"] else 0,
                    f["in_hand"],
                    f["uploads"],
                    f["commits"],
                    f["429"],
                    f"{f['seconds']:.1f}",
                ]
                for f in found
            ],
        )
    )
    ours, peer, ours_killed, peer_killed = found
    print(f"with {ours['429'] + ours_killed['429']} answers of 429 colabkit finishes; datasets {stands}")
    print(f"killed at half, {ours_killed['again']} finished shards are made again by colabkit, all by datasets")
    print(
        f"source read: {ours['read']:.2f}x against {peer['read']:.2f}x, killed once {ours_killed['read']:.2f}x against "
        f"{peer_killed['read']:.2f}x; {ours['shards']} shards in {ours['commits']} commits; ratio "
        f"{peer['read'] / ours['read']:.2f}, killed {peer_killed['read'] / ours_killed['read']:.2f}"
    )
    good = ours["read"] <= 1.0 and ours_killed["again"] == 0 and max(ours["commits"], ours_killed["commits"]) <= 10
    return 0 if good else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--publish"]:
        publish(*sys.argv[2:])
    else:
        sys.exit(main())
