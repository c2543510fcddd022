"""Claim: a Parquet shard with a row group of 4.9 GiB, as AMI's on the Hub, is indexed and streamed in 400 MB of memory.

    python benchmarks/stream_rowgroups.py [--gib 4.9] [--compression snappy] [--folder /tmp]

Writes one row group of 100 whole meetings (16 bit wav), then in processes of their own: builds the index and reads
meetings in a shuffled order; and the same file row by row with pyarrow, as it reads by itself (as `datasets` has it do)
and with a buffer of 1 MiB, which keeps it from holding whole column chunks. Peak memory is the process's largest
resident set.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from colabkit.core.permutation import permute  # noqa: E402
from colabkit.core.table import Table  # noqa: E402
from colabkit.core.teller import Teller  # noqa: E402

NUM_ROWS, RATE_HZ, LIMIT_MB = 100, 16_000, 400
BUFFER_BYTES = 1 << 20
READERS = {"colabkit": "ours", "pyarrow, buffer_size=1<<20": "buffered", "pyarrow as it is": "row_by_row"}


def write(path: Path, gib: float, compression: str) -> None:
    """Write the file: long recordings of noise that swells and fades, half of it silence, to compress a little."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    num_samples = int(gib * 2**30 / NUM_ROWS / 2)
    header = (
        b"RIFF"
        + (36 + 2 * num_samples).to_bytes(4, "little")
        + b"WAVEfmt "
        + (16).to_bytes(4, "little")
        + (1).to_bytes(2, "little") * 2
        + RATE_HZ.to_bytes(4, "little")
        + (2 * RATE_HZ).to_bytes(4, "little")
        + (2).to_bytes(2, "little")
        + (16).to_bytes(2, "little")
        + b"data"
        + (2 * num_samples).to_bytes(4, "little")
    )
    rng, values = np.random.default_rng(0), []
    for _ in range(NUM_ROWS):
        wave = rng.integers(-2000, 2000, num_samples, np.int16)
        wave.reshape(-1)[: num_samples // 16_000 * 16_000].reshape(-1, 16_000)[::2] = 0
        values.append(header + wave.tobytes())
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema(
        [
            ("audio", kind),
            ("timestamps_start", pa.list_(pa.float64())),
            ("timestamps_end", pa.list_(pa.float64())),
            ("speakers", pa.list_(pa.string())),
        ]
    )
    chunks = [pa.array([{"bytes": v, "path": "x.wav"}], kind) for v in values]
    labels = [pa.array([[[0.0, 2.0]] * NUM_ROWS, [[1.0, 3.0]] * NUM_ROWS][i]) for i in (0, 1)]
    table = pa.Table.from_arrays([pa.chunked_array(chunks), *labels, pa.array([["a", "b"]] * NUM_ROWS)], schema=schema)
    pq.write_table(table, path, row_group_size=NUM_ROWS, compression=compression)


def ours(folder: Path) -> dict:
    from colabkit.io.samples import Samples
    from colabkit.io.samples.build import build_index
    from colabkit.io.samples.source import find_source

    began = time.perf_counter()
    index = build_index(find_source(str(folder)), folder / "parts", teller=Teller(), workers=1)
    indexed = time.perf_counter() - began
    samples, count = Samples(index), 0
    began = time.perf_counter()
    for number in permute(np.arange(len(index)), len(index), 0)[:20].tolist():
        count += len(samples.read_bytes(number))
    return {
        "index_seconds": indexed,
        "rows": len(index),
        "read_mb_per_second": count / 1e6 / (time.perf_counter() - began),
    }


def buffered(folder: Path) -> dict:
    return row_by_row(folder, buffer_size=BUFFER_BYTES)


def row_by_row(folder: Path, buffer_size: int = 0) -> dict:
    import pyarrow.parquet as pq

    began, count, rows = time.perf_counter(), 0, 0
    with pq.ParquetFile(next(folder.glob("*.parquet")), pre_buffer=False, buffer_size=buffer_size) as file:
        for batch in file.iter_batches(batch_size=1, columns=["audio"]):
            count += len(batch.column(0).field("bytes")[0].as_buffer())
            rows += 1
    return {"rows": rows, "read_mb_per_second": count / 1e6 / (time.perf_counter() - began)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, default=4.9)
    parser.add_argument("--compression", default="snappy", help="snappy as Hugging Face's writers used, or none")
    parser.add_argument("--folder", default=None, help="where the file is written and removed again")
    parser.add_argument("--inner", choices=READERS.values(), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inner:
        import resource

        figures = globals()[options.inner](Path(options.folder))
        print(json.dumps(figures | {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6}))
        return 0
    rows = []
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        began = time.perf_counter()
        child = os.fork()  # the writer holds the whole table: its memory must not count, nor stay
        if child == 0:
            write(Path(place) / "0000.parquet", options.gib, options.compression)
            os._exit(0)
        os.waitpid(child, 0)
        size = (Path(place) / "0000.parquet").stat().st_size
        print(
            f"one row group of {options.gib} GiB in {NUM_ROWS} rows, {options.compression}: "
            f"{size / 1e9:.2f} GB on disk, written in {time.perf_counter() - began:.0f} s"
        )
        for name, inner in READERS.items():
            done = subprocess.run(
                [sys.executable, __file__, "--inner", inner, "--folder", place], capture_output=True, text=True
            )
            if done.returncode:
                rows.append([name, "failed", done.stderr.strip().splitlines()[-1][:100], "", ""])
                continue
            figures = json.loads(done.stdout.splitlines()[-1])
            rows.append(
                [
                    name,
                    f"{figures['peak_mb']:.0f}",
                    figures["rows"],
                    f"{figures.get('index_seconds', 0):.0f}",
                    f"{figures['read_mb_per_second']:.0f}",
                ]
            )
    print(Table(["reader", "peak MB", "rows", "index s", "MB/s"], rows))
    peaks = [float(row[1]) for row in rows if row[1] != "failed"]
    if len(peaks) == len(READERS):
        print(
            f"ratio of peak memory to colabkit's: pyarrow with a small buffer {peaks[1] / peaks[0]:.2f}x, as it is "
            f"{peaks[2] / peaks[0]:.1f}x; colabkit {peaks[0]:.0f} MB (target {LIMIT_MB})"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
