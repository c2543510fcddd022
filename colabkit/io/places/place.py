"""Places as protocols: a store is listed and read, objects are listed, read and written, one whole object at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from colabkit.core.errors import StateError
from colabkit.io.places.http.client import StoredObject


class Taken(StateError):
    """The object is there already, or has another version than the one to be replaced: nothing was written."""


def taken(name: str, address: str, *, absent: bool) -> Taken:
    """Return the error for an object of this name; `absent` says that none was wanted there."""
    return Taken("Nothing was written: the object is there already" if absent else
                 "Nothing was written: the object has another version by now", got=name, where=address,
                 fix="read what is there and decide anew: another worker was faster")


class Store(Protocol):
    """A place that is listed and read. Safe for many threads; goes to other processes, where it opens its own connections.

    `address` is pinned and free of secrets: opening it again gives the same content or an error.
    """

    address: str

    def list(self) -> list[StoredObject]:
        """Return everything below the root, sorted by name; hidden files and folders are left out."""

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        """Return bytes start..stop, or to the end. Raises: DataError when not exactly these can be had."""

    def close(self) -> None:
        """Give back connections and open files; a later read opens them again."""


def is_hidden(name: str) -> bool:
    """Tell whether a name, or a folder in it, begins with a dot; what colabkit has not finished writing does too."""
    return name.startswith(".") or "/." in name


class Objects(Protocol):
    """Objects below an address. Safe for many threads. `address` is free of secrets. Names are relative to it, "/" between.

    Passing faults (503, resets, timeouts) are retried inside with Patience until Unreachable. Other errors of all methods:
    UsageError for missing rights or keys that are not accepted (never with a secret in it), DataError.
    """

    address: str

    def below(self, prefix: str) -> Objects:
        """Return the objects below a prefix of these."""

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Yield what is below a prefix, sorted by name, page by page."""

    def find(self, name: str) -> StoredObject | None:
        """Return size and version (ETag) of an object, None when it is not there."""

    def get(self, name: str, start: int = 0, stop: int | None = None, *, version: str = "") -> bytes:
        """Return bytes start..stop. Raises: DataError when it is not there, ChangedError when it is another version."""

    def get_if_there(self, name: str) -> tuple[bytes, str] | None:
        """Return content and version, None when it is not there."""

    def put(self, name: str, content: bytes | Path, *, only_if_absent: bool = False, only_if_version: str = "") -> str:
        """Write an object whole and return its version; large ones in parts.

        Raises: Taken when `only_if_absent` and it is there, or `only_if_version` and it has another version.
        """

    def delete(self, name: str) -> None:
        """Remove an object; one that is not there is none. Raises: UsageError without the right to."""
