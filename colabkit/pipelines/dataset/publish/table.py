"""The segments to publish as one table: from the codes of a store, or from what lies there without codes.

The table is an Arrow file on the local disk that is mapped, not read: codes and texts of a million segments take no
memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from colabkit.core.disk import disk_fault
from colabkit.core.errors import DataError, StateError
from colabkit.core.files import TEMPORARY_PREFIX
from colabkit.io.places.place import Place
from colabkit.pipelines.dataset.segments.npz import sort_values
from colabkit.pipelines.dataset.segments.segment import channel_of
from colabkit.pipelines.dataset.store.commit import MANIFEST, read_codes, read_manifest
from colabkit.pipelines.dataset.store.items import Items, read_source

if TYPE_CHECKING:
    import pyarrow as pa

_BLOCK_ROWS = 8192


@dataclass(frozen=True)
class Rows:
    """Segments as a table with a sidecar's columns; without codes they are null, and what nobody has said is "" or 0.

    codec: what a sidecar says of its codec, {} without codes. `left_aside`: segments that encoding left out.
    """

    table: pa.Table
    codec: dict
    left_aside: int = 0

    def __len__(self) -> int:
        return self.table.num_rows

    @cached_property
    def _blocks(self) -> tuple[list[pa.RecordBatch], np.ndarray]:
        """The table's parts, and where each ends. pyarrow's own take would join all of them first."""
        blocks = self.table.to_batches()
        return blocks, np.cumsum([block.num_rows for block in blocks])

    @cached_property
    def _code_arrays(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The codes of each part, one behind the other, and where each row's begin."""
        arrays = [block.column("codes") for block in self._blocks[0]]
        return [(array.values.to_numpy(zero_copy_only=False), array.offsets.to_numpy()) for array in arrays]

    def take(self, numbers: np.ndarray) -> pa.Table:
        """Return some rows in the order given. numbers: (row,) int64."""
        import pyarrow as pa

        blocks, ends = self._blocks
        numbers = np.asarray(numbers, np.int64)
        order = np.argsort(numbers, kind="stable")
        inside = numbers[order]
        place = np.searchsorted(ends, inside, "right")
        parts = [
            blocks[b].take(pa.array(inside[place == b] - (ends[b] - blocks[b].num_rows))) for b in np.unique(place)
        ]
        taken = pa.Table.from_batches(parts, self.table.schema).combine_chunks()
        if (order == np.arange(len(order))).all():
            return taken
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        return taken.take(pa.array(back))

    def codes(self, number: int) -> np.ndarray:
        """Return the codes of one row as they are stored: all codebooks of frame 0, then of frame 1.

        Shape: (code,) uint16.
        """
        blocks, ends = self._blocks
        block = int(np.searchsorted(ends, number, "right"))
        values, offsets = self._code_arrays[block]
        row = number - (int(ends[block]) - blocks[block].num_rows)
        return values[offsets[row] : offsets[row + 1]]


def open_rows(
    segments: Place | None,
    codes: Place | None,
    scratch: Path,
    problem: Callable[[str, str], None] = lambda name, why: None,
) -> Rows:
    """Return what is to be published.

    `codes` is the store whose codes/ holds what was encoded; without it all of `segments`.

    Raises: StateError when the codes are not all there or the disk is full; DataError when there is nothing.
    """
    if codes is not None:
        return _of_codes(codes, scratch)
    if segments is None:
        raise DataError(
            "There is nothing to publish", expected="segments, codes, or both", fix="name the store that holds them"
        )
    items, _ = read_source(segments, problem=problem)
    return Rows(_of_items(items), {})


def _of_codes(codes: Place, scratch: Path) -> Rows:
    """Bring all sidecars onto the local disk as one mapped table; once it is there, nothing is read again."""
    found = read_manifest(codes)
    if found is None:
        raise StateError(
            "The codes are not all there",
            where=f"{codes.address}/{MANIFEST}",
            expected="a finished encoding",
            fix="encode first: run the step before",
        )
    manifest = found[0]
    pieces = [[piece["object"], piece["sha256"]] for piece in manifest["pieces"]]
    name = hashlib.sha256(json.dumps([1, pieces]).encode()).hexdigest()[:16]
    path = scratch / f"codes-{name}.arrow"
    if not path.exists():
        _write(path, (table for _, table in read_codes(codes)))
        for other in scratch.glob("codes-*.arrow"):
            if other != path:
                other.unlink()
    return Rows(_mapped(path), dict(manifest["codec"]), int(manifest["num_left_aside"]))


def _write(path: Path, tables: Iterator[pa.Table]) -> None:
    import pyarrow as pa

    partial = path.with_name(f"{TEMPORARY_PREFIX}{path.name}.tmp")
    writer = None
    try:
        with open(partial, "wb") as file:
            for table in tables:
                if writer is None:
                    writer = pa.ipc.new_file(file, table.schema.remove_metadata())
                writer.write_table(table.replace_schema_metadata(None), max_chunksize=_BLOCK_ROWS)
            if writer is None:
                raise DataError(
                    "There is nothing to publish", got="no codes", where=path, fix="encode some segments first"
                )
            writer.close()
        partial.replace(path)
    except OSError as error:
        raise disk_fault(error, path, "write the table of codes") from error
    finally:
        partial.unlink(missing_ok=True)


def _mapped(path: Path) -> pa.Table:
    import pyarrow as pa

    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (pa.ArrowInvalid, OSError) as error:
        raise StateError(
            "The table of codes is damaged",
            got=str(error),
            where=path,
            fix=f"delete {path} and run the same command again: it is made anew",
        ) from error


def _of_items(items: Items) -> pa.Table:
    import pyarrow as pa

    known = [
        sort_values(json.loads(columns or "{}"), key) for columns, key in zip(items.columns, items.keys, strict=True)
    ]
    channels = [
        k.channel or channel_of(object_ if whole else key)
        for k, object_, key, whole in zip(known, items.objects, items.keys, items.is_whole.tolist(), strict=True)
    ]
    rates = np.maximum(items.rate_hz, 1)
    return pa.table(
        {
            "key": items.keys,
            "codes": pa.nulls(len(items), pa.list_(pa.uint16())),
            "num_frames": np.zeros(len(items), np.int32),
            "num_samples": items.num_samples,
            "rate_hz": items.rate_hz,
            "seconds": items.num_samples / rates,
            "speaker": pa.array([k.speaker for k in known], pa.string()),
            "channel": pa.array(channels, pa.string()),
            "text": pa.array([k.text for k in known], pa.string()),
            "metadata": pa.array(
                [json.dumps(k.metadata, ensure_ascii=False, sort_keys=True) for k in known], pa.string()
            ),
            "object": pa.array(items.objects, pa.string()),
            "offset": items.offset,
            "length": items.length,
            "version": pa.array(items.versions, pa.string()),
            "crc32": items.crc32,
        }
    )
