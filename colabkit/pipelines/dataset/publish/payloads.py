"""Stored bytes of segments, read in the order they lie in: neighbours together, ahead of their use, each byte once."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from colabkit.core.errors import ChangedError, DataError
from colabkit.core.prefetch import prefetch
from colabkit.io.places.place import Place

if TYPE_CHECKING:
    import pyarrow as pa

_SPAN_BYTES = 8 << 20  # read at once
_GAP_BYTES = 8 << 10  # between two segments of a shard lie the head of a tar member and what is known of it
_AHEAD_BYTES = 64 << 20
_WORKERS = 8


@dataclass(frozen=True, slots=True)
class Payload:
    """The bytes of one row, or why they are not to be had."""

    row: int
    content: bytes | memoryview
    fault: str = ""


@dataclass(frozen=True, slots=True)
class _Span:
    """Bytes start..stop of an object (stop None: all), and the rows in it as (row, offset, length, crc32)."""

    object: str
    version: str
    start: int
    stop: int | None
    rows: tuple[tuple[int, int, int, int], ...]

    @property
    def num_bytes(self) -> int:
        return _SPAN_BYTES // 8 if self.stop is None else self.stop - self.start


def read_payloads(segments: Place, table: pa.Table, *, workers: int = _WORKERS) -> Iterator[Payload]:
    """Yield the bytes of each row of a table of segments, in order; rows that cannot be read come with the reason.

    Raises: UsageError without the right to read; Unreachable.
    """
    spans = _spans(table)

    def read(k: int) -> list[Payload]:
        return list(_read(segments, spans[k]))

    with closing(
        prefetch(
            read,
            0,
            len(spans),
            workers=min(workers, max(1, len(spans))),
            max_bytes=_AHEAD_BYTES,
            num_bytes=lambda k: spans[k].num_bytes,
        )
    ) as made:
        for payloads in made:
            yield from payloads


def _read(segments: Place, span: _Span) -> Iterator[Payload]:
    from colabkit.io.places.http.patience import Unreachable

    try:
        content = memoryview(segments.get(span.object, span.start, span.stop, version=span.version))
    except Unreachable:
        raise
    except (DataError, ChangedError) as error:
        for row, *_ in span.rows:
            yield Payload(
                row, b"", "it changed after it was encoded" if isinstance(error, ChangedError) else error.what
            )
        return
    for row, offset, length, crc32 in span.rows:
        part = content if length < 0 else content[offset - span.start : offset - span.start + length]
        if length >= 0 and len(part) != length:
            yield Payload(row, b"", "the object is shorter than it was")
        elif crc32 >= 0 and zlib.crc32(part) != crc32:
            yield Payload(row, b"", "its bytes are not those that were encoded (checksum)")
        else:
            yield Payload(row, part)


def _spans(table: pa.Table) -> list[_Span]:
    """Put neighbours together."""
    spans: list[_Span] = []
    columns = (table[name].to_pylist() for name in ("object", "version", "offset", "length", "crc32"))
    for row, (name, version, offset, length, crc32) in enumerate(zip(*columns, strict=True)):
        entry = (row, offset, length, crc32)
        if length < 0:
            spans.append(_Span(name, version, 0, None, (entry,)))
            continue
        last = spans[-1] if spans else None
        if (
            last is not None
            and last.stop is not None
            and (last.object, last.version) == (name, version)
            and 0 <= offset - last.stop <= _GAP_BYTES
            and offset + length - last.start <= _SPAN_BYTES
        ):
            spans[-1] = _Span(name, version, last.start, offset + length, (*last.rows, entry))
        else:
            spans.append(_Span(name, version, offset, offset + length, (entry,)))
    return spans
