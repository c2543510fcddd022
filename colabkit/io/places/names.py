"""Names of objects: what may be one, how prefixes join, which are shown; and the errors of objects not as meant."""

from __future__ import annotations

from colabkit.core.errors import ChangedError, DataError

_TO_INDEX_AGAIN = "it changed, or was cut, after it was indexed: index the data again"


def is_hidden(name: str) -> bool:
    """Tell whether a name, or a folder in it, begins with a dot; what colabkit has not finished writing does too."""
    return name.startswith(".") or "/." in name


def unusable_name(name: str, address: str, fix: str = "rename it") -> DataError:
    """Return the error for a name that not every kind of place takes."""
    return DataError(
        "An object has a name that cannot be used",
        got=name,
        where=address,
        expected='names without empty parts, "." and ".." between the slashes',
        fix=fix,
    )


def check_name(name: str, address: str) -> str:
    """Return a name that every kind of place takes. Raises: DataError."""
    parts = name.split("/")
    if not name or "" in parts or "." in parts or ".." in parts or "\0" in name:
        raise unusable_name(name, address)
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
    below = name[len(prefix) + 1 :] if prefix else name
    return bool(below) and not name.endswith("/") and not is_hidden(below)


def other_version(name: str, address: str, got: str, expected: str) -> ChangedError:
    """Return the error of an object that is not the one that was meant."""
    return ChangedError(
        "An object changed since it was listed",
        got=f"{name} in version {got or 'another'}",
        expected=f"version {expected}",
        where=address,
        fix="run the same command again: what was made of the old content is made again",
    )


def vanished(where: str, got: str) -> DataError:
    """Return the error of data that an index speaks of and that is not there."""
    return DataError(
        "The data vanished: it was there when it was indexed",
        got=got,
        where=where,
        fix="put it back or mount its disk again, or index the data again",
    )


def cut_short(where: str, got: str, expected_bytes: int) -> DataError:
    """Return the error of data that ends before what an index says of it."""
    return DataError(
        "The data is shorter than the index says",
        got=got,
        expected=f"at least {expected_bytes} bytes",
        where=where,
        fix=_TO_INDEX_AGAIN,
    )


def changed(where: str, got: str, expected: str) -> DataError:
    """Return the error of data that is not what it was."""
    return DataError(
        "The data changed while it was being read",
        got=got,
        expected=expected,
        where=where,
        fix="leave the data as it is while it is used; to use the new content, index it again",
    )
