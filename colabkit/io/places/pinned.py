"""A place pinned to what was listed there: sources of samples are read this way, so that contents are never mixed."""

from __future__ import annotations

import os

from colabkit.core.errors import ChangedError, UsageError
from colabkit.io.places.folder import Folder
from colabkit.io.places.names import changed, check_range, cut_short, vanished
from colabkit.io.places.place import Place, StoredObject


class Pinned:
    """A place to read from, each of whose objects stays the one that was listed, or else that was read first.

        speech = Pinned(open_place("hub:openslr/librispeech_asr"))
        speech.list()[0]                             # StoredObject(name=..., size=..., version=...)
        speech.read("train/0000.tar", 512, 70_000)   # these bytes, or an error that says what is wrong

    `address` leads to the same content or to an error. Safe for many threads; goes to other processes as places do,
    with what was listed. Raises: UsageError when the place is not there or may not be read; Unreachable.
    """

    def __init__(self, place: Place):
        place.must_exist()
        self.place: Place = Folder(place.root, keeps_open=True) if isinstance(place, Folder) else place
        self.address = place.address
        self._versions: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"Pinned({self.place!r})"

    @property
    def is_folder(self) -> bool:
        """Tell whether it lies on this machine's disks."""
        return isinstance(self.place, Folder)

    @property
    def counts(self) -> dict[str, int]:
        """What was asked in this process, as far as the place counts it: requests, retries, throttled."""
        return dict(getattr(self.place, "counts", {}))

    def list(self) -> list[StoredObject]:
        """Return everything, sorted by name; from now on these are the versions to be read."""
        found = list(self.place.list())
        self._versions = {one.name: one.version for one in found}
        return found

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        """Return bytes start..stop of an object, or to its end. Raises: DataError when it vanished, shrank or changed;
        UsageError for a name that leads elsewhere, and where the right to read is gone; Unreachable.
        """
        check_range(name, start, stop)
        if ".." in name.split("/") or os.path.isabs(name):
            raise UsageError(
                "This name leads out of the folder", got=name, where=self.address, fix="index the data again"
            )
        if stop == start:
            return b""
        where, pinned = f"{name} of {self.address}", self._versions.get(name, "")
        try:
            found = self.place.get_if_there(name, start, stop, version=pinned)
        except ChangedError as error:
            now = self.place.find(name)
            if now is not None and stop is not None and now.size < stop:
                raise cut_short(where, f"{now.size} bytes", stop) from error
            raise changed(where, str(error.got), error.expected) from error
        if found is None:
            raise vanished(where, "no such object")
        if found.version:
            pinned = self._versions.setdefault(name, found.version)
            if found.version != pinned:
                raise changed(where, f"version {found.version}", f"version {pinned}")
        if stop is not None and len(found.content) != stop - start:
            raise cut_short(where, f"{start + len(found.content)} bytes", stop)
        return found.content

    def close(self) -> None:
        """Give back connections and open files; a later read opens them again."""
        self.place.close()
