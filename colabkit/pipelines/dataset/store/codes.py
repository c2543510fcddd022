"""Codes of a piece as Parquet, one row a segment: what publishing and listening read instead of the audio's copies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from colabkit.core.errors import ChangedError, DataError
from colabkit.pipelines.dataset.codecs.codec import Codec

if TYPE_CHECKING:
    import pyarrow

VERSION = 1
_METADATA = b"colabkit.codec"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One encoded segment. codes: (codebook, frame) uint16.

    `num_samples` at the segment's own rate; `metadata` is JSON.

    `object`, `offset`, `length` (-1: the whole object), `version` and `crc32` say where its audio lies.
    """

    key: str
    codes: np.ndarray
    num_samples: int
    rate_hz: int
    speaker: str = ""
    channel: str = ""
    text: str = ""
    metadata: str = "{}"
    object: str = ""
    offset: int = 0
    length: int = -1
    version: str = ""
    crc32: int = 0


def codec_facts(codec: Codec) -> dict:
    """Return what a reader of codes needs to know of the codec."""
    return {
        "version": VERSION,
        "name": codec.name,
        "fingerprint": codec.fingerprint,
        "frame_rate_hz": float(codec.frame_rate_hz),
        "num_codebooks": int(codec.num_codebooks),
        "codebook_size": int(codec.codebook_size),
        "rate_hz_in": int(codec.rate_hz_in),
        "rate_hz_out": int(codec.rate_hz_out),
    }


def write_sidecar(rows: Sequence[Row], facts: Mapping[str, object]) -> bytes:
    """Return rows as Parquet, sorted by key: the same rows give the same bytes. Codes are stored frame after frame."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = sorted(rows, key=lambda row: row.key)
    flat = [np.ascontiguousarray(row.codes.T, np.uint16).reshape(-1) for row in rows]
    stops = np.cumsum([0, *(len(codes) for codes in flat)]).astype(np.int32)
    codes = pa.ListArray.from_arrays(
        pa.array(stops), pa.array(np.concatenate(flat) if flat else np.zeros(0, np.uint16))
    )

    def column(name: str, kind: pa.DataType) -> pa.Array:
        return pa.array([getattr(row, name) for row in rows], kind)

    table = pa.table(
        {
            "key": column("key", pa.string()),
            "codes": codes,
            "num_frames": pa.array([row.codes.shape[1] for row in rows], pa.int32()),
            "num_samples": column("num_samples", pa.int64()),
            "rate_hz": column("rate_hz", pa.int32()),
            "seconds": pa.array([row.num_samples / row.rate_hz for row in rows], pa.float64()),
            **{name: column(name, pa.string()) for name in ("speaker", "channel", "text", "metadata", "object")},
            "offset": column("offset", pa.int64()),
            "length": column("length", pa.int64()),
            "version": column("version", pa.string()),
            "crc32": column("crc32", pa.int64()),
        }
    )
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.replace_schema_metadata({_METADATA: json.dumps(dict(facts), sort_keys=True).encode()}),
        sink,
        compression="zstd",
    )
    return sink.getvalue().to_pybytes()


def read_sidecar(content: bytes, where: str = "") -> tuple[pyarrow.Table, dict]:
    """Return the rows of a sidecar and the facts of its codec. Raises: DataError, ChangedError for another format."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(content))
        facts = json.loads(table.schema.metadata[_METADATA])
    except (pa.ArrowInvalid, OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            "These are no codes",
            got=f"{type(error).__name__}: {error}",
            where=where,
            expected="a sidecar of codes",
            fix="download the file again, or encode its segments again",
        ) from error
    if facts.get("version") != VERSION:
        raise ChangedError(
            "The codes were written by another version of colabkit",
            got=f"format {facts.get('version')}",
            expected=f"format {VERSION}",
            where=where,
            fix="read them with that version, or encode again",
        )
    return table, facts


def codes_of(table: pyarrow.Table, i: int, num_codebooks: int | None = None) -> np.ndarray:
    """Return the codes of one row. Shape: (codebook, frame) uint16."""
    flat = np.asarray(table["codes"][i].values.to_numpy(zero_copy_only=False), np.uint16)
    frames = table["num_frames"][i].as_py()
    codebooks = num_codebooks or (len(flat) // frames if frames else 1)
    return np.ascontiguousarray(flat.reshape(frames, codebooks).T)
