"""Rows of codes for tests, and the facts of the codec that made them."""

from __future__ import annotations

import numpy as np

from colabkit.pipelines.dataset.store.codes import Row, codec_facts
from tests.pipelines.dataset.encode.small_codec import SmallCodec

FACTS = codec_facts(SmallCodec())


def rows(number: int = 5, first: int = 0, value: int = 7) -> list[Row]:
    return [
        Row(
            key=f"k{i:03d}",
            codes=np.full((2, 3 + i), value + i, np.uint16),
            num_samples=960,
            rate_hz=16_000,
            text="نص",
            speaker="s",
            object="o.npz",
            version="v",
            crc32=2**32 - 1,
        )
        for i in range(first, first + number)
    ]
