"""Read single samples through an index: only their bytes, checked against the index, from wherever they lie."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from colabkit.core.errors import BrokenSampleError, DataError
from colabkit.io.audio import read_audio
from colabkit.io.cache import CachedStore
from colabkit.io.index import CODECS, SampleIndex
from colabkit.io.parquet_values import ValueAddress, fetch_value
from colabkit.io.range_file import RangeFile
from colabkit.io.stores import LocalStore, Store, open_store


class Samples:
    """The audio of an index's samples. Safe for many threads; goes to other processes without its connections."""

    def __init__(self, index: SampleIndex, store: Store | None = None):
        self.index = index
        self.store = store or open_store(index.address)

    def name_of(self, number: int) -> str:
        """Return what an error or report calls the sample."""
        index = self.index
        return f"{index.keys[number]} in {index.shards[index.arrays['shard'][number]].name} of {index.address}"

    def read_bytes(self, number: int) -> bytes:
        """Return the audio file of one sample.

        Raises: BrokenSampleError when its checksum is wrong twice; DataError when the source does not answer.
        """
        for _ in range(2):  # a byte may turn over on the way: the second reading tells that from a broken shard
            content = self._fetch(number)
            if zlib.crc32(content) == self.index.arrays["crc32"][number]:
                return content
        raise BrokenSampleError("A sample is not what the index says", got=f"checksum {zlib.crc32(content):08x}",
                                expected=f"{int(self.index.arrays['crc32'][number]):08x}", where=self.name_of(number),
                                fix="copy the shard again; if it was changed on purpose, build the index anew")

    def read_wave(self, number: int, *, rate_hz: int = 16_000) -> np.ndarray:
        """Return the whole sample, mono float32 at `rate_hz`. Shape: (sample,). Raises as `read_bytes`, and BrokenSampleError
        for audio that does not decode."""
        content = self.read_bytes(number)
        try:
            return read_audio(content, rate_hz=rate_hz)
        except DataError as error:
            raise BrokenSampleError(error.what, got=error.got, expected=error.expected, where=self.name_of(number),
                                    fix=error.fix) from error

    def read_window(self, number: int, start_seconds: float, seconds: float, *, rate_hz: int = 16_000) -> np.ndarray:
        """Return a window of a long sample; only about its bytes are read where the shard stores them as they are."""
        return read_audio(self.open(number), rate_hz=rate_hz, start_seconds=start_seconds, duration_seconds=seconds)

    def open(self, number: int) -> RangeFile:
        """Return the audio file of one sample as a file to seek in. Its checksum is not looked at."""
        arrays = self.index.arrays
        if arrays["codec"][number]:
            content = self._fetch(number)
            return RangeFile(lambda start, stop: content[start:stop], len(content), self.name_of(number))
        shard = self.index.shards[arrays["shard"][number]].name
        offset = int(arrays["offset"][number])
        return RangeFile(lambda start, stop: self.store.read(shard, offset + start, offset + stop),
                         int(arrays["length"][number]), self.name_of(number))

    def _fetch(self, number: int) -> bytes:
        values = {name: int(self.index.arrays[name][number]) for name in
                  ("shard", "offset", "length", "codec", "inflated", "skip", "size")}
        shard = self.index.shards[values["shard"]].name
        if not values["codec"]:
            return self.store.read(shard, values["offset"], values["offset"] + values["length"])
        address = ValueAddress(row=number, offset=values["offset"], length=values["length"], codec=CODECS[values["codec"]],
                               inflated=values["inflated"], skip=values["skip"], size=values["size"])
        return fetch_value(lambda start, stop: self.store.read(shard, start, stop), address, name=self.name_of(number))


def open_samples(index: SampleIndex, cache: Path, cache_gib: float) -> Samples:
    """Open an index's samples; what is read from afar is kept in `cache` only where a budget is given."""
    store = open_store(index.address)
    if cache_gib > 0 and not isinstance(store, LocalStore):
        store = CachedStore(store, cache, int(cache_gib * 2**30))
    return Samples(index, store)
