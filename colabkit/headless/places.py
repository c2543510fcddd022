"""Places of executed notebooks: a file, written whole or not at all, a bucket, or what else papermill can write to."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Protocol

from colabkit.core import files
from colabkit.core.errors import ColabkitError, StateError, UsageError
from colabkit.io.places.addresses import split_scheme


class Place(Protocol):
    """One address that an executed notebook is written to, again and again."""

    address: str

    def write(self, text: str, *, patient: bool = False) -> None:
        """Replace what is there: a reader finds the old or the new, never a part. Raises: ColabkitError.

        `patient` waits longer for a network that is down: nothing else is left to do.
        """

    def keep_previous(self) -> None:
        """Put an executed notebook that is there aside as NAME.previous.ipynb. Raises: ColabkitError."""


def place_of(address: str) -> Place:
    """Return the place with this address; relative paths count from where papermill counts them. Raises: UsageError."""
    from papermill.iorw import LocalHandler, papermill_io

    if split_scheme(address)[0].rstrip("?") in ("s3", "gs"):
        return BucketPlace(address)
    handler = papermill_io.get_handler(address)
    if not isinstance(handler, LocalHandler):
        return ForeignPlace(address, handler)
    folder = handler.cwd(None)  # papermill may have changed the folder for the kernel since
    handler.cwd(folder)
    return FilePlace(Path(folder or "", address))


class FilePlace:
    """A file."""

    def __init__(self, path: Path):
        self.path = Path(os.path.abspath(path))
        self.address = str(self.path)
        if self.path.is_dir():
            raise UsageError(
                "The output notebook is a folder",
                got=self.address,
                expected="the path of a file",
                fix=f"--output {self.path / 'notebook.ipynb'}",
            )
        if not self.path.parent.is_dir():
            raise UsageError(
                "The folder of the output notebook does not exist",
                where=self.path.parent,
                fix=f"mkdir -p {self.path.parent}",
            )

    def write(self, text: str, *, patient: bool = False) -> None:
        files.write_atomic(self.path, text, durable=patient)

    def keep_previous(self) -> None:
        try:
            earlier = self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return
        except OSError as error:
            raise files.disk_fault(error, self.path, "read the earlier notebook") from error
        aside = previous_of(self.address)
        if is_worth_keeping(earlier, has_previous=os.path.exists(aside)):
            files.write_atomic(aside, earlier, durable=False)


class BucketPlace:
    """An object in a bucket."""

    def __init__(self, address: str):
        from colabkit.headless.remote import notebooks

        self.address, self._notebooks = address, notebooks
        notebooks.bucket_of(address)  # what is wrong with the address is told before anything is started

    def write(self, text: str, *, patient: bool = False) -> None:
        self._notebooks.write(text, self.address, seconds=60 if patient else 10)

    def keep_previous(self) -> None:
        earlier = self._notebooks.find(self.address)
        if earlier is not None:
            aside = previous_of(self.address)
            if is_worth_keeping(earlier, has_previous=self._notebooks.find(aside) is not None):
                self._notebooks.write(earlier, aside)


class ForeignPlace:
    """A place that papermill knows how to write to, such as abs://."""

    def __init__(self, address: str, handler: Any):
        self.address, self._handler = address, handler

    def write(self, text: str, *, patient: bool = False) -> None:
        try:
            self._handler.write(text, self.address)
        except ColabkitError:
            raise
        except Exception as error:  # of whatever library papermill uses for this kind of address
            raise StateError(
                "Cannot write the notebook",
                got=f"{type(error).__name__}: {error}",
                where=self.address,
                fix="check the address and the credentials, or give a local file",
            ) from error

    def keep_previous(self) -> None:
        """Nothing is kept: such places may not be readable."""


def previous_of(address: str) -> str:
    """Return where an earlier notebook is put aside.

    Example:
        >>> previous_of("out/01.ipynb")
        'out/01.previous.ipynb'
    """
    stem, dot, suffix = address.rpartition(".")
    return f"{stem}.previous.{suffix}" if dot and "/" not in suffix else f"{address}.previous"


def is_worth_keeping(text: str, *, has_previous: bool) -> bool:
    """Tell whether a notebook shows results; an unfinished one does not take the place of one that is kept already."""
    try:
        cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
        shows = any(cell.get("outputs") for cell in cells)
        is_whole = all(
            cell["metadata"].get("papermill", {}).get("status", "completed") == "completed" for cell in cells
        )
    except (ValueError, KeyError, TypeError):
        return True  # no notebook at all: then somebody else's file, which must not be lost
    return shows and (is_whole or not has_previous)


def make_papermill_write_atomically() -> None:
    """Let papermill's own last write, after the engine's, be whole or not at all, too."""
    from papermill.iorw import papermill_io

    handler = papermill_io.get_handler("local")
    if not hasattr(handler, "is_atomic"):
        plain = handler.write

        def write(buf: str, path: str) -> None:
            place = place_of(path)
            place.write(buf) if isinstance(place, FilePlace) else plain(buf, path)

        handler.write, handler.is_atomic = write, True
