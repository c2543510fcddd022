"""Snappy data cut into fragments that decompress by themselves.

Compressors of raw snappy work on 64 KiB of input at a time and never look back into the fragment before (Google's,
which Arrow, DuckDB and the Java, Rust and Go ports follow; the format does not demand it). So some fragments of a huge
page are as good as the page for what lies in them. Where they end is found by walking over the elements: literals
and copies.

Source: https://github.com/google/snappy/blob/main/format_description.txt
"""

from __future__ import annotations

import io

from colabkit.io.samples.parquet.pages import FileRun, Place, read_exactly
from colabkit.io.samples.parquet.thrift_compact import read_varint

FRAGMENT_BYTES = 1 << 16  # of decompressed data
MOST_GROWTH = 22  # three bytes copy at most 64, so data decompresses to less than this many times its size
_PREAMBLE_BYTES = 5
_LONG = 1 << 40  # marks literals whose length stands in the bytes behind the tag; ends the fast loop


def _tables() -> tuple[list[int], list[int]]:
    """For each tag: bytes from it to the next tag, bytes it makes."""
    steps, makes = [], []
    for tag in range(256):
        kind, high = tag & 3, tag >> 2
        if kind == 0:
            steps.append(high + 2 if high < 60 else 1)
            makes.append(high + 1 if high < 60 else _LONG)
        else:
            steps.append((0, 2, 3, 5)[kind])
            makes.append((high & 7) + 4 if kind == 1 else high + 1)
    return steps, makes


_STEPS, _MAKES = _tables()


def walk(data: bytes, at: int, made: int, goal: int) -> tuple[int, int]:
    """Go over elements from the tag at `at` until `goal` bytes are made or the data ends before the next tag.

    Returns where the next tag is, which may be behind the end of the data, and the bytes made so far.
    """
    steps, makes = _STEPS, _MAKES
    while made < goal:
        try:
            while made < goal:  # 50 ns an element: 100 MB/s on text, 200 on speech, thousands on what does not compress
                tag = data[at]
                at += steps[tag]
                made += makes[tag]
        except IndexError:
            break
        if made >= _LONG:
            num_more = (tag >> 2) - 59
            if at + num_more > len(data):
                return at - 1, made - _LONG
            length = int.from_bytes(data[at : at + num_more], "little") + 1
            at += num_more + length
            made += length - _LONG
    return at, made


def read_preamble(head: bytes) -> tuple[int, int]:
    """Return how many bytes the data decompresses to and how many bytes say so; ValueError where that is nonsense."""
    try:
        size, end = read_varint(head[:_PREAMBLE_BYTES], 0)
    except IndexError:
        raise ValueError("no length before the snappy data") from None
    return size, end


def preamble(size: int) -> bytes:
    """Return what stands before elements that make `size` bytes."""
    out = bytearray()
    while size > 127:
        out.append(size & 127 | 128)
        size >>= 7
    out.append(size)
    return bytes(out)


class SnappyBody:
    """A snappy page, decompressed fragment by fragment; falls back to the whole page where a fragment needs another."""

    def __init__(self, run: FileRun, stop: int, inflated: int):
        import pyarrow as pa

        self._run, self._stop, self._inflated = run, stop, inflated
        self._codec, self._damage = pa.Codec("snappy"), (OSError, pa.ArrowException)
        self._begin = 0  # where the elements begin in the file, behind the preamble; 0: not read yet
        self._fragment, self._used, self._made_before, self._offset = b"", 0, 0, 0
        self._is_whole = False

    @property
    def left(self) -> int:
        """Decompressed bytes not taken yet."""
        return self._inflated - self._made_before - self._used

    def take(self, num_bytes: int) -> bytes:
        """Return the next decompressed bytes."""
        return self.take_value(num_bytes)[1]

    def take_value(self, size: int) -> tuple[Place, bytes]:
        """Return the next decompressed bytes and how to get them again."""
        if size > self.left:
            raise self._run.fault(f"{size} bytes announced", f"at most {self.left} in this page")
        if size and self._used == len(self._fragment):
            self._next_fragment()
        start, offset, before = self._made_before + self._used, self._offset, self._made_before
        value = self._fragment[self._used : self._used + size]
        self._used += len(value)
        if len(value) < size:
            gathered = io.BytesIO()
            gathered.write(value)
            while gathered.tell() < size:
                self._next_fragment()
                self._used += gathered.write(memoryview(self._fragment)[self._used :][: size - gathered.tell()])
            value = gathered.getvalue()
        if self._is_whole:
            return (self._begin, self._stop - self._begin, "snappy", self._inflated, start, size), value
        inflated = self._made_before + len(self._fragment) - before
        return (offset, self._run.position - offset, "snappy", inflated, start - before, size), value

    def finish(self) -> None:
        """Move on to what follows the page; DataError where something is left of it."""
        if self.left or self._begin and self._run.position != self._stop:
            raise self._run.fault(f"{self.left or self._stop - self._run.position} bytes left over in a page")
        self._run.skip_to(self._stop)

    def _next_fragment(self) -> None:
        run = self._run
        if not self._begin:
            self._read_preamble()
        self._made_before += len(self._fragment)
        self._fragment, self._used, self._offset = b"", 0, run.position
        goal = min(FRAGMENT_BYTES, self._inflated - self._made_before)
        length = self._find_end(goal)
        if length:
            elements = run.take(length)
            try:
                self._fragment = self._codec.decompress(preamble(goal) + elements, goal, asbytes=True)
                return
            except self._damage:
                pass  # a copy from before the fragment, or damage: the whole page will tell
        self._take_whole()

    def _find_end(self, goal: int) -> int:
        """Return the length of the elements that make `goal` bytes; 0 where none make exactly these."""
        run, length, made = self._run, 0, 0
        while True:
            at, made = walk(run.data, run.at + length, made, goal)
            length = at - run.at
            if made >= goal or run.position + length >= self._stop:
                return length if made == goal and run.position + length <= self._stop else 0
            if not run.extend():
                return 0

    def _take_whole(self) -> None:
        page = preamble(self._inflated) + read_exactly(self._run.read, self._begin, self._stop, self._run.name)
        try:
            self._fragment = self._codec.decompress(page, self._inflated, asbytes=True)
        except self._damage as error:
            raise self._run.fault(f"snappy data that does not decompress ({error})") from error
        self._used, self._made_before, self._is_whole = self._made_before, 0, True
        self._run.skip_to(self._stop)

    def _read_preamble(self) -> None:
        run = self._run
        try:
            size, num_bytes = read_preamble(run.peek(_PREAMBLE_BYTES)[: self._stop - run.position])
        except ValueError as error:
            raise run.fault(str(error)) from error
        if size != self._inflated or size > MOST_GROWTH * (self._stop - run.position):
            raise run.fault(
                f"snappy data of {size} bytes", f"{self._inflated}, from {self._stop - run.position} stored"
            )
        run.take(num_bytes)
        self._begin = run.position
