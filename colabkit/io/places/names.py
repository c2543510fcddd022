"""Names of objects: what may be one, how prefixes join, and which are shown in listings."""

from __future__ import annotations

from colabkit.core.errors import ChangedError, DataError
from colabkit.io.places.place import is_hidden


def unusable_name(name: str, address: str) -> DataError:
    """Return the error for a name that clients of S3 cannot ask for."""
    return DataError("An object has a name that cannot be used", got=name, where=address,
                     expected='names without empty parts, "." and ".." between the slashes',
                     fix="rename it, or give an address below which there is none")


def check_name(name: str, address: str) -> str:
    """Return a name that every kind of place takes. Raises: DataError."""
    parts = name.split("/")
    if not name or "" in parts or "." in parts or ".." in parts or "\0" in name:
        raise DataError("An object has a name that cannot be used", got=name, where=address,
                        expected='names without empty parts, "." and ".." between the slashes', fix="rename it")
    return name


def check_range(name: str, start: int, stop: int | None) -> None:
    """Raise ValueError for a range that cannot be."""
    if start < 0 or (stop is not None and stop < start):
        raise ValueError(f"{name}: there is no range {start}..{stop}")


def joined(prefix: str, name: str) -> str:
    """Join a prefix and what is below it, either of which may be empty."""
    return "/".join(part for part in (prefix.strip("/"), name.strip("/")) if part)


def is_listed(name: str, prefix: str) -> bool:
    """Tell whether listings show an object: not what is hidden below the prefix, nor the markers that consoles make."""
    below = name[len(prefix) + 1:] if prefix else name
    return bool(below) and not name.endswith("/") and not is_hidden(below)


def absent(name: str, address: str) -> DataError:
    """Return the error of an object that is not there."""
    return DataError("There is no such object", got=name, where=address, fix="list what is there, or make it first")


def shorter(name: str, address: str, got: int, expected: int) -> DataError:
    """Return the error of an object that ends before what was asked of it."""
    return DataError("An object is shorter than what was asked of it", got=f"{name}: {got} bytes", expected=f"{expected} bytes",
                     where=address, fix="make it again: it was cut, or is another one by now")


def other_version(name: str, address: str, got: str, expected: str) -> ChangedError:
    """Return the error of an object that is not the one that was meant."""
    return ChangedError("An object changed since it was listed", got=f"{name} in version {got or 'another'}",
                        expected=f"version {expected}", where=address,
                        fix="run the same command again: what was made of the old content is made again")
