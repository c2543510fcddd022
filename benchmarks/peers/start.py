"""Bring one peer's loader from a saved state to its next batch of sample numbers, and say how long that took.

Run by stream_start.py with the peers' Python: start.py PEER FOLDER NUM_SAMPLES FRACTION LIMIT_SECONDS; prints JSON.
FRACTION "prepare" writes the data and the states. Imports are not timed.
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
ROW_BYTES = 50_000  # some ten seconds of FLAC at 16 kHz take twice as much


class OutOfTime(Exception):
    """The limit is over."""


def make_rows(folder: Path):
    from datasets import load_dataset

    files = sorted(str(path) for path in folder.glob("*.parquet"))
    return load_dataset("parquet", data_files=files, split="train", streaming=True).shuffle(seed=0, buffer_size=1000)


def prepare_datasets(folder: Path, num_samples: int, fractions: list[str]) -> None:
    """Write tiny rows, and go once through them for the states."""
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


def prepare_wide(folder: Path, num_samples: int, fractions: list[str]) -> None:
    """Write one shard with as many rows, which hold bytes, under all the names; the states of the tiny rows fit it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder / "wide").mkdir()
    num_rows, rng = num_samples // SHARDS, np.random.default_rng(0)
    with pq.ParquetWriter(
        folder / "wide" / "000.parquet",
        pa.schema({"id": pa.int64(), "audio": pa.binary()}),
        compression="none",
        use_dictionary=False,
    ) as writer:
        for first in range(0, num_rows, 100):
            ids = list(range(first, min(first + 100, num_rows)))
            writer.write_table(pa.table({"id": ids, "audio": [rng.bytes(ROW_BYTES) for _ in ids]}), row_group_size=100)
    for shard in range(1, SHARDS):
        (folder / "wide" / f"{shard:03d}.parquet").hardlink_to(folder / "wide" / "000.parquet")


def start_wide(folder: Path, fraction: str, done: dict) -> None:
    start_datasets(folder, fraction, done, folder / "wide")


def start_datasets(folder: Path, fraction: str, done: dict, data: Path | None = None) -> None:
    rows = make_rows(data or folder)
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

    return DynamicBucketingSampler(
        CutSet.from_jsonl_lazy(folder / "cuts.jsonl"), max_duration=PADDED_SECONDS, num_buckets=30, shuffle=True, seed=0
    )


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


PEERS = {
    "datasets": (prepare_datasets, start_datasets),
    "datasets-wide": (prepare_wide, start_wide),
    "lhotse": (prepare_lhotse, start_lhotse),
}


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
    print(
        json.dumps(
            {"seconds": seconds / done["share"], "share": done["share"], "version": version(peer.partition("-")[0])}
        )
    )


if __name__ == "__main__":
    main()
