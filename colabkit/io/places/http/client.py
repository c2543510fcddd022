"""The client that asks a bucket once: its interface, and the one kind of fault that every client tells."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Protocol

from colabkit.io.places.place import Found, StoredObject


class Fault(Exception):
    """One request that failed, in words free of secrets. `cause` is what to call it; what is not known is empty."""

    def __init__(
        self,
        cause: str,
        *,
        status: int = 0,
        code: str = "",
        kind: str = "",
        region: str = "",
        wait_seconds: float | None = None,
    ):
        super().__init__(cause)
        self.cause, self.status, self.code, self.kind = cause, status, code, kind
        self.region, self.wait_seconds = region, wait_seconds


class Client(Protocol):
    """Asks one bucket, once a call. Keys are whole.

    All methods raise Fault; its kinds are "condition" (somebody was first), "absent", "certificate", "name", "settings"
    and "" for what the status tells.
    """

    without_ranges: bool  # the store sent whole objects where a range was asked for; they were cut here

    def page(self, prefix: str, after: str) -> list[StoredObject]:
        """Return the next objects below a prefix, by their keys, in order; none at the end."""

    def head(self, key: str) -> StoredObject:
        """Return size and version."""

    def get(self, key: str, start: int, stop: int | None, version: str) -> Found:
        """Return bytes start..stop, fewer where it is shorter; a "condition" when the given version is another one."""

    def put(self, key: str, content: bytes, *, only_if_absent: bool, only_if_version: str) -> str:
        """Write an object at once and return its version."""

    def put_parts(self, key: str, content: bytes | Path, part_bytes: int) -> str:
        """Write a large object in parts, some of them at a time, and return its version."""

    def delete(self, key: str) -> None:
        """Remove an object."""


def read_range(
    client: Client, ask: Callable[[dict[str, str]], tuple[dict[str, str], bytes]], start: int, stop: int | None
) -> tuple[dict[str, str], bytes]:
    """Return the fields and bytes start..stop of what `ask(headers)` answers, none behind the end.

    Where the store sends the whole object it is cut here, and the client remembers it.
    """
    if not start and stop is None:
        return ask({})
    try:
        fields, body = ask({"range": f"bytes={start}-{'' if stop is None else stop - 1}"})
    except Fault as fault:
        if fault.status == 416:
            return {}, b""
        raise
    if "content-range" not in fields:
        client.without_ranges, body = True, body[start:stop]
    return fields, body


def seconds_of(date: str) -> float:
    """Return a date of ISO 8601 in seconds since 1970, 0 for none."""
    try:
        return datetime.fromisoformat(date).timestamp()
    except ValueError:
        return 0.0
