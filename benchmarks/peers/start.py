"""Bring one peer's loader from a saved state to its next batch of sample numbers, and say how long that took.

Run by stream_start.py with the peers' Python: start.py PEER FOLDER NUM_SAMPLES FRACTION LIMIT_SECONDS; prints JSON. FRACTION
"prepare" writes the data and the states. Imports are not timed.
"""

from __future__ import annotations

import json
import pickle
import signal
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

PADDED_SECONDS = 600.0
BATCH = 50
SHARDS = 100


class OutOfTime(Exception):
    """The limit is over."""


def make_rows(folder: Path):
    from datasets import load_dataset
    files = sorted(str(path) for path in folder.glob("*.parquet"))
    return load_dataset("parquet", data_files=files, split="train", streaming=True).shuffle(seed=0, buffer_size=1000)


def prepare_datasets(folder: Path, num_samples: int, fractions: list[str]) -> None:
    """Write tiny rows, and go once through them for the states; rows with audio in them would take longer to skip."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    for shard, part in enumerate(np.array_split(np.arange(num_samples), SHARDS)):
        pq.write_table(pa.table({"id": part}), folder / f"{shard:03d}.parquet", row_group_size=100)
    rows, wanted = make_rows(folder), {int(float(fraction) * num_samples): fraction for fraction in fractions}
    for number, _ in enumerate(rows, start=1):
        if number in wanted:
            (folder / f"datasets-{wanted[number]}").write_bytes(pickle.dumps(rows.state_dict()))
            if number == max(wanted):
                break


def start_datasets(folder: Path, fraction: str, done: dict) -> None:
    rows = make_rows(folder)
    rows.load_state_dict(pickle.loads((folder / f"datasets-{fraction}").read_bytes()))
    ids = []
    for row in rows:
        ids.append(row["id"])
        if len(ids) == BATCH:
            done["at"] = time.perf_counter()  # leaving the iterator takes seconds, which do not count
            return


def make_sampler(folder: Path):
    from lhotse import CutSet
    from lhotse.dataset import DynamicBucketingSampler
    return DynamicBucketingSampler(CutSet.from_jsonl_lazy(folder / "cuts.jsonl"), max_duration=PADDED_SECONDS, num_buckets=30,
                                   shuffle=True, seed=0)


def prepare_lhotse(folder: Path, num_samples: int, fractions: list[str]) -> None:
    """Write cuts, and states as an epoch so far would leave them; the sampler replays the number of batches in them."""
    from lhotse.testing.dummies import dummy_cut
    line = json.dumps(dummy_cut(0, duration=1.0, recording=None, supervisions=[]).to_dict())
    assert '"duration": 1.0' in line and '"dummy-mono-cut-0000"' in line
    with open(folder / "cuts.jsonl", "w") as written:
        for number, seconds in enumerate(np.load(folder / "seconds.npy")):
            own = line.replace('"duration": 1.0', f'"duration": {seconds:.4f}')
            written.write(own.replace('"dummy-mono-cut-0000"', f'"{number}"') + "\n")
    sampler = make_sampler(folder)
    iter(sampler)
    sizes = [len(next(sampler)) for _ in range(200)]
    for fraction in fractions:
        state = sampler.state_dict()
        state["diagnostics"]["stats_per_epoch"][0]["kept_batches"] = int(float(fraction) * num_samples / np.mean(sizes))
        (folder / f"lhotse-{fraction}").write_bytes(pickle.dumps(state))


def start_lhotse(folder: Path, fraction: str, done: dict) -> None:
    state = pickle.loads((folder / f"lhotse-{fraction}").read_bytes())
    wanted = state["diagnostics"]["stats_per_epoch"][0]["kept_batches"]
    sampler = make_sampler(folder)
    try:
        sampler.load_state_dict(state)
        [int(cut.id) for cut in next(iter(sampler))]
        done["at"] = time.perf_counter()
    finally:
        done["share"] = min(1.0, sampler.diagnostics.current_epoch_stats.total_batches / wanted)


PEERS = {"datasets": (prepare_datasets, start_datasets), "lhotse": (prepare_lhotse, start_lhotse)}


def main() -> None:
    peer, folder, num_samples, fraction, limit_seconds = sys.argv[1:6]
    folder, num_samples = Path(folder), int(num_samples)
    prepare, start = PEERS[peer]
    if fraction == "prepare":
        prepare(folder, num_samples, limit_seconds.split(","))
        return
    import datasets  # noqa: F401
    import lhotse.dataset  # noqa: F401

    def ring(*_):
        raise OutOfTime
    signal.signal(signal.SIGALRM, ring)
    signal.alarm(int(limit_seconds))
    done, began = {"share": 1.0}, time.perf_counter()
    try:
        start(folder, fraction, done)
    except OutOfTime:
        pass
    seconds = done.get("at", time.perf_counter()) - began
    print(json.dumps({"seconds": seconds / done["share"], "share": done["share"], "version": version(peer)}))


if __name__ == "__main__":
    main()
