"""Secrets that a notebook's kernel fetched, told to the process that writes the notebook down.

They go by a private file of this machine. The kernel tells a value before it hands it out, so no cell can print it
unknown.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, MutableMapping
from pathlib import Path

_VARIABLE = "COLABKIT_FETCHED_SECRETS"
_SHORTEST_VALUE = 4  # characters: what is shorter stands in many words


def tell(value: str) -> None:
    """Tell a fetched secret to whoever started this kernel and writes its notebook, if somebody does."""
    path = os.environ.get(_VARIABLE)
    if not path or len(value) < _SHORTEST_VALUE:
        return
    try:
        handle = os.open(path, os.O_WRONLY | os.O_APPEND)  # never made here: without it nobody listens
    except OSError:
        return
    with os.fdopen(handle, "a", encoding="utf-8") as opened:
        opened.write(json.dumps(value) + "\n")


class KnownSecrets:
    """The secrets known by value: those given, and those the kernel has told since.

    Iterate over it; close it at the end.
    """

    def __init__(self, values: Iterable[str], env: MutableMapping[str, str] = os.environ):
        self._values, self._env, self._read_bytes = set(values), env, 0
        handle, name = tempfile.mkstemp(prefix="colabkit-")  # readable for this user alone
        os.close(handle)
        self._path = Path(name)
        self._before = env.get(_VARIABLE)
        env[_VARIABLE] = name

    def __iter__(self) -> Iterator[str]:
        self._take()
        return iter(sorted(self._values, key=lambda value: (-len(value), value)))

    def close(self) -> None:
        """Remove the file; what it told stays known."""
        self._take()
        self._path.unlink(missing_ok=True)
        if self._before is None:
            self._env.pop(_VARIABLE, None)
        else:
            self._env[_VARIABLE] = self._before

    def _take(self) -> None:
        try:
            told = self._path.read_bytes()[self._read_bytes :]
        except OSError:
            return  # closed
        whole = told[: told.rfind(b"\n") + 1]
        self._read_bytes += len(whole)
        self._values |= {json.loads(line) for line in whole.splitlines()}
