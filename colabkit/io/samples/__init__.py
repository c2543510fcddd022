"""Read single samples through an index: only their bytes, checked against the index, from wherever they lie."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from colabkit.core.errors import BrokenSampleError, DataError
from colabkit.io.audio import read_audio
from colabkit.io.places import Pinned, open_place
from colabkit.io.places.cache import Cached
from colabkit.io.samples.index import CODECS, SampleIndex
from colabkit.io.samples.parquet.values import ValueAddress, fetch_value
from colabkit.io.samples.range_file import RangeFile


class Samples:
    """The audio of an index's samples. Safe for many threads; goes to other processes without its connections."""

    def __init__(self, index: SampleIndex, store: Pinned | Cached | None = None):
        self.index = index
        self.store = store or Pinned(open_place(index.address))

    def name_of(self, number: int) -> str:
        """Return what an error or report calls the sample."""
        index = self.index
        return f"{index.keys[number]} in {index.shards[index.arrays['shard'][number]].name} of {index.address}"

    def read_bytes(self, number: int) -> bytes:
        """Return the audio file of one sample.

        Raises: BrokenSampleError when its checksum is wrong twice; DataError when the source does not answer.
        """
        wanted, fault = int(self.index.arrays["crc32"][number]), None
        for _ in range(2):  # a byte may turn over on the way: the second reading tells that from a broken shard
            try:
                content = self._fetch(number)
                if zlib.crc32(content) == wanted:
                    return content
                fault = self._broken(number, f"checksum {zlib.crc32(content):08x}", f"{wanted:08x}")
            except BrokenSampleError as error:
                fault = error
            if isinstance(self.store, Cached):
                self.store.forget(*self._place(number))
        raise fault

    def read_wave(self, number: int, *, rate_hz: int = 16_000) -> np.ndarray:
        """Return the whole sample, mono float32 at `rate_hz`. Shape: (sample,).

        Raises as `read_bytes`, and BrokenSampleError for audio that does not decode.
        """
        content = self.read_bytes(number)
        try:
            return read_audio(content, rate_hz=rate_hz)
        except DataError as error:
            raise BrokenSampleError(
                error.what, got=error.got, expected=error.expected, where=self.name_of(number), fix=error.fix
            ) from error

    def open(self, number: int) -> RangeFile:
        """Return the audio file of one sample as a file to seek in. Its checksum is not looked at."""
        arrays = self.index.arrays
        if arrays["codec"][number]:
            content = self._fetch(number)
            return RangeFile(lambda start, stop: content[start:stop], len(content), self.name_of(number))
        shard = self.index.shards[arrays["shard"][number]].name
        offset = int(arrays["offset"][number])
        return RangeFile(
            lambda start, stop: self.store.read(shard, offset + start, offset + stop),
            int(arrays["length"][number]),
            self.name_of(number),
        )

    def _place(self, number: int) -> tuple[str, int, int]:
        """Return the shard and the range that hold the sample's stored bytes."""
        arrays = self.index.arrays
        offset = int(arrays["offset"][number])
        return self.index.shards[arrays["shard"][number]].name, offset, offset + int(arrays["length"][number])

    def _fetch(self, number: int) -> bytes:
        """Return the audio file.

        Raises: BrokenSampleError where what is stored does not decompress; what the store raises.
        """
        shard, offset, stop = self._place(number)
        values = {name: int(self.index.arrays[name][number]) for name in ("codec", "inflated", "skip", "size")}
        codec = CODECS[values.pop("codec")]
        if not codec:
            return self.store.read(shard, offset, stop)
        file = RangeFile(lambda start, stop: self.store.read(shard, start, stop), stop, shard, window_bytes=0)
        try:
            address = ValueAddress(row=number, offset=offset, length=stop - offset, codec=codec, **values)
            return fetch_value(file.between, address, name=self.name_of(number))
        except DataError as error:
            if file.failure is not None:
                raise
            raise self._broken(number, error.got, error.expected) from error

    def _broken(self, number: int, got: object, expected: str) -> BrokenSampleError:
        return BrokenSampleError(
            "A sample is not what the index says",
            got=got,
            expected=expected,
            where=self.name_of(number),
            fix="copy the shard again; if it was changed on purpose, build the index anew",
        )


def open_samples(index: SampleIndex, cache: Path, cache_gib: float) -> Samples:
    """Open an index's samples; what is read from afar is kept in `cache` only where a budget is given."""
    place = Pinned(open_place(index.address))
    if cache_gib > 0 and not place.is_folder:
        return Samples(
            index, Cached(place, cache, int(cache_gib * 2**30), {shard.name: shard.version for shard in index.shards})
        )
    return Samples(index, place)
