"""Batch samples of given durations with lhotse's DynamicBucketingSampler; prints sums as JSON.

Run by stream_padding.py with the peers' Python: padding.py FOLDER PADDED_SECONDS NUM_BUCKETS. The durations are in
FOLDER/seconds.npy, in the order of the files.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from lhotse import CutSet
from lhotse.dataset import DynamicBucketingSampler
from lhotse.testing.dummies import dummy_cut


def main() -> None:
    folder, padded_seconds, num_buckets = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    all_seconds = np.load(folder / "seconds.npy")
    with CutSet.open_writer(folder / "cuts.jsonl") as writer:
        for number, seconds in enumerate(all_seconds):
            cut = dummy_cut(number, duration=float(seconds), recording=None, supervisions=[])
            cut.id = str(number)
            writer.write(cut)
    sampler = DynamicBucketingSampler(
        CutSet.from_jsonl_lazy(folder / "cuts.jsonl"),
        max_duration=padded_seconds,
        num_buckets=num_buckets,
        shuffle=True,
        seed=0,
    )
    batches = [[int(cut.id) for cut in cuts] for cuts in sampler]
    padded = [len(batch) * all_seconds[batch].max() for batch in batches]
    order = np.concatenate(batches)
    assert np.array_equal(np.sort(order), np.arange(len(all_seconds)))
    print(
        json.dumps(
            {
                "padding": 1 - all_seconds.sum() / sum(padded),
                "fill": float(np.mean(padded)) / padded_seconds,
                "most": max(padded) / padded_seconds,
                "batches": len(batches),
                "correlation": float(np.corrcoef(np.arange(len(order)), order)[0, 1]),
                "version": version("lhotse"),
            }
        )
    )


if __name__ == "__main__":
    main()
