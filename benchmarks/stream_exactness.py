"""Claim: killed hundreds of times, a stream gives every sample once an epoch, in the order of a run left undisturbed.

Each time other workers and ranks continue it. The peers' loaders, audited in the same way, do so or do not.

    python benchmarks/stream_exactness.py --peers PATH-OF-VENV [--kills 500] [--peer-kills 10] [--samples 20000]

A small trainer takes batches of sample numbers, appends them to a log, which stands for the model, and every few
batches writes {stream's state, length of the log} to a file. It is killed (SIGKILL) at random instants, 5 to 80 ms
after its start; the next one cuts the log back to the checkpoint and goes on with 0, 1 or 2 workers and 1, 2 or 4
ranks, drawn anew. Ranks run in one process, in step. One life in fifteen uses worker processes and lasts up to 1.2 s,
as they take longer to start. After the last kill the trainer finishes its epoch, and the log is audited. Peers have one
rank and are killed 50 to 400 ms after they have given a first batch; those with workers once keep 2 of them, once draw
0, 1 or 2 for each life. The environment of the peers: benchmarks/peers/requirements.txt. About three and a half
minutes, most of it the peers' and the time between kills.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import ExitStack, closing
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # a process with threads is not one to fork
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from colabkit.core import files  # noqa: E402
from colabkit.core.table import Table  # noqa: E402
from colabkit.training.stream.batch_plan import BatchPlan, Budget  # noqa: E402
from colabkit.training.stream.stream import Source, Stream  # noqa: E402

PEER = ROOT / "benchmarks" / "peers" / "exactness.py"
PEERS = {
    "datasets": ("datasets", "0"),
    "torchdata": ("torchdata", "2"),
    "lhotse": ("lhotse", "0"),
    "litdata": ("litdata", "2"),
    "torchdata, workers change": ("torchdata", "2,1,0"),
    "litdata, workers change": ("litdata", "2,1,0"),
}
STEP_SECONDS = 5e-4  # what a training step takes here: long enough that workers run ahead


def read(source: str, sample: int) -> int:
    """Return the sample; some take longer, so that workers overtake each other."""
    if sample % 16 == 0:
        time.sleep(3e-4)
    return sample


def make_source(num_samples: int) -> Source:
    seconds = np.random.default_rng(0).gamma(6.0, 2.0, num_samples).clip(1, 35)
    return Source("numbers", "0" * 64, BatchPlan(seconds, Budget(padded_seconds=600), seed=0))


def train(source: Source, folder: Path, life: random.Random, kind: str, stop: int | None) -> None:
    """Continue from the checkpoint until killed, or to batch `stop`."""
    world, workers = life.choice([1, 2, 4]), 1 + life.randrange(2) if kind == "processes" else life.randrange(3)
    if kind == "processes":
        world = min(world, 2)  # each rank has its own worker processes
    streams, num_ids = [Stream([source], seed=0) for _ in range(world)], 0
    if (folder / "checkpoint.json").exists():
        saved = files.read_json(folder / "checkpoint.json")
        num_ids = saved["num_ids"]
        for stream in streams:
            stream.load_state(saved["stream"])
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT)
    os.ftruncate(log, 8 * num_ids)
    os.lseek(log, 0, os.SEEK_END)
    with ExitStack() as stack:
        settings = {"world": world, "workers": workers, "kind": kind, "stop": stop, "ahead": life.choice([None, 1, 8])}
        loads = [
            stack.enter_context(closing(stream.load(read, rank=rank, **settings)))
            for rank, stream in enumerate(streams)
        ]
        for parts in zip(*loads, strict=True):
            ids = np.empty(len(parts[0].item.samples), "<i8")
            for rank, part in enumerate(parts):
                ids[rank::world] = part.values
            os.write(log, ids.tobytes())
            num_ids += len(ids)
            time.sleep(STEP_SECONDS)
            for stream, part in zip(streams, parts, strict=True):
                stream.acknowledge(part)
            if life.random() < 0.4:
                # Not durable: a kill, unlike a power cut, loses nothing that was written.
                files.write_json(
                    folder / "checkpoint.json", {"num_ids": num_ids, "stream": streams[0].state()}, durable=False
                )
    files.write_json(folder / "checkpoint.json", {"num_ids": num_ids, "stream": streams[0].state()}, durable=False)


def live(source: Source, folder: Path, life: random.Random, kind: str, stop: int | None = None) -> int:
    """Fork a trainer, kill it at a random instant unless it has a stop; return its exit code."""
    seconds = life.uniform(0.3, 1.2) if kind == "processes" else life.uniform(0.005, 0.08)
    child = os.fork()
    if child == 0:
        # Worker processes whose trainer is killed while they start complain; what counts is what a trainer itself says.
        os.dup2(os.open(folder / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        try:
            train(source, folder, life, kind, stop)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    if stop is None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def ours(num_samples: int, kills: int, seed: int, folder: Path) -> dict:
    """Return the audit of a stream killed so often."""
    source, life = make_source(num_samples), random.Random(seed)
    length, num_checkpoints, processes = len(source.order), set(), 0
    for _ in range(kills):
        kind = "processes" if life.random() < 1 / 15 else "threads"
        processes += kind == "processes"
        code = live(source, folder, random.Random(life.random()), kind)
        if code != -signal.SIGKILL:
            raise SystemExit(f"a trainer ended by itself with code {code}:\n{(folder / 'said').read_text()}")
        if (folder / "checkpoint.json").exists():
            num_checkpoints.add(files.read_json(folder / "checkpoint.json")["num_ids"])
    state = files.read_json(folder / "checkpoint.json")["stream"]
    code = live(source, folder, random.Random(0), "threads", stop=(state["epoch"] + 1) * length)
    if code:
        raise SystemExit(f"the last trainer failed with code {code}:\n{(folder / 'said').read_text()}")
    consumed = np.fromfile(folder / "log", "<i8")
    epochs = np.split(consumed, range(num_samples, len(consumed), num_samples))
    undisturbed = Stream([source], seed=0, epochs=len(epochs))
    expected = np.concatenate([undisturbed.item(number).samples for number in range(undisturbed.num_items)])
    return {
        "kills": kills,
        "duplicates": sum(len(e) - len(np.unique(e)) for e in epochs),
        "skips": sum(num_samples - len(np.unique(e)) for e in epochs),
        "epochs": len(epochs),
        "processes": processes,
        "same order": bool(np.array_equal(consumed, expected)),
        "distinct checkpoints": len(num_checkpoints),
        "state bytes": len(json.dumps(state)),
    }


def peer_audit(options: argparse.Namespace, name: str, folder: Path) -> dict | str:
    peer, workers = PEERS[name]
    numbers = map(str, (options.samples, options.peer_kills, options.seed))
    done = subprocess.run(
        [f"{options.peers}/bin/python", str(PEER), peer, str(folder), *numbers, workers], capture_output=True, text=True
    )
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else done.stderr[-700:]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default="/tmp/peers", help='virtual environment with the peers; "" for none')
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--peer-kills", type=int, default=10)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="exactness-") as place:
        for name in PEERS if options.peers and options.peer_kills else ():
            began, folder = time.monotonic(), Path(place, name)
            folder.mkdir()
            found = peer_audit(options, name, folder)
            if isinstance(found, str):
                rows.append([name, "", "refuses", "refuses", "", ""])
                print(f"{name}:\n{found}\n")
                continue
            rows.append(
                [
                    f"{name} ({found['version']})",
                    found["kills"],
                    found["duplicates"],
                    found["skips"],
                    found["samples"],
                    f"{time.monotonic() - began:.0f} s",
                ]
            )
        began = time.monotonic()
        found = ours(options.samples, options.kills, options.seed, Path(place))
        rows.append(
            [
                "colabkit",
                found["kills"],
                found["duplicates"],
                found["skips"],
                found["epochs"] * options.samples,
                f"{time.monotonic() - began:.0f} s",
            ]
        )
    print(Table(["loader", "kills", "given twice", "never given", "samples due", "time"], rows))
    print(
        f"colabkit: {found['epochs']} epochs, {found['processes']} lives with worker processes, "
        f"{found['distinct checkpoints']} checkpoints continued from, state of {found['state bytes']} bytes, order "
        f"{'the same as' if found['same order'] else 'OTHER THAN'} undisturbed"
    )
    print(f"{found['duplicates']} duplicates, {found['skips']} skips in {found['kills']} kills")
    return 0 if found["same order"] and not found["duplicates"] + found["skips"] else 1


if __name__ == "__main__":
    sys.exit(main())
