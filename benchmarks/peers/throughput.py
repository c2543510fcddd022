"""One peer's loader over the same audio: prints samples a second as JSON.

Run by stream_throughput.py with the peers' Python.
"""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path

import soundfile

BATCH = 16


def decode(content: bytes):
    return soundfile.read(io.BytesIO(content), dtype="float32")[0]


def decode_row(row):
    return decode(row["audio"]["bytes"])


def as_list(samples):
    return samples


def from_datasets(folder: Path, workers: int):
    from datasets import Audio, load_dataset
    from torchdata.stateful_dataloader import StatefulDataLoader

    rows = load_dataset("parquet", data_files=str(folder / "parquet" / "*.parquet"), split="train", streaming=True)
    rows = rows.cast_column("audio", Audio(decode=False)).shuffle(seed=0, buffer_size=256).map(Decoded())
    return StatefulDataLoader(rows, batch_size=BATCH, num_workers=workers, collate_fn=as_list, persistent_workers=True)


class Decoded:
    def __call__(self, row):
        return {"wave": decode_row(row), "audio": None}


def from_litdata(folder: Path, workers: int):
    from litdata import StreamingDataLoader, StreamingDataset

    class Waves(StreamingDataset):
        def __getitem__(self, index):
            return decode(super().__getitem__(index)["audio"])

    return StreamingDataLoader(
        Waves(str(folder / "litdata"), shuffle=True, seed=0),
        batch_size=BATCH,
        num_workers=workers,
        collate_fn=as_list,
        persistent_workers=True,
    )


def prepare_litdata(folder: Path) -> None:
    import pyarrow.parquet
    from litdata import optimize

    rows = [
        row["bytes"]
        for path in sorted((folder / "parquet").glob("*.parquet"))
        for row in pyarrow.parquet.read_table(path).column("audio").to_pylist()
    ]
    (folder / "blobs").mkdir(exist_ok=True)
    names = []
    for number, content in enumerate(rows):
        names.append(str(folder / "blobs" / f"{number:06d}"))
        Path(names[-1]).write_bytes(content)
    optimize(fn=blob, inputs=names, output_dir=str(folder / "litdata"), chunk_bytes="64MB", num_workers=1)


def blob(name: str):
    return {"audio": Path(name).read_bytes()}


def from_lhotse(folder: Path, workers: int):
    import torch
    from lhotse import CutSet
    from lhotse.dataset import DynamicBucketingSampler, IterableDatasetWrapper

    cuts = CutSet.from_shar(in_dir=str(folder / "shar"))
    sampler = DynamicBucketingSampler(cuts, max_duration=BATCH * 12.5, num_buckets=10, shuffle=True, buffer_size=512)
    return torch.utils.data.DataLoader(
        IterableDatasetWrapper(Waves(), sampler), batch_size=None, num_workers=workers, persistent_workers=True
    )


class Waves:
    def __getitem__(self, cuts):
        return [cut.load_audio()[0] for cut in cuts]


def prepare_lhotse(folder: Path) -> None:
    import pyarrow.parquet
    from lhotse import Recording
    from lhotse.shar import SharWriter

    kind = json.loads((folder / "kind.json").read_text())
    (folder / "shar").mkdir(exist_ok=True)
    with SharWriter(str(folder / "shar"), fields={"recording": "original"}, shard_size=400) as writer:
        number = 0
        for path in sorted((folder / "parquet").glob("*.parquet")):
            for row in pyarrow.parquet.read_table(path).column("audio").to_pylist():
                recording = Recording.from_bytes(row["bytes"], f"{number:06d}.{kind}")
                writer.write(recording.to_cut())
                number += 1


LOADERS = {"datasets": from_datasets, "litdata": from_litdata, "lhotse": from_lhotse}


def main() -> None:
    name, folder, workers, seconds = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    if name.startswith("prepare-"):
        {"prepare-litdata": prepare_litdata, "prepare-lhotse": prepare_lhotse}[name](folder)
        return
    began = time.perf_counter()
    count, first = 0, None
    loader = LOADERS[name](folder, workers)
    while True:  # epoch after epoch with the same worker processes, from the first batch on
        for batch in loader:
            now = time.perf_counter()
            if first is None:
                first, begin = now - began, now
                continue
            count += len(batch)
            if now - begin > seconds:
                print(json.dumps({"samples_per_second": count / (now - begin), "first_batch_seconds": first}))
                return


if __name__ == "__main__":
    main()
