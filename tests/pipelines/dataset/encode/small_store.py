"""A store with segments and a scratch folder, and calls of `encode` on them with what was told in them."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np

from colabkit.pipelines.dataset.encode.job import encode
from colabkit.pipelines.dataset.store.codes import codes_of
from colabkit.pipelines.dataset.store.commit import MANIFEST, read_codes
from tests.pipelines.dataset.encode.memory_objects import MemoryObjects
from tests.pipelines.dataset.encode.small_codec import SmallCodec, fill, read_small
from tests.told import Told


class Place:
    """A store with segments, a scratch folder, and calls of `encode` with what was told in them."""

    def __init__(self, folder, **store):
        self.store = MemoryObjects(**store)
        self.source, self.scratch = self.store.below("segments"), folder / "scratch"
        self.told = Told()

    @property
    def said(self) -> list[str]:
        return self.told.said

    @property
    def problems(self) -> dict[str, str]:
        return self.told.problems

    @property
    def choices(self) -> dict[str, tuple]:
        return self.told.chosen

    def encode(self, codec=None, *, stop=lambda: False, **settings):
        self.told.stop = stop
        settings = {
            "quota_bytes": 8 << 20,
            "piece_bytes": 1 << 20,
            "scratch": self.scratch,
            "read_segment": read_small,
            "num_downloads": 4,
        } | settings
        return encode(self.source, self.store, codec or SmallCodec(), teller=self.told, **settings)

    def codes(self):
        return {
            row["key"]: codes_of(table, i)
            for _, table in read_codes(self.store)
            for i, row in enumerate(table.to_pylist())
        }

    def manifest(self):
        return json.loads(self.store.content[MANIFEST][0])


def same(codes, expected):
    return codes.keys() == expected.keys() and all(np.array_equal(codes[key], expected[key]) for key in codes)


def begun(place, number: int = 120) -> tuple[dict, Counter, SmallCodec]:
    """Stop a run that has fetched much ahead; returns what is expected, a counter of reads to come, and the codec."""
    expected, reads = fill(place.source, number), Counter()
    codec = SmallCodec(seconds_per_second=0.02)
    place.store.hook(lambda method, name: reads.update([name] if method == "get" else []))
    spool = place.scratch / "spool"
    place.encode(codec, stop=lambda: len(codec.encoded) > 3 and len(list(spool.iterdir())) > 60)
    assert len(list(spool.iterdir())) > 60
    return expected, reads, codec
