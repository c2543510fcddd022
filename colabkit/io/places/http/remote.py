"""Stores read over HTTP, as far as they are alike."""

from __future__ import annotations

from functools import lru_cache

from colabkit.io.places.http.links import Link
from colabkit.io.places.http.per_process import PerProcess
from colabkit.io.places.http.ranges import RangeClient

_MOST_LINKS = 4096  # remembered: each holds one signature, or the place that a redirect led to


class RemoteStore:
    """Reads objects by ranges. A subclass says where an object lies, and lists."""

    def __init__(self, address: str):
        self.address = address
        self._client = RangeClient()
        self._links = PerProcess(self._make_links)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.address!r})"

    def link(self, name: str) -> Link:
        """Return where an object lies."""
        raise NotImplementedError

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        """Return bytes start..stop of an object, or to its end. Raises: as RangeClient.read."""
        return self._client.read(self._links.get()(name), start, stop, f"{name} of {self.address}")

    @property
    def counts(self) -> dict[str, int]:
        """What was read in this process: requests, bytes, retries, resumed, throttled."""
        return self._client.counts

    def close(self) -> None:
        """Close the connections of this process; a later read opens new ones."""
        self._links.drop()
        self._client.close()

    def _make_links(self):
        return lru_cache(_MOST_LINKS)(self.link)
