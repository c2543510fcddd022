"""Single values of a binary Parquet column, such as the `bytes` of Hugging Face audio, by ranges of bytes.

A scan reads the column once, in windows, whatever the size of its row groups and pages, and tells for each value which
stored bytes to fetch to get it again. These are the value itself in an uncompressed page, the 64 KiB fragments that
hold it in a snappy page, and the whole page for other codecs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from colabkit.core.errors import DataError, UsageError
from colabkit.io.samples.parquet.bodies import Body, fetch_place, open_body
from colabkit.io.samples.parquet.footer import BYTE_ARRAY, Chunk, Column, read_footer, type_name
from colabkit.io.samples.parquet.pages import (
    DATA_PAGE,
    DATA_PAGE_V2,
    DICTIONARY_PAGE,
    ENCODINGS,
    FileRun,
    PageHeader,
    Place,
    Read,
    damaged,
    decode_runs,
    read_page_header,
)

_CODECS = {0: "", 1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd", 7: "lz4"}
_OTHER_CODECS = {3: "LZO", 5: "LZ4 in Hadoop's frames"}
_REWRITE = (
    "write the file again, in Python: import pyarrow.parquet as pq; "
    "pq.write_table(pq.read_table('OLD.parquet'), 'NEW.parquet', row_group_size=100, compression='none')"
)
_EMPTY: Place = (0, 0, "", 0, 0, 0)


@dataclass(frozen=True, slots=True)
class ValueAddress:
    """How to get one value again: fetch `length` bytes at `offset`, decompress them, leave out `skip` bytes."""

    row: int  # in the file
    offset: int
    length: int
    codec: str  # "": the stored bytes are the value itself
    inflated: int  # bytes after decompression
    skip: int
    size: int  # bytes of the value


def scan_values(
    read: Read,
    size: int,
    column: tuple[str, ...],
    *,
    row_groups: Sequence[int] | None = None,
    window_bytes: int = 8 << 20,
    name: str = "",
) -> Iterator[tuple[ValueAddress | None, bytes | None]]:
    """Yield the address and the bytes of each row's value, in order; (None, None) for a null.

    `read(start, stop)` returns bytes of the file, `size` is the file's, `name` what messages call it. Memory stays
    within the value and some windows, save for lz4 pages and snappy pages of rare writers, which are held whole. Values
    that repeat across more than a window of a dictionary are read again. Raises DataError for damage, a missing column,
    and encodings that are not supported.
    """
    footer = read_footer(read, size, name)
    leaf = _checked(footer.find(column), name)
    num_groups = len(footer.row_groups)
    firsts = [0, *itertools.accumulate(map(footer.num_rows, range(num_groups)))]
    for group in range(num_groups) if row_groups is None else row_groups:
        if not 0 <= group < num_groups:
            raise UsageError(
                "No such row group",
                got=group,
                expected=f"0 to {num_groups - 1}",
                where=name,
                fix="pass numbers of row groups that the file has",
            )
        chunk, num_rows = footer.chunk(group, leaf), footer.num_rows(group)
        place_name = f"{name}, row group {group}" if name else f"row group {group}"
        if chunk.num_values != num_rows:
            raise damaged(place_name, f"{chunk.num_values} values", f"{num_rows}, one a row")
        run = FileRun(read, chunk.start, chunk.stop, window_bytes=window_bytes, name=place_name)
        values = _values_of_chunk(run, _codec(chunk, name), num_rows, leaf.max_definition_level)
        row = firsts[group]
        for place, value in values:
            yield (None if place is None else ValueAddress(row, *place)), value
            del value  # else two would be held while the next is read
            row += 1


def fetch_value(read: Read, address: ValueAddress, name: str = "") -> bytes:
    """Read one value by one range; DataError where it does not decompress to what the address says."""
    place = address.offset, address.length, address.codec, address.inflated, address.skip, address.size
    return fetch_place(read, place, name)


def _checked(column: Column, name: str) -> Column:
    what = f"Cannot read single values of column {'.'.join(column.path)}"
    if column.max_repetition_level:
        raise DataError(
            what,
            got="a list in each row",
            expected="one value in each row",
            where=name,
            fix="write the file again with one value in each row",
        )
    if column.kind != BYTE_ARRAY:
        raise DataError(what, got=type_name(column.kind), expected="BYTE_ARRAY", where=name, fix="name a binary column")
    return column


def _codec(chunk: Chunk, name: str) -> str:
    if chunk.codec not in _CODECS:
        got = _OTHER_CODECS.get(chunk.codec, chunk.codec)
        raise DataError(
            "Cannot read this compression",
            got=got,
            expected="none, snappy, gzip, brotli, zstd or lz4 (raw)",
            where=name,
            fix=_REWRITE,
        )
    return _CODECS[chunk.codec]


def _values_of_chunk(
    run: FileRun, codec: str, num_rows: int, deepest: int
) -> Iterator[tuple[Place | None, bytes | None]]:
    dictionary = None
    if not num_rows:
        return
    while num_rows:
        header = read_page_header(run)
        stop = run.position + header.stored_bytes
        if header.kind == DICTIONARY_PAGE:
            if dictionary or header.encoding not in (0, 2):
                raise run.fault(
                    "a second dictionary page" if dictionary else f"a dictionary in encoding {header.encoding}"
                )
            dictionary = Dictionary(run.split(stop), stop, codec, header)
        elif header.kind in (DATA_PAGE, DATA_PAGE_V2):
            if header.num_values > num_rows:
                raise run.fault(f"a page of {header.num_values} values", f"at most {num_rows}")
            num_rows -= header.num_values
            body, is_there = _open_page(run, header, stop, codec, deepest)
            values = _dictionary_values if header.encoding in (2, 8) else _plain_values
            yield from values(run, header, body, is_there, dictionary)
            body.finish()
        else:
            run.skip_to(stop)  # the format asks readers to pass over pages they do not know
    if run.position != run.stop:
        raise run.fault(f"{run.stop - run.position} bytes left over behind the last page")


def _open_page(run: FileRun, header: PageHeader, stop: int, codec: str, deepest: int) -> tuple[Body, Iterator[bool]]:
    """Return the page's values as they are stored, without the nulls, and for each row whether it has one."""
    if header.encoding not in (0, 2, 8) or header.level_encoding != 3 and deepest:
        bad = header.level_encoding if header.encoding in (0, 2, 8) else header.encoding
        raise DataError(
            "Cannot read this encoding",
            got=ENCODINGS[bad] if bad < len(ENCODINGS) else bad,
            where=run.name,
            expected="PLAIN or RLE_DICTIONARY values with RLE levels",
            fix=_REWRITE,
        )
    inflated = header.inflated_bytes
    if header.kind == DATA_PAGE_V2:
        run.take(header.repetition_bytes)
        levels = run.take(header.definition_bytes)
        inflated -= header.definition_bytes + header.repetition_bytes
    body = open_body(run, stop, codec if header.is_compressed else "", inflated)
    if header.kind == DATA_PAGE and deepest:
        levels = body.take(int.from_bytes(body.take(4), "little"))
    if not deepest:
        return body, itertools.repeat(True, header.num_values)
    return body, _are_there(run, decode_runs(levels, deepest.bit_length(), header.num_values, run), deepest)


def _are_there(run: FileRun, levels: Iterator[int], deepest: int) -> Iterator[bool]:
    for level in levels:
        if level > deepest:
            raise run.fault(f"a definition level of {level}", f"at most {deepest}")
        yield level == deepest


def _plain_values(run: FileRun, header: PageHeader, body: Body, is_there: Iterator[bool], _: object) -> Iterator:
    for there in is_there:
        yield _next_plain(body) if there else (None, None)


def _next_plain(body: Body) -> tuple[Place, bytes]:
    size = int.from_bytes(body.take(4), "little")
    return body.take_value(size) if size else (_EMPTY, b"")


def _dictionary_values(
    run: FileRun, header: PageHeader, body: Body, is_there: Iterator[bool], dictionary: Any
) -> Iterator:
    if dictionary is None:
        raise run.fault("a page that needs a dictionary, and none before it")
    if not body.left:  # nothing but nulls
        width, packed = 0, b""
    else:
        width, packed = body.take(1)[0], body.take(body.left)
    if width > 32:
        raise run.fault(f"indices of {width} bits", "at most 32")
    indices = decode_runs(packed, width, header.num_values, run)
    for there in is_there:
        yield dictionary.get(next(indices)) if there else (None, None)


class Dictionary:
    """The dictionary page of a chunk, read as far as the rows ask for; it is met in the order of the rows.

    Writers number values as they first appear, so that a scan goes through it front to back, as large as it may be.
    Values that appear again come from the last ones, or are fetched again.
    """

    def __init__(self, run: FileRun, stop: int, codec: str, header: PageHeader):
        self._run, self._num_values = run, header.num_values
        self._body = open_body(run, stop, codec, header.inflated_bytes)
        self._places: list[Place] = []
        self._last: dict[int, bytes] = {}
        self._last_bytes = 0

    def get(self, index: int) -> tuple[Place, bytes]:
        """Return where an entry lies and its bytes."""
        if index >= self._num_values:
            raise self._run.fault(f"dictionary entry {index}", f"below {self._num_values}")
        while len(self._places) <= index:
            self._read_next()
        place, value = self._places[index], self._last.get(index)
        return place, fetch_place(self._run.read, place, self._run.name) if value is None else value

    def _read_next(self) -> None:
        while self._last and self._last_bytes > self._run.window_bytes:  # before the next comes into memory
            self._last_bytes -= len(self._last.pop(next(iter(self._last))))
        place, value = _next_plain(self._body)
        self._last[len(self._places)] = value
        self._last_bytes += len(value)
        self._places.append(place)
        if len(self._places) == self._num_values:
            self._body.finish()
