"""What a conditional put says when somebody else was first."""

from __future__ import annotations

from colabkit.core.errors import StateError


class Taken(StateError):
    """The object is there already, or has another version than the one to be replaced: nothing was written."""


def taken(name: str, address: str, *, absent: bool) -> Taken:
    """Return the error for an object of this name; `absent` says that none was wanted there."""
    return Taken("Nothing was written: the object is there already" if absent else
                 "Nothing was written: the object has another version by now", got=name, where=address,
                 fix="read what is there and decide anew: another worker was faster")
