"""Pages of a Parquet column chunk: bytes read front to back in windows, page headers, levels and indices.

Source: https://parquet.apache.org/docs/file-format/ and parquet.thrift of that project.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from colabkit.core.errors import DataError
from colabkit.io.samples.parquet.thrift_compact import number, read_struct, read_varint

Read = Callable[[int, int], bytes]  # (start, stop) -> these bytes of the file
# offset, length, codec, inflated, skip, size: a ValueAddress without its row
Place = tuple[int, int, str, int, int, int]

DATA_PAGE, INDEX_PAGE, DICTIONARY_PAGE, DATA_PAGE_V2 = range(4)
ENCODINGS = (
    "PLAIN",
    "GROUP_VAR_INT",
    "PLAIN_DICTIONARY",
    "RLE",
    "BIT_PACKED",
    "DELTA_BINARY_PACKED",
    "DELTA_LENGTH_BYTE_ARRAY",
    "DELTA_BYTE_ARRAY",
    "RLE_DICTIONARY",
    "BYTE_STREAM_SPLIT",
)
_HEADER_BYTES = (1 << 12, 1 << 20)  # a first look, then the most a header may take (writers drop statistics over 4 KiB)
_MIN_WINDOW_BYTES = 1 << 16
_BLOCK_VALUES = 1 << 13


class FileRun:
    """A stretch of a file that is read once, front to back; holds a window of it, or two while it moves on."""

    def __init__(self, read: Read, start: int, stop: int, *, window_bytes: int, name: str):
        self.read, self.stop, self.name = read, stop, name
        self.window_bytes = max(window_bytes, _MIN_WINDOW_BYTES)
        self.data, self.at = b"", 0  # the window, and how much of it is used
        self._base = start  # where the window begins in the file

    @property
    def position(self) -> int:
        """Where the next byte lies in the file."""
        return self._base + self.at

    def take(self, num_bytes: int) -> bytes:
        """Return the next bytes; DataError where the run ends before."""
        end = self.at + num_bytes
        if end <= len(self.data):
            piece = self.data[self.at : end]
            self.at = end
            return piece
        if num_bytes > self.stop - self.position:
            raise self.fault(f"{num_bytes} bytes announced", f"at most {self.stop - self.position}")
        gathered = io.BytesIO()  # grows in place: a value is never held twice
        while num_bytes:
            if self.at == len(self.data):
                self.extend()
            piece = memoryview(self.data)[self.at : self.at + num_bytes]
            gathered.write(piece)
            self.at += len(piece)
            num_bytes -= len(piece)
        return gathered.getvalue()

    def peek(self, num_bytes: int) -> bytes:
        """Return the next bytes without using them; fewer where the run ends."""
        while len(self.data) - self.at < num_bytes and self.extend():
            pass
        return self.data[self.at : self.at + num_bytes]

    def extend(self) -> bool:
        """Read another window behind what is not used yet; False at the end of the run."""
        start = self._base + len(self.data)
        if start >= self.stop:
            return False
        unused, self._base = self.data[self.at :], self.position
        self.data, self.at = b"", 0  # let go of the old window first
        self.data = unused + read_exactly(self.read, start, min(start + self.window_bytes, self.stop), self.name)
        return True

    def skip_to(self, position: int) -> None:
        """Go on at a later place of the file; what lies between and is not read yet is never read."""
        if position <= self._base + len(self.data):
            self.at = position - self._base
        else:
            self.data, self.at, self._base = b"", 0, position

    def split(self, stop: int) -> FileRun:
        """Give what comes before `stop` to a run of its own and go on behind it."""
        first = FileRun(self.read, self.position, stop, window_bytes=self.window_bytes, name=self.name)
        first._base, first.at = self._base, self.at
        first.data = self.data if self._base + len(self.data) <= stop else self.data[: stop - self._base]
        self.skip_to(stop)
        return first

    def fault(self, got: str, expected: str = "") -> DataError:
        """Return the error for bytes that make no sense here."""
        return damaged(self.name, got, expected, at=self.position)


def read_exactly(read: Read, start: int, stop: int, name: str) -> bytes:
    """Read bytes start..stop of a file; DataError when it gives another number of them."""
    data = read(start, stop) if stop > start else b""
    if len(data) != stop - start:
        raise damaged(name, f"{len(data)} bytes", f"{stop - start}: the file is shorter than it was", at=start)
    return data


def damaged(name: str, got: str, expected: str = "", at: int | None = None) -> DataError:
    """Return the error for a file whose bytes make no sense."""
    where = ", ".join(filter(None, [name, "" if at is None else f"byte {at}"]))
    return DataError(
        "The Parquet file is damaged or cut short",
        got=got,
        expected=expected,
        where=where,
        fix="copy or download the file again",
    )


@dataclass(frozen=True, slots=True)
class PageHeader:
    """What a page says of itself; the sizes are those of the page without its header."""

    kind: int
    inflated_bytes: int
    stored_bytes: int
    num_values: int = 0
    encoding: int = 0
    level_encoding: int = 3
    definition_bytes: int = 0  # of version 2, whose levels lie before the compressed values
    repetition_bytes: int = 0
    is_compressed: bool = True


def read_page_header(run: FileRun) -> PageHeader:
    """Read the page header that begins here; the run then stands at the page itself."""
    for most in _HEADER_BYTES:
        head = run.peek(most)
        try:
            fields, end = read_struct(head)
            header = _page_header(fields)
            if header.stored_bytes > run.stop - run.position - end:
                raise run.fault(f"a page of {header.stored_bytes} bytes", f"at most {run.stop - run.position - end}")
            run.at += end
            return header
        except IndexError:  # the header goes on behind what was looked at
            if len(head) < most:
                break
        except ValueError as error:
            raise run.fault(f"a page header with {error}") from error
    raise run.fault("a page header that does not end")


def _page_header(fields: dict) -> PageHeader:
    kind, sizes = number(fields, 1), {"inflated_bytes": number(fields, 2), "stored_bytes": number(fields, 3)}
    more = fields.get({DATA_PAGE: 5, DICTIONARY_PAGE: 7, DATA_PAGE_V2: 8}.get(kind))
    if kind not in (DATA_PAGE, DICTIONARY_PAGE, DATA_PAGE_V2):
        return PageHeader(kind, **sizes)
    if not isinstance(more, dict):
        raise ValueError(f"page type {kind} and nothing about it")
    if kind == DATA_PAGE_V2:
        header = PageHeader(
            kind,
            **sizes,
            num_values=number(more, 1),
            encoding=number(more, 4),
            definition_bytes=number(more, 5),
            repetition_bytes=number(more, 6),
            is_compressed=more.get(7, True) is True,
        )
        if header.definition_bytes + header.repetition_bytes > min(header.stored_bytes, header.inflated_bytes):
            raise ValueError("levels larger than the page")
        return header
    return PageHeader(
        kind,
        **sizes,
        num_values=number(more, 1),
        encoding=number(more, 2),
        level_encoding=number(more, 3) if kind == DATA_PAGE else 3,
    )


def decode_runs(data: bytes, width: int, num_values: int, run: FileRun) -> Iterator[int]:
    """Yield levels or dictionary indices of `width` bits from runs and bit-packed groups (the RLE hybrid encoding)."""
    at, weights = 0, 1 << np.arange(width, dtype=np.int64)
    if width == 0:
        yield from itertools.repeat(0, num_values)
        return
    while num_values:
        try:
            head, at = read_varint(data, at)
        except (IndexError, ValueError):
            raise run.fault(f"{num_values} levels or indices too few in the page") from None
        if head & 1:
            packed = data[at : at + (head >> 1) * width]
            at += len(packed)
            block = _BLOCK_VALUES // 8 * width
            for begin in range(0, len(packed), block):
                bits = np.unpackbits(np.frombuffer(packed[begin : begin + block], np.uint8), bitorder="little")
                values = (bits[: bits.size // width * width].reshape(-1, width) @ weights)[:num_values].tolist()
                num_values -= len(values)
                yield from values
        else:
            value = int.from_bytes(data[at : at + (width + 7) // 8], "little")
            at += (width + 7) // 8
            repeats = min(head >> 1, num_values)
            num_values -= repeats
            yield from itertools.repeat(value, repeats)
