"""Listed samples of a run, split; opened again from a few small files wherever the run's folder is."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from colabkit.core import files
from colabkit.core.errors import DataError
from colabkit.io.samples import Samples, open_samples
from colabkit.io.samples.index import SampleIndex, Text
from colabkit.io.samples.source import VOICES
from colabkit.io.samples.splits import SPLITS

VERSION = 1
RATE_HZ = 16_000  # of the waves that are read
LISTING, PLACES = "listing.json", "splits.safetensors"
READERS, LOCAL_READERS = 8, 2  # threads: over the network they mostly wait, on a local disk they only fight for the cores


class Split:
    """Samples of one split: sample i is sample `numbers[i]` of source `sources[i]`. Safe for many threads.

    `texts` are as they were written until the text step has cleaned them. Shapes: (sample,).
    """

    def __init__(self, name: str, samples: Sequence[Samples], sources: np.ndarray, numbers: np.ndarray,
                 texts: Text | None = None):
        self.name, self.samples, self.sources, self.numbers = name, samples, sources, numbers
        self._texts = texts
        self.seconds = self._gather(np.float64, lambda index: index.seconds)

    def __len__(self) -> int:
        return len(self.numbers)

    def _gather(self, kind, values_of) -> np.ndarray:
        found = np.empty(len(self), kind)
        for source in np.unique(self.sources):
            mine = self.sources == source
            found[mine] = values_of(self.samples[source].index)[self.numbers[mine]]
        return found

    def _column(self, name: str) -> Text:
        columns = [s.index.keys if name == "key" else s.index.columns.get(name) for s in self.samples]
        return Text.of("" if columns[s] is None else columns[s][n] for s, n in zip(self.sources.tolist(), self.numbers.tolist(),
                                                                                    strict=True))

    @cached_property
    def texts(self) -> Text:
        return self._texts if self._texts is not None else self._column("text")

    @cached_property
    def names(self) -> Text:
        return self._column("key")

    @cached_property
    def speakers(self) -> list[str]:
        """Return who speaks, "" where nobody knows; speakers of different sources do not mix."""
        several = len(self.samples) > 1
        return [f"{source}:{name}" if several and name else name
                for source, name in zip(self.sources.tolist(), self._column("speaker").to_list(), strict=True)]

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
        """Return sample i whole, mono float32 at 16 kHz. Shape: (sample,). Raises: BrokenSampleError, DataError."""
        return self.samples[self.sources[i]].read_wave(int(self.numbers[i]), rate_hz=RATE_HZ)

    def where(self, i: int) -> str:
        """Return what an error or a report calls sample i."""
        return self.samples[self.sources[i]].name_of(int(self.numbers[i]))

    def take(self, chosen: np.ndarray, texts: Text | None = None) -> Split:
        """Return some of the samples, in the order given, with other texts where these are given."""
        chosen = np.asarray(chosen, np.int64)
        if texts is None and self._texts is not None:
            texts = self._texts.take(chosen)
        return Split(self.name, self.samples, self.sources[chosen], self.numbers[chosen], texts)


class Listing:
    """All samples of a run by split; `described` says of each source what it is, `left_aside` why how many are in no split."""

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
        return hashlib.sha256("".join(self.splits[s].fingerprint for s in sorted(self.splits)).encode()).hexdigest()[:32]

    def replace(self, splits: Mapping[str, Split]) -> Listing:
        return Listing({**self.splits, **splits}, self.described, self.left_aside)


def write_listing(folder: Path, listing: Listing, indexes: Sequence[SampleIndex]) -> None:
    """Write a listing and the indexes it names; the small JSON comes last and vouches for the rest."""
    from safetensors.numpy import save
    for number, (index, described) in enumerate(zip(indexes, listing.described, strict=True)):
        placed = index.at("") if described["source"] == VOICES else index  # the run's folder may lie elsewhere tomorrow
        placed.save(folder / _index_name(number))
    arrays = {f"{name}.{part}": np.ascontiguousarray(getattr(split, part), np.int64)
              for name, split in listing.splits.items() for part in ("sources", "numbers")}
    files.write_atomic(folder / PLACES, save(arrays))
    files.write_json(folder / LISTING, {
        "version": VERSION, "sources": listing.described, "left_aside": listing.left_aside,
        "splits": {name: {"samples": len(s), "hours": round(s.hours, 4)} for name, s in listing.splits.items()}})


def open_listing(folder: Path, cache: Path | None = None, cache_gib: float = 0.0) -> Listing:
    """Open what `list_samples` wrote to `folder`; audio read before is looked up in `cache` where there is a budget.

    Raises: StateError, DataError for missing or damaged files.
    """
    listing = files.read_json(folder / LISTING)
    samples = []
    for number, described in enumerate(listing["sources"]):
        index = SampleIndex.load(folder / _index_name(number))
        index = index.at(described["address"] or os.fspath(folder / VOICES))
        samples.append(open_samples(index, cache, cache_gib if cache is not None else 0.0))
    arrays = _read_arrays(folder / PLACES)
    splits = {name: Split(name, samples, arrays[f"{name}.sources"], arrays[f"{name}.numbers"]) for name in SPLITS}
    if {name: len(split) for name, split in splits.items()} != {n: s["samples"] for n, s in listing["splits"].items()}:
        raise DataError("The listing is damaged", got="another number of samples", where=folder / PLACES,
                        expected="what listing.json says", fix="do the step that wrote it again")
    return Listing(splits, listing["sources"], listing["left_aside"])


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load
    try:
        return load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise DataError("The listing is damaged", got=f"{type(error).__name__}: {error}", expected="a whole file", where=path,
                        fix="do the step that wrote it again") from error


def _index_name(number: int) -> str:
    return f"speech-{number}.safetensors"
