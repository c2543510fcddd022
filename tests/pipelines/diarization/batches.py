"""Take training batches from any step, and compare them bit for bit."""

from __future__ import annotations

from contextlib import closing

import torch

from colabkit.pipelines.diarization.train.batches import Batch, TrainingBatches


def take(batches: TrainingBatches, step: int, count: int) -> list[Batch]:
    with closing(batches.from_step(step)) as feed:
        return [next(feed) for _ in range(count)]


def same(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(
        torch.equal(getattr(x, n), getattr(y, n)) for x, y in zip(a, b, strict=True) for n in Batch.__slots__
    )
