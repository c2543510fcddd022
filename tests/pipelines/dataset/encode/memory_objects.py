"""Objects in memory, with counts of what was asked and faults on request."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from colabkit.io.places import StoredObject
from colabkit.io.places.names import other_version
from colabkit.io.places.place import Found, Place, taken


class MemoryObjects(Place):
    """A place of objects as a dict.

    `before(method, name)` is called first and may raise or wait; `counts` counts calls.

    `conditions=False` ignores only_if_absent and only_if_version, as old stores do.
    """

    def __init__(self, prefix: str = "", shared: dict | None = None, *, conditions: bool = True):
        self._shared = shared or {
            "content": {},
            "number": 0,
            "lock": threading.Lock(),
            "counts": Counter(),
            "puts": Counter(),
            "before": lambda method, name: None,
            "conditions": conditions,
        }
        self.prefix, self.address = prefix, f"memory:/{prefix}"

    @property
    def content(self) -> dict[str, tuple[bytes, str]]:
        return self._shared["content"]

    @property
    def counts(self) -> Counter:
        return self._shared["counts"]

    @property
    def puts(self) -> Counter:
        return self._shared["puts"]

    def hook(self, before: Callable[[str, str], None]) -> None:
        """Call this before every request."""
        self._shared["before"] = before

    def _full(self, name: str) -> str:
        return f"{self.prefix}/{name}".strip("/")

    def _ask(self, method: str, name: str) -> str:
        with self._shared["lock"]:
            self.counts[method] += 1
        self._shared["before"](method, self._full(name))
        return self._full(name)

    def below(self, prefix: str) -> MemoryObjects:
        return MemoryObjects(self._full(prefix), self._shared)

    def list(self, prefix: str = ""):
        folder = self._ask("list", prefix)
        with self._shared["lock"]:
            found = sorted(
                (name, value) for name, value in self.content.items() if not folder or name.startswith(folder + "/")
            )
        cut = len(self.prefix) + 1 if self.prefix else 0
        for name, (content, version) in found:
            yield StoredObject(name[cut:], len(content), version)

    def find(self, name: str) -> StoredObject | None:
        found = self.content.get(self._ask("find", name))
        return None if found is None else StoredObject(name, len(found[0]), found[1])

    def get_if_there(self, name: str, start: int = 0, stop: int | None = None, *, version: str = "") -> Found | None:
        found = self.content.get(self._ask("get", name))
        if found is None:
            return None
        if version and version != found[1]:
            raise other_version(name, self.address, found[1], version)
        return Found(found[0][start:stop], found[1])

    def put(self, name: str, content: bytes | Path, *, only_if_absent: bool = False, only_if_version: str = "") -> str:
        full = self._ask("put", name)
        content = content.read_bytes() if isinstance(content, Path) else bytes(content)
        with self._shared["lock"]:
            found = self.content.get(full)
            if self._shared["conditions"]:
                if only_if_absent and found is not None:
                    raise taken(name, self.address, absent=True)
                if only_if_version and (found is None or found[1] != only_if_version):
                    raise taken(name, self.address, absent=False)
            self._shared["number"] += 1
            self.content[full] = (content, f"v{self._shared['number']}")
            self.puts[full] += 1
            return self.content[full][1]

    def delete(self, name: str) -> None:
        self.content.pop(self._ask("delete", name), None)
