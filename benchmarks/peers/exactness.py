"""A trainer that reads through one peer's loader, killed, continued from the loader's state, its samples audited.

Run by stream_exactness.py with the peers' Python: exactness.py PEER FOLDER NUM_SAMPLES KILLS SEED WORKERS; prints JSON.
WORKERS is what each life draws from, such as 2 or 0,1,2. The trainer takes one epoch; it saves the loader's state and
the length of its log after every fourth batch, and cuts the log back to that length when it continues.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np

BATCH = 32
STEP_SECONDS = 4e-3
PATIENCE_SECONDS = 60.0

# sample numbers, and what returns the loader's state after them
Batches = Iterator[tuple[list[int], Callable[[], object]]]


def from_datasets(folder: Path, state: dict | None, workers: int) -> Batches:
    rows, ids = parquet_rows(folder), []
    if state:
        rows.load_state_dict(state)
    for row in rows:
        ids.append(row["id"])
        if len(ids) == BATCH:
            yield ids, rows.state_dict
            ids = []
    yield ids, rows.state_dict


def from_torchdata(folder: Path, state: dict | None, workers: int) -> Batches:
    from torchdata.stateful_dataloader import StatefulDataLoader

    loader = StatefulDataLoader(parquet_rows(folder), batch_size=BATCH, num_workers=workers, collate_fn=ids_of)
    if state:
        loader.load_state_dict(state)
    for ids in loader:
        yield ids, loader.state_dict


def ids_of(rows: list[dict]) -> list[int]:
    return [row["id"] for row in rows]


def parquet_rows(folder: Path):
    from datasets import load_dataset

    files = sorted(str(path) for path in folder.glob("*.parquet"))
    return load_dataset("parquet", data_files=files, split="train", streaming=True).shuffle(seed=0, buffer_size=1000)


def write_parquet(folder: Path, num_samples: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for shard, part in enumerate(np.array_split(np.arange(num_samples), 20)):
        pq.write_table(pa.table({"id": part}), folder / f"{shard:03d}.parquet", row_group_size=100)


def from_lhotse(folder: Path, state: dict | None, workers: int) -> Batches:
    from lhotse import CutSet
    from lhotse.dataset import DynamicBucketingSampler

    sampler = DynamicBucketingSampler(
        CutSet.from_jsonl_lazy(folder / "cuts.jsonl"),
        max_duration=12.0 * BATCH,
        num_buckets=10,
        buffer_size=2000,
        shuffle=True,
        seed=0,
    )
    if state:
        sampler.load_state_dict(state)
    for cuts in sampler:
        yield [int(cut.id) for cut in cuts], sampler.state_dict


def write_cuts(folder: Path, num_samples: int) -> None:
    from lhotse import CutSet
    from lhotse.testing.dummies import dummy_cut

    seconds = np.random.default_rng(0).gamma(6.0, 2.0, num_samples).clip(1, 35).round(3)
    with CutSet.open_writer(folder / "cuts.jsonl") as writer:
        for number in range(num_samples):
            cut = dummy_cut(number, duration=float(seconds[number]))
            cut.id = str(number)
            writer.write(cut)


def from_litdata(folder: Path, state: dict | None, workers: int) -> Batches:
    from litdata import StreamingDataLoader, StreamingDataset

    loader = StreamingDataLoader(
        StreamingDataset(str(folder / "chunks"), shuffle=True, seed=0), batch_size=BATCH, num_workers=workers
    )
    if state:
        loader.load_state_dict(state)
    for ids in loader:
        yield np.asarray(ids).tolist(), loader.state_dict


def write_chunks(folder: Path, num_samples: int) -> None:
    from litdata import optimize

    optimize(fn=int, inputs=list(range(num_samples)), output_dir=str(folder / "chunks"), chunk_size=500, num_workers=1)


PEERS = {
    "datasets": (write_parquet, from_datasets),
    "torchdata": (write_parquet, from_torchdata),
    "lhotse": (write_cuts, from_lhotse),
    "litdata": (write_chunks, from_litdata),
}


def train(peer: str, folder: Path, workers: int) -> None:
    """Continue from the saved state to the end of the epoch."""
    state, num_ids = None, 0
    if (folder / "state").exists():
        state, num_ids = pickle.loads((folder / "state").read_bytes())
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT)
    os.ftruncate(log, 8 * num_ids)
    os.lseek(log, 0, os.SEEK_END)
    for number, (ids, state_of) in enumerate(PEERS[peer][1](folder, state, workers)):
        os.write(log, np.array(ids, "<i8").tobytes())
        num_ids += len(ids)
        time.sleep(STEP_SECONDS)
        if number % 4 == 3:
            (folder / "state.new").write_bytes(pickle.dumps((state_of(), num_ids)))
            os.replace(folder / "state.new", folder / "state")


def in_child(work, *arguments) -> int:
    """Fork a process that does the work; its number. The parent itself stays without threads and open files."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        try:
            work(*arguments)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child


def killed(peer: str, folder: Path, workers: int, seconds: float) -> int:
    """Let a trainer live so long after its first batch; return how it ended."""
    log = folder / "log"
    before = log.stat().st_mtime_ns if log.exists() else 0
    child, began, ended = in_child(train, peer, folder, workers), time.monotonic(), 0
    while not ended and time.monotonic() - began < PATIENCE_SECONDS:
        time.sleep(0.005)
        ended, status = os.waitpid(child, os.WNOHANG)
        cut_back = 8 * pickle.loads((folder / "state").read_bytes())[1] if (folder / "state").exists() else 0
        if not ended and log.exists() and log.stat().st_mtime_ns > before and log.stat().st_size > cut_back:
            time.sleep(seconds)
            break
    if not ended:
        os.killpg(child, signal.SIGKILL)  # its workers too: some would go on, and hold the terminal
        _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def main() -> None:
    peer, folder, num_samples, kills, seed = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:6])
    life, workers = random.Random(seed), [int(number) for number in sys.argv[6].split(",")]
    _, status = os.waitpid(in_child(PEERS[peer][0], folder, num_samples), 0)
    if status:
        raise SystemExit("could not write the data")
    num_kills, code = 0, -signal.SIGKILL
    while num_kills < kills and code == -signal.SIGKILL:
        code = killed(peer, folder, life.choice(workers), life.uniform(0.05, 0.4))
        num_kills += code == -signal.SIGKILL
    if code == -signal.SIGKILL:
        code = os.waitstatus_to_exitcode(os.waitpid(in_child(train, peer, folder, workers[0]), 0)[1])
    if code:
        raise SystemExit(f"the trainer failed with code {code}")
    ids = np.fromfile(folder / "log", "<i8")
    print(
        json.dumps(
            {
                "version": version(peer),
                "kills": num_kills,
                "duplicates": len(ids) - len(np.unique(ids)),
                "skips": num_samples - len(np.unique(ids)),
                "samples": num_samples,
            }
        )
    )


if __name__ == "__main__":
    main()
