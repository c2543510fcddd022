"""The sample index: where each sample's bytes lie, how long it is, who speaks; read instead of the data.

One small safetensors file: arrays of one entry a sample, strings packed into one buffer, the shards in the header. It
lies beside the data when colabkit's shard writer made them, and with the run otherwise.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from colabkit.core import files
from colabkit.core.errors import ChangedError, DataError
from colabkit.io.samples.columns import columns_fix

VERSION = 1
FILE_NAME = "colabkit-index.safetensors"
CODECS = ("", "snappy", "zstd", "gzip", "lz4", "brotli")  # their place is what the file holds: append only
_ARRAYS = {
    "shard": np.int32,
    "offset": np.int64,
    "length": np.int64,
    "inflated": np.int64,
    "skip": np.int64,
    "size": np.int64,
    "codec": np.uint8,
    "frames": np.int64,
    "rate_hz": np.int32,
    "crc32": np.uint32,
}


@dataclass(frozen=True, slots=True)
class Shard:
    """A file that holds samples: its name below the source's root, its bytes, what changes when its content does."""

    name: str
    size: int
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One sample.

    Its stored bytes are [offset, offset + length) of the shard; with a codec they inflate to `inflated` bytes, of which
    [skip, skip + size) are the audio file. `frames` is samples per channel at `rate_hz`. `crc32` is of the audio file.
    """

    key: str
    shard: int
    offset: int
    length: int
    frames: int
    rate_hz: int
    crc32: int
    codec: str = ""
    inflated: int = 0
    skip: int = 0
    size: int = 0
    columns: Mapping[str, str]


class Text:
    """Many strings in one buffer."""

    def __init__(self, buffer: np.ndarray, stops: np.ndarray):
        self.buffer, self.stops = buffer, stops

    @classmethod
    def of(cls, strings: Iterable[str]) -> Text:
        encoded = [s.encode("utf-8", "surrogateescape") for s in strings]
        return cls(np.frombuffer(b"".join(encoded), np.uint8), np.cumsum([len(e) for e in encoded], dtype=np.int64))

    def __len__(self) -> int:
        return len(self.stops)

    def __getitem__(self, i: int) -> str:
        start = self.stops[i - 1] if i else 0
        return self.buffer[start : self.stops[i]].tobytes().decode("utf-8", "surrogateescape")

    def take(self, chosen: np.ndarray) -> Text:
        return Text.of(self[int(i)] for i in chosen)

    def to_list(self) -> list[str]:
        return [self[i] for i in range(len(self))]


class SampleIndex:
    """The samples of one source; arrays `shard`, `offset`, ..., `frames`, `crc32` of shape (sample,), and text columns.

    `address` is the pinned store the shard names belong to. The fingerprint covers the content, not the address: the
    same shards in another bucket are the same data.
    """

    def __init__(
        self,
        address: str,
        shards: Sequence[Shard],
        keys: Text,
        arrays: Mapping[str, np.ndarray],
        columns: Mapping[str, Text],
    ):
        self.address, self.shards, self.keys = address, tuple(shards), keys
        self.arrays, self.columns = dict(arrays), dict(columns)

    @classmethod
    def of(cls, address: str, shards: Sequence[Shard], entries: Iterable[Entry]) -> SampleIndex:
        entries = list(entries)
        arrays = {
            name: np.array([CODECS.index(e.codec) if name == "codec" else getattr(e, name) for e in entries], kind)
            for name, kind in _ARRAYS.items()
        }
        plain = arrays["codec"] == 0
        arrays["size"] = np.where(plain, arrays["length"], arrays["size"])
        names = sorted({name for e in entries for name in e.columns})
        return cls(
            address,
            shards,
            Text.of(e.key for e in entries),
            arrays,
            {name: Text.of(e.columns.get(name, "") for e in entries) for name in names},
        )

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def seconds(self) -> np.ndarray:
        """Return durations. Shape: (sample,) float64."""
        return self.arrays["frames"] / np.maximum(self.arrays["rate_hz"], 1)

    @property
    def hours(self) -> float:
        return float(self.seconds.sum() / 3600)

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(json.dumps([VERSION, [s.name for s in self.shards]]).encode())
        for name in ("shard", "size", "frames", "rate_hz", "crc32"):
            digest.update(np.ascontiguousarray(self.arrays[name]).tobytes())
        for name, text in (("", self.keys), *sorted(self.columns.items())):
            digest.update(name.encode() + b"\0" + text.stops.tobytes() + text.buffer.tobytes())
        return digest.hexdigest()[:32]

    def column(self, name: str) -> list[str]:
        """Return one column's values. Raises: DataError when the source has no such column."""
        if name not in self.columns:
            raise DataError(
                f"The source does not say the {name} of its samples",
                got=f"columns {sorted(self.columns)}",
                expected=name,
                where=self.address,
                fix=columns_fix(name),
            )
        return self.columns[name].to_list()

    def at(self, address: str) -> SampleIndex:
        """Return the same index of shards that lie elsewhere."""
        return SampleIndex(address, self.shards, self.keys, self.arrays, self.columns)

    def take(self, chosen: np.ndarray) -> SampleIndex:
        """Return the index of some of the samples: their numbers, in the order given, or a mask. Shape: (sample,)."""
        chosen = np.arange(len(self))[chosen]
        return SampleIndex(
            self.address,
            self.shards,
            self.keys.take(chosen),
            {name: values[chosen] for name, values in self.arrays.items()},
            {name: text.take(chosen) for name, text in self.columns.items()},
        )

    def entries(self) -> Iterator[Entry]:
        """Yield the samples one by one, as they were given."""
        columns = {name: text.to_list() for name, text in self.columns.items()}
        arrays = {name: values.tolist() for name, values in self.arrays.items()}
        for i, key in enumerate(self.keys.to_list()):
            values = {name: array[i] for name, array in arrays.items()}
            yield Entry(
                **values | {"codec": CODECS[values["codec"]]},
                key=key,
                columns={name: column[i] for name, column in columns.items()},
            )

    @classmethod
    def join(cls, address: str, parts: Sequence[SampleIndex]) -> SampleIndex:
        """Put the indexes of several shards one after another."""
        shards = [shard for part in parts for shard in part.shards]
        firsts = np.cumsum([0, *(len(part.shards) for part in parts)])
        arrays = {
            name: np.concatenate(
                [
                    part.arrays[name] + (first if name == "shard" else 0)
                    for part, first in zip(parts, firsts, strict=False)
                ]
            ).astype(kind)
            for name, kind in _ARRAYS.items()
        }
        names = sorted({name for part in parts for name in part.columns})
        columns = {
            name: Text.of(
                value
                for part in parts
                for value in (part.columns[name].to_list() if name in part.columns else [""] * len(part))
            )
            for name in names
        }
        return cls(address, shards, Text.of(key for part in parts for key in part.keys.to_list()), arrays, columns)

    def to_bytes(self) -> bytes:
        from safetensors.numpy import save

        tensors = {f"array.{name}": np.ascontiguousarray(values) for name, values in self.arrays.items()}
        for name, text in (("key", self.keys), *((f"column.{n}", t) for n, t in self.columns.items())):
            tensors |= {f"{name}.buffer": text.buffer, f"{name}.stops": text.stops}
        tensors = {name: values for name, values in tensors.items() if values.any() or not name.startswith("array.")}
        header = {
            "version": VERSION,
            "address": self.address,
            "num_samples": len(self),
            "columns": list(self.columns),
            "shards": [[s.name, s.size, s.version] for s in self.shards],
            "crc32": _checksum(tensors),
        }
        return save(tensors, metadata={"colabkit": json.dumps(header)})

    def save(self, path: str | os.PathLike) -> None:
        files.write_atomic(path, self.to_bytes())

    @classmethod
    def load(cls, path: str | os.PathLike) -> SampleIndex:
        """Read an index file. Raises as `from_bytes`."""
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise files.disk_fault(error, path, "read the index") from error
        return cls.from_bytes(content, os.fspath(path))

    @classmethod
    def from_bytes(cls, content: bytes, where: str) -> SampleIndex:
        """Read an index. Raises: ChangedError for one of another version, DataError for one that is damaged."""
        try:
            header, tensors = _open(content)
            version = header.get("version")
            index = cls._of_tensors(header, tensors) if version == VERSION else None
        except Exception as error:  # safetensors has its own kinds, JSON others
            raise DataError(
                "The index is damaged",
                got=f"{type(error).__name__}: {error}",
                expected="a whole index file",
                where=where,
                fix="delete the file: the index is built anew",
            ) from error
        if index is None:
            raise ChangedError(
                "This index was made by another version of colabkit",
                got=f"version {version}",
                expected=f"version {VERSION}",
                where=where,
                fix="delete the file: the index is built anew",
            )
        return index

    @classmethod
    def _of_tensors(cls, header: dict, tensors: Mapping[str, np.ndarray]) -> SampleIndex:
        number = header["num_samples"]
        if _checksum(tensors) != header["crc32"]:
            raise ValueError("its checksum is wrong")
        arrays = {name: tensors.get(f"array.{name}", np.zeros(number, kind)) for name, kind in _ARRAYS.items()}
        texts = {
            name: Text(tensors[f"{name}.buffer"], tensors[f"{name}.stops"])
            for name in ("key", *(f"column.{name}" for name in header["columns"]))
        }
        shards = [Shard(*s) for s in header["shards"]]
        if {len(values) for values in (*arrays.values(), *texts.values())} != {number}:
            raise ValueError(f"not all arrays hold {number} samples")
        if number and not 0 <= arrays["shard"].min() <= arrays["shard"].max() < len(shards):
            raise ValueError(f"samples of shards that are not among the {len(shards)}")
        if number and arrays["codec"].max() >= len(CODECS):
            raise ValueError(f"compression number {arrays['codec'].max()}")
        return cls(
            header["address"],
            shards,
            texts.pop("key"),
            arrays,
            {name: texts[f"column.{name}"] for name in header["columns"]},
        )


def _checksum(tensors: Mapping[str, np.ndarray]) -> int:
    total = 0
    for name in sorted(tensors):
        total = zlib.crc32(
            np.ascontiguousarray(tensors[name]).view(np.uint8).data if tensors[name].size else b"", total
        )
    return total


def _open(content: bytes) -> tuple[dict, dict[str, np.ndarray]]:
    from safetensors.numpy import load

    length = int.from_bytes(content[:8], "little")
    return json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["colabkit"]), load(content)
