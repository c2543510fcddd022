"""Publish loose npz segments with datasets' IterableDataset.push_to_hub; every byte that is read is written down.

python benchmarks/peers/push_to_hub.py STORE LOG REPO SHARDS MAX_SHARD_SIZE
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import numpy as np
import soundfile
from datasets import Features, IterableDataset, Value


def main(store: str, log: str, repo: str, num_shards: str, max_shard_size: str) -> None:
    paths = sorted(Path(store, "segments").rglob("*.npz"))
    groups = [list(map(str, part)) for part in np.array_split(np.array(paths, object), int(num_shards))]
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def rows(groups):
        for group in groups:
            for path in group:
                content = Path(path).read_bytes()
                os.write(handle, f"{len(content)}\n".encode())
                with np.load(io.BytesIO(content)) as arrays:
                    wave, rate = arrays["audio"], int(arrays["sample_rate"])
                    known = {name: str(arrays[name]) for name in ("speaker", "channel", "text")}
                buffer = io.BytesIO()
                soundfile.write(
                    buffer,
                    np.clip(np.round(wave * 32768), -32768, 32767).astype(np.int16),
                    rate,
                    format="FLAC",
                    subtype="PCM_16",
                )
                key = Path(path).stem
                yield {"key": key, "audio": {"bytes": buffer.getvalue(), "path": f"{key}.flac"}, **known}

    # As the feature Audio stores it; that one itself wants torchcodec even to pass bytes on.
    audio = {"bytes": Value("binary"), "path": Value("string")}
    features = Features(
        {
            "key": Value("string"),
            "audio": audio,
            "speaker": Value("string"),
            "channel": Value("string"),
            "text": Value("string"),
        }
    )
    dataset = IterableDataset.from_generator(rows, gen_kwargs={"groups": groups}, features=features)
    dataset.push_to_hub(repo, private=True, max_shard_size=int(max_shard_size))


if __name__ == "__main__":
    main(*sys.argv[1:])
