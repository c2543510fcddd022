"""A place as a protocol: objects below an address, listed, read by ranges, and where that may be, written whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from colabkit.core.errors import DataError, StateError


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object: `name` below the place's root with "/" between the parts; `version` changes when the content does.

    `stored_seconds` is when a listing says that it was written, by the place's own clock, since 1970; 0 where none says
    so.
    """

    name: str
    size: int
    version: str
    stored_seconds: float = field(default=0.0, compare=False)


class Found(NamedTuple):
    """What was read, and the version it is of; "" where the place tells none with what it sends."""

    content: bytes
    version: str


class Taken(StateError):
    """The object is there already, or has another version than the one to be replaced: nothing was written."""


def taken(name: str, address: str, *, absent: bool) -> Taken:
    """Return the error for an object of this name; `absent` says that none was wanted there."""
    return Taken(
        "Nothing was written: the object is there already"
        if absent
        else "Nothing was written: the object has another version by now",
        got=name,
        where=address,
        fix="read what is there and decide anew: another worker was faster",
    )


class Place(Protocol):
    """Objects below an address. `address` is free of secrets; names are relative to it, with "/" between their parts.

        place = open_place("s3://my-bucket/speech")                    # nothing is asked yet
        sizes = {found.name: found.size for found in place.list()}     # all, by name; place.list("train") the half
        header = place.get("train/0000.tar", 0, 512)                   # one request for these bytes
        version = place.put("claims/7", b"mine", only_if_absent=True)  # of all who try, one; Taken for the others
        place.below("train").find("0000.tar")                          # None when it is not there

    Safe for many threads; goes to other processes, where it opens its own connections (started by spawn: what reads
    buckets refuses to work in a forked one). Passing faults (503, resets, time-outs) are tried again inside with
    Patience until Unreachable. Other errors of all methods: UsageError for missing rights or keys that are not accepted
    (never with a secret in it), DataError, StateError for the disk.
    """

    address: str

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.address!r})"

    def below(self, prefix: str) -> Place:
        """Return what is below a prefix, as a place of its own."""

    def must_exist(self) -> None:
        """Ask once whether there is such a place to read from. Raises: UsageError."""

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Yield what is below a prefix, sorted by name, page by page; hidden files and folders are left out."""

    def find(self, name: str) -> StoredObject | None:
        """Return size and version of an object, None when it is not there."""

    def get(self, name: str, start: int = 0, stop: int | None = None, *, version: str = "") -> bytes:
        """Return bytes start..stop, or to the end.

        Raises: DataError when it is not there, or shorter; ChangedError when a version is given and it is another one.
        """
        found = self.get_if_there(name, start, stop, version=version)
        if found is None:
            raise DataError(
                "There is no such object", got=name, where=self.address, fix="list what is there, or make it first"
            )
        if stop is not None and len(found.content) != stop - start:
            raise DataError(
                "An object is shorter than what was asked of it",
                got=f"{name}: {start + len(found.content)} bytes",
                expected=f"{stop} bytes",
                where=self.address,
                fix="make it again: it was cut, or is another one by now",
            )
        return found.content

    def get_if_there(self, name: str, start: int = 0, stop: int | None = None, *, version: str = "") -> Found | None:
        """Return bytes start..stop, fewer where the object ends before, and their version; None if it is not there."""

    def put(self, name: str, content: bytes | Path, *, only_if_absent: bool = False, only_if_version: str = "") -> str:
        """Write an object whole and return its version; large ones in parts.

        Raises: Taken when `only_if_absent` and it is there, or `only_if_version` and it has another version; UsageError
        where nothing can be written at all, as into a dataset of the Hub.
        """

    def delete(self, name: str) -> None:
        """Remove an object; one that is not there is none. Raises: UsageError without the right to."""

    def close(self) -> None:
        """Give back connections and open files of this process; a later call opens them again."""
