"""Bytes in memory that are read by ranges, for tests of readers."""

from __future__ import annotations


class Reads:
    """Bytes in memory that keep the ranges asked for and refuse what lies outside."""

    def __init__(self, content: bytes):
        self.content, self.ranges = content, []

    def __call__(self, start: int, stop: int) -> bytes:
        assert 0 <= start < stop <= len(self.content)
        self.ranges.append((start, stop))
        return self.content[start:stop]
