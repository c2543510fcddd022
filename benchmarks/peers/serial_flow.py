"""The flow of a script that works in turns, on too small a disk: download a batch, encode it, upload it, clean up.

The loop of the usual batch script for hosts with a small disk: boto3-like threads for both transfers, full npz with
codes as the result, a JSON file of what is done after each batch. It gets the same store, codec and threads as what it
is compared with, and batches of equal length within its download batch.
"""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path


def run(
    source, output, codec, folder: Path, *, read_segment, write_npz, batch_bytes: int, downloads: int, uploads: int
) -> int:
    """Encode all of `source` into encoded/ of `output`; returns how many."""
    listed = list(source.list())
    batches, size = [[]], 0
    for entry in listed:
        if size + entry.size > batch_bytes and batches[-1]:
            batches.append([])
            size = 0
        batches[-1].append(entry.name)
        size += entry.size
    done: list[str] = []
    for batch in batches:
        here = folder / "batch"
        here.mkdir(parents=True, exist_ok=True)

        def download(name: str, here: Path = here) -> Path:
            path = here / name.replace("/", "__")
            path.write_bytes(source.get(name))
            return path

        with ThreadPoolExecutor(downloads) as pool:
            paths = dict(zip(batch, pool.map(download, batch), strict=True))
        groups = defaultdict(list)
        for name, path in paths.items():
            segment = read_segment(path.read_bytes(), name, {})
            groups[codec.num_frames(len(segment.wave))].append((path, segment))
        for group in groups.values():
            most = max(1, int(codec.most_seconds() / group[0][1].seconds))
            for start in range(0, len(group), most):
                part = group[start : start + most]
                for (path, segment), codes in zip(part, codec.encode_batch([s.wave for _, s in part]), strict=True):
                    path.write_bytes(write_npz(replace(segment, codes=codes)))

        def upload(name: str, paths: dict[str, Path] = paths) -> None:
            output.put(f"encoded/{name}", paths[name].read_bytes())

        with ThreadPoolExecutor(uploads) as pool:
            list(pool.map(upload, batch))
        shutil.rmtree(here)
        done += batch
        (folder / "progress.json").write_text(json.dumps({"done": done}))
    return len(done)
