"""The executed notebook as it stands on the disk at any moment: true statuses, no secrets, whole or not at all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from colabkit.core.errors import ColabkitError
from colabkit.headless.outputs import without_secrets
from colabkit.headless.places import Place
from colabkit.headless.redaction import redact, redact_tree

PENDING, RUNNING, COMPLETED, FAILED = "pending", "running", "completed", "failed"  # papermill's words
_SAVING_SHARE = 0.1  # of the time at most goes into saving by itself, however slow the place is


class Record:
    """Writes down in a notebook, in papermill's fields, what happened to each cell, and saves it to `place`.

    `place` None: nothing is saved. Saving that fails is told once and tried again, but fails for good in `end`.
    """

    def __init__(
        self,
        notebook: Any,
        place: Place | None,
        *,
        autosave_seconds: float,
        secrets: Iterable[str],
        say: Callable[[str], None],
    ):
        self.notebook, self.place, self.secrets, self.say = notebook, place, secrets, say
        self.autosave_seconds = autosave_seconds
        self.changed = False
        self._saved_at, self._saving_seconds = time.monotonic(), 0.0
        self._told = False

    def begin(self) -> None:
        """Set every cell to pending and save, after putting an earlier executed notebook aside.

        Raises: ColabkitError.
        """
        from nbformat import from_dict

        about = self.notebook.metadata.setdefault("papermill", {})
        about.update(start_time=_now(), end_time=None, duration=None, exception=None)
        for cell in self.notebook.cells:
            cell.metadata.pop("execution", None)
            cell.metadata["papermill"] = from_dict(
                {"exception": None, "start_time": None, "end_time": None, "duration": None, "status": PENDING}
            )
            if cell.cell_type == "code":
                cell.execution_count, cell.outputs = None, []
        if self.place:
            self.place.keep_previous()
            self._write(patient=True)

    def cell_begins(self, cell: Any) -> None:
        """Note that a cell is at work, and save: from now on a lost process leaves it so."""
        cell.metadata.papermill.update(start_time=_now(), status=RUNNING, exception=False)
        if cell.cell_type == "code":
            self.save()

    def cell_ends(self, cell: Any, fault: str = "", *, kind: str = "") -> None:
        """Note how a cell ended, and save. A `fault` that is in no output yet is shown as one, named `kind`."""
        about = cell.metadata.papermill
        about.update(end_time=_now(), status=FAILED if fault else COMPLETED, exception=bool(fault))
        about["duration"] = _seconds(about["start_time"], about["end_time"])
        if fault:
            self.notebook.metadata.papermill["exception"] = True
            if not any(output.output_type == "error" for output in cell.outputs):
                from nbformat.v4 import new_output

                cell.outputs.append(new_output("error", ename=kind, evalue=fault, traceback=fault.splitlines()))
        if cell.cell_type == "code":
            self.save()

    def end(self, *, whole: bool) -> None:
        """Note the end, leave no secret in memory either, and save a last time.

        Raises: ColabkitError when that fails.
        """
        about = self.notebook.metadata.papermill
        about["end_time"] = _now()
        about["duration"] = _seconds(about["start_time"], about["end_time"])
        if not whole:
            about["exception"] = True
        clean = self.without_secrets()
        self.notebook.update(clean)
        if self.place:
            self._write(patient=True)

    def autosave(self) -> None:
        """Save if something changed and it is time."""
        pause = max(self.autosave_seconds, self._saving_seconds / _SAVING_SHARE)
        if self.changed and self.autosave_seconds > 0 and time.monotonic() - self._saved_at >= pause:
            self.save()

    def save(self) -> None:
        """Save now; what goes wrong is told, and does not stop the work."""
        if not self.place:
            return
        began = time.monotonic()
        try:
            self._write()
            self._told = False
        except ColabkitError as error:
            if not self._told:
                self._told = True
                self.say(f"the notebook could not be saved, and the work goes on: {redact(str(error), self.secrets)}")
        self._saved_at = time.monotonic()
        self._saving_seconds = self._saved_at - began

    def without_secrets(self) -> Any:
        """Return a copy of the notebook that may be written."""
        from nbformat import from_dict

        notebook = {**redact_tree({k: v for k, v in self.notebook.items() if k != "cells"}, self.secrets)}
        return from_dict(notebook | {"cells": [without_secrets(cell, self.secrets) for cell in self.notebook.cells]})

    def _write(self, *, patient: bool = False) -> None:
        import nbformat

        self.place.write(nbformat.writes(self.without_secrets()), patient=patient)
        self.changed = False


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _seconds(start: str | None, end: str) -> float | None:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds() if start else None
