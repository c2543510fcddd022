"""A file to seek in, over anything that gives byte ranges."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

WINDOW_BYTES = 256 << 10


class RangeFile(io.RawIOBase):
    """Reads [start, stop) of `size` bytes through `read`, a window at a time, and keeps the last window.

    `failure` is what `read` raised last: decoders written in C do not pass it on.
    """

    def __init__(self, read: Callable[[int, int], bytes], size: int, name: str, *, window_bytes: int = WINDOW_BYTES):
        super().__init__()
        self._ask, self.size, self.name, self.window_bytes = read, size, name, window_bytes
        self._position = 0
        self._first, self._window = 0, b""
        self.failure: Exception | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}.get(whence)
        if base is None or base + offset < 0:
            raise ValueError(f"position {offset} from {whence} of {self.name}")
        self._position = base + offset
        return self._position

    def readall(self) -> bytes:
        return self.read(max(0, self.size - self._position))

    def read(self, count: int | None = -1) -> bytes:
        if count is None or count < 0:
            return self.readall()
        content = self.between(self._position, min(self._position + count, self.size))
        self._position += len(content)
        return content

    def readinto(self, buffer: Any) -> int:
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def between(self, start: int, stop: int) -> bytes:
        """Return bytes [start, stop) without moving."""
        if stop <= start:
            return b""
        first = self._first
        if first <= start and stop <= first + len(self._window):
            return self._window[start - first : stop - first]
        if stop - start >= self.window_bytes:
            return self._read(start, stop)
        window = self._read(start, min(start + self.window_bytes, self.size))
        self._first, self._window = start, window
        return window[: stop - start]

    def _read(self, start: int, stop: int) -> bytes:
        try:
            return self._ask(start, stop)
        except Exception as error:
            self.failure = error
            raise
