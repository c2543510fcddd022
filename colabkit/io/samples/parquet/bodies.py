"""Bodies of Parquet pages, by codec: decompressed bytes in order, and how to get them again."""

from __future__ import annotations

import io
from typing import BinaryIO, Protocol

from colabkit.io.samples.parquet.pages import FileRun, Place, Read, damaged, read_exactly
from colabkit.io.samples.parquet.snappy_blocks import MOST_GROWTH, SnappyBody, preamble

_AT_ONCE = {"lz4": ("lz4_raw", 256), "snappy": ("snappy", MOST_GROWTH)}  # Arrow's name, the most that data grows
_PIECE_BYTES = 1 << 20


class Body(Protocol):
    """The values of a page (before version 2 with the levels in front), taken once, front to back."""

    @property
    def left(self) -> int:
        """Decompressed bytes not taken yet."""

    def take(self, num_bytes: int) -> bytes:
        """Return the next decompressed bytes; DataError where the page ends before."""

    def take_value(self, size: int) -> tuple[Place, bytes]:
        """Return the next decompressed bytes and how to get them again."""

    def finish(self) -> None:
        """Move on to what follows the page; DataError where something is left of it."""


def open_body(run: FileRun, stop: int, codec: str, inflated: int) -> Body:
    """Return what lies from here to `stop`, which decompresses to `inflated` bytes."""
    if not codec:
        return PlainBody(run, stop)
    if codec == "snappy":
        return SnappyBody(run, stop, inflated)
    return StreamedBody(run, stop, codec, inflated)


def fetch_place(read: Read, place: Place, name: str) -> bytes:
    """Read and decompress what a place says; DataError where something else is there."""
    offset, length, codec, inflated, skip, size = place
    if not size:
        return b""
    # What is read must be let go of before the value is cut out: several fetches of large values run side by side.
    stored = (preamble(inflated) if codec == "snappy" else b"") + read_exactly(read, offset, offset + length, name)
    if not codec:
        return stored
    import pyarrow as pa

    try:
        stream = _open_stream(io.BytesIO(stored), codec, length, inflated)
        del stored
        while skip and (passed := len(stream.read(min(skip, _PIECE_BYTES)))):
            skip -= passed
        value = _read_pieces(stream, size)
    except (OSError, pa.ArrowException) as error:
        raise damaged(name, f"{codec} data that does not decompress ({error})", at=offset) from error
    if len(value) != size:
        raise damaged(name, f"{len(value)} bytes", f"{size}, as when it was indexed", at=offset)
    return value


class PlainBody:
    """An uncompressed page."""

    def __init__(self, run: FileRun, stop: int):
        self._run, self._stop = run, stop

    @property
    def left(self) -> int:
        return self._stop - self._run.position

    def take(self, num_bytes: int) -> bytes:
        if num_bytes > self.left:
            raise self._run.fault(f"{num_bytes} bytes announced", f"at most {self.left} in this page")
        return self._run.take(num_bytes)

    def take_value(self, size: int) -> tuple[Place, bytes]:
        return (self._run.position, size, "", size, 0, size), self.take(size)

    def finish(self) -> None:
        if self.left:
            raise self._run.fault(f"{self.left} bytes left over in a page")


class StreamedBody:
    """A page that decompresses as a stream (zstd, gzip, brotli) or at once (lz4); a value's unit is the whole page."""

    def __init__(self, run: FileRun, stop: int, codec: str, inflated: int):
        self._run, self._stop, self._codec, self._inflated = run, stop, codec, inflated
        self._begin, self._used = run.position, 0
        self._source = _Source(run, stop)
        self._stream: BinaryIO | None = None

    @property
    def left(self) -> int:
        return self._inflated - self._used

    def take(self, num_bytes: int) -> bytes:
        if num_bytes > self.left:
            raise self._run.fault(f"{num_bytes} bytes announced", f"at most {self.left} in this page")
        self._used += num_bytes
        data = self._read(num_bytes)
        if len(data) != num_bytes:
            raise self._run.fault(f"{self._codec} data that ends {num_bytes - len(data)} bytes too early")
        return data

    def take_value(self, size: int) -> tuple[Place, bytes]:
        return (self._begin, self._stop - self._begin, self._codec, self._inflated, self._used, size), self.take(size)

    def finish(self) -> None:
        if self.left or self._stream and self._read(1):  # the read also checks the sum at the end of gzip
            raise self._run.fault("bytes left over in a page")
        self._run.skip_to(self._stop)

    def _read(self, num_bytes: int) -> bytes:
        import pyarrow as pa

        try:
            if self._stream is None:
                self._stream = _open_stream(self._source, self._codec, self._stop - self._begin, self._inflated)
            return _read_pieces(self._stream, num_bytes)
        except (OSError, pa.ArrowException) as error:
            if self._source.failure:  # reading the file failed, not decompressing it
                raise self._source.failure from None
            raise self._run.fault(f"{self._codec} data that does not decompress ({error})") from error


class _Source(io.RawIOBase):
    """The stored bytes of a page as the file that Arrow's decompressors ask for."""

    def __init__(self, run: FileRun, stop: int):
        self._run, self._stop, self.failure = run, stop, None

    def readable(self) -> bool:
        return True

    def read(self, num_bytes: int = -1) -> bytes:
        left = self._stop - self._run.position
        try:
            return self._run.take(left if num_bytes < 0 else min(num_bytes, left))
        except Exception as error:
            self.failure = error
            raise


def _open_stream(source: BinaryIO, codec: str, stored: int, inflated: int) -> BinaryIO:
    import pyarrow as pa

    if codec in _AT_ONCE:
        name, most_growth = _AT_ONCE[codec]
        if inflated > most_growth * (stored + 1):  # else a false length would take the memory
            raise OSError(f"{inflated} bytes from {stored}")
        return pa.BufferReader(pa.Codec(name).decompress(source.read(), inflated))
    return pa.CompressedInputStream(pa.PythonFile(source, mode="r"), codec)


def _read_pieces(stream: BinaryIO, num_bytes: int) -> bytes:
    """Read as much or what there is; a false length costs no memory."""
    if num_bytes <= _PIECE_BYTES:
        return stream.read(num_bytes)
    gathered = io.BytesIO()
    while num_bytes and (piece := stream.read(min(num_bytes, _PIECE_BYTES))):
        num_bytes -= gathered.write(piece)
    return gathered.getvalue()
