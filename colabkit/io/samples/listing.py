"""Listed samples of a run, of one source or several, split; opened again from a few small files wherever the run lies.

Each source has an index, speech-N.safetensors. Which sample belongs to which split stands in listing.json and
splits.safetensors, or in a file of the pipeline's own: both stand on `describe`, `save_indexes` and `open_sources`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from colabkit.core import files
from colabkit.core.errors import DataError
from colabkit.io.samples import Samples, open_samples
from colabkit.io.samples.index import SampleIndex, Text
from colabkit.io.samples.source import VOICES

SPLITS = ("train", "validation", "test")
NUM_LARGE = 400  # names; with fewer the shares of a hash are left to chance
VERSION = 1
LISTING, PLACES = "listing.json", "splits.safetensors"
# threads: over the network they mostly wait, on a local disk they only fight for the cores
READERS, LOCAL_READERS = 8, 2


class Split:
    """Samples of one split: sample i is sample `numbers[i]` of source `sources[i]`. Safe for many threads.

    Waves are read at `rate_hz`. `texts` are the column of that name until others are given, and `speakers` as well.
    Shapes: (sample,).

        train = open_listing(run.folder_of("01_data"), rate_hz=16_000)["train"]
        train.names[0], train.seconds[0], train.texts[0]      # what is known without reading any audio
        wave = train.read_wave(0)                             # float32, mono, 16 kHz
        longest = train.take(np.argsort(-train.seconds)[:10])
    """

    def __init__(
        self,
        name: str,
        samples: Sequence[Samples],
        sources: np.ndarray,
        numbers: np.ndarray,
        *,
        rate_hz: int,
        texts: Text | None = None,
        speakers: Sequence[str] | None = None,
    ):
        self.name, self.samples, self.sources, self.numbers, self.rate_hz = name, samples, sources, numbers, rate_hz
        self._texts, self._speakers = texts, speakers
        self.seconds = self._gather(np.float64, lambda index: index.seconds)

    def __len__(self) -> int:
        return len(self.numbers)

    def _gather(self, kind: type, values_of: Callable[[SampleIndex], np.ndarray]) -> np.ndarray:
        found = np.empty(len(self), kind)
        for source in np.unique(self.sources):
            mine = self.sources == source
            found[mine] = values_of(self.samples[source].index)[self.numbers[mine]]
        return found

    def column(self, name: str) -> Text:
        """Return what the sources say of each sample under this name, "" where one says nothing."""
        columns = [s.index.keys if name == "key" else s.index.columns.get(name) for s in self.samples]
        return Text.of(
            "" if columns[s] is None else columns[s][n]
            for s, n in zip(self.sources.tolist(), self.numbers.tolist(), strict=True)
        )

    @cached_property
    def texts(self) -> Text:
        return self._texts if self._texts is not None else self.column("text")

    @cached_property
    def names(self) -> Text:
        return self.column("key")

    @cached_property
    def speakers(self) -> list[str]:
        """Return who speaks, "" where nobody knows; speakers of different sources do not mix."""
        if self._speakers is not None:
            return list(self._speakers)
        several = len(self.samples) > 1
        return [
            f"{source}:{name}" if several and name else name
            for source, name in zip(self.sources.tolist(), self.column("speaker").to_list(), strict=True)
        ]

    @cached_property
    def fingerprint(self) -> str:
        """Return what changes when any sample, its text or their order does."""
        digest = hashlib.sha256(json.dumps([self.name, [s.index.fingerprint for s in self.samples]]).encode())
        for array in (self.sources, self.numbers):
            digest.update(np.ascontiguousarray(array).tobytes())
        if self._texts is not None:
            digest.update(self._texts.stops.tobytes() + self._texts.buffer.tobytes())
        return digest.hexdigest()[:32]

    @property
    def hours(self) -> float:
        return float(self.seconds.sum() / 3600)

    @property
    def stored_bytes(self) -> int:
        """Return how large the samples' audio files are together."""
        return int(self._gather(np.int64, lambda index: index.arrays["size"]).sum())

    @property
    def num_readers(self) -> int:
        """Return how many threads read these samples best."""
        return LOCAL_READERS if all(s.store.is_folder for s in self.samples) else READERS

    def read_wave(self, i: int) -> np.ndarray:
        """Return sample i whole, mono float32 at `rate_hz`. Shape: (sample,). Raises: BrokenSampleError, DataError."""
        return self.samples[self.sources[i]].read_wave(int(self.numbers[i]), rate_hz=self.rate_hz)

    def where(self, i: int) -> str:
        """Return what an error or a report calls sample i."""
        return self.samples[self.sources[i]].name_of(int(self.numbers[i]))

    def take(self, chosen: np.ndarray, texts: Text | None = None, *, name: str = "") -> Split:
        """Return some of the samples, in the order given; with other texts or another name where these are given."""
        chosen = np.asarray(chosen, np.int64)
        if texts is None and self._texts is not None:
            texts = self._texts.take(chosen)
        speakers = None if self._speakers is None else [self._speakers[i] for i in chosen]
        return Split(
            name or self.name,
            self.samples,
            self.sources[chosen],
            self.numbers[chosen],
            rate_hz=self.rate_hz,
            texts=texts,
            speakers=speakers,
        )


class Listing:
    """All samples of a run by split.

    `described` says of each source what it is, `left_aside` why how many are in no split.
    """

    def __init__(self, splits: Mapping[str, Split], described: list[dict], left_aside: Mapping[str, int]):
        self.splits, self.described, self.left_aside = dict(splits), described, dict(left_aside)

    def __getitem__(self, split: str) -> Split:
        return self.splits[split]

    def __iter__(self) -> Iterator[str]:
        return iter(self.splits)

    def read_wave(self, split: str, i: int) -> np.ndarray:
        """Return one sample; as Split.read_wave."""
        return self.splits[split].read_wave(i)

    @property
    def hours(self) -> dict[str, float]:
        return {name: split.hours for name, split in self.splits.items()}

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256("".join(self.splits[s].fingerprint for s in sorted(self.splits)).encode()).hexdigest()[
            :32
        ]

    def replace(self, splits: Mapping[str, Split]) -> Listing:
        return Listing({**self.splits, **splits}, self.described, self.left_aside)


def describe(addresses: Sequence[str], indexes: Sequence[SampleIndex]) -> list[dict]:
    """Return what a run keeps of each source: the address as asked for and as pinned, fingerprint, samples, hours."""
    return [
        {
            "source": source,
            "address": "" if source == VOICES else index.address,
            "fingerprint": index.fingerprint,
            "samples": len(index),
            "hours": round(index.hours, 4),
        }
        for source, index in zip(addresses, indexes, strict=True)
    ]


def save_indexes(folder: Path, described: Sequence[dict], indexes: Sequence[SampleIndex]) -> None:
    """Write the index of each source to `folder`; `open_sources` reads them."""
    for number, (index, source) in enumerate(zip(indexes, described, strict=True)):
        placed = index.at("") if source["source"] == VOICES else index  # the run's folder may lie elsewhere tomorrow
        placed.save(folder / _index_name(number))


def open_sources(
    folder: Path, described: Sequence[dict], cache: Path | None = None, cache_gib: float = 0.0
) -> list[Samples]:
    """Open the sources whose indexes lie in `folder`; audio read before is looked up in `cache` if it has a budget."""
    found = []
    for number, source in enumerate(described):
        index = SampleIndex.load(folder / _index_name(number)).at(source["address"] or os.fspath(folder / VOICES))
        found.append(open_samples(index, cache, cache_gib if cache is not None else 0.0))
    return found


def write_listing(folder: Path, listing: Listing, indexes: Sequence[SampleIndex]) -> None:
    """Write a listing and the indexes it names; the small JSON comes last and vouches for the rest."""
    from safetensors.numpy import save

    save_indexes(folder, listing.described, indexes)
    arrays = {
        f"{name}.{part}": np.ascontiguousarray(getattr(split, part), np.int64)
        for name, split in listing.splits.items()
        for part in ("sources", "numbers")
    }
    files.write_atomic(folder / PLACES, save(arrays))
    files.write_json(
        folder / LISTING,
        {
            "version": VERSION,
            "sources": listing.described,
            "left_aside": listing.left_aside,
            "splits": {name: {"samples": len(s), "hours": round(s.hours, 4)} for name, s in listing.splits.items()},
        },
    )


def open_listing(folder: Path, cache: Path | None = None, cache_gib: float = 0.0, *, rate_hz: int) -> Listing:
    """Open what `write_listing` wrote, to read waves at `rate_hz`; audio read before is looked up as in `open_sources`.

    Raises: StateError, DataError for missing or damaged files.
    """
    listing = files.read_json(folder / LISTING)
    samples = open_sources(folder, listing["sources"], cache, cache_gib)
    arrays = read_arrays(folder / PLACES)
    splits = {
        name: Split(name, samples, arrays[f"{name}.sources"], arrays[f"{name}.numbers"], rate_hz=rate_hz)
        for name in SPLITS
    }
    if {name: len(split) for name, split in splits.items()} != {n: s["samples"] for n, s in listing["splits"].items()}:
        raise DataError(
            "The listing is damaged",
            got="another number of samples",
            where=folder / PLACES,
            expected="what listing.json says",
            fix="do the step that wrote it again",
        )
    return Listing(splits, listing["sources"], listing["left_aside"])


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a listing's file. Raises: DataError for one that is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise DataError(
            "The listing is damaged",
            got=f"{type(error).__name__}: {error}",
            expected="a whole file",
            where=path,
            fix="do the step that wrote it again",
        ) from error


def _index_name(number: int) -> str:
    return f"speech-{number}.safetensors"


def split_names(
    names: Sequence[str], *, test_fraction: float, validation_fraction: float, seed: int, at_least: int = 1
) -> dict[str, str]:
    """Assign each name (of a speaker, or of a sample) to a split by a hash of it and the seed.

    In a large set adding names moves no other; in a small one every split gets its share, at least `at_least`. A
    fraction of zero leaves its split empty.
    """

    def share(name: str) -> float:
        return int.from_bytes(hashlib.sha1(f"{seed}/{name}".encode()).digest()[:8], "big") / 2**64

    test, validation = test_fraction, test_fraction + validation_fraction
    places = {name: share(name) for name in names}
    if len(places) < NUM_LARGE:
        places = {name: rank for rank, name in enumerate(sorted(places, key=places.get))}
        test = max(round(test_fraction * len(places)), at_least) if test_fraction else 0
        validation = test + (max(round(validation_fraction * len(places)), at_least) if validation_fraction else 0)
    return {n: "test" if places[n] < test else "validation" if places[n] < validation else "train" for n in names}
