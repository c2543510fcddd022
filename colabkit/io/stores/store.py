"""What every store is: a place that is listed and read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object: `name` below the store's root with "/" between the parts; `version` changes when the content does."""

    name: str
    size: int
    version: str


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
