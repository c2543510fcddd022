"""A run as seen in one of the several processes of a step.

The first process tells what it chooses and leaves aside, and how far it is; the holder of the run shows and records it.
What the other processes say goes to their logs. None of them writes the report or the ledger.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from colabkit.core.config import build
from colabkit.core.progress import LIVE_SECONDS
from colabkit.core.teller import Teller
from colabkit.runs.report import Report
from colabkit.runs.run import Run
from colabkit.runs.state import open_run
from colabkit.runs.steps import Sections, find
from colabkit.training.processes.handoff import Handoff

Tell = Callable[[dict[str, Any]], None]


class RankRun(Run):
    """The run of a handoff, for the step that is handed over.

    `tell` takes the events of the first process, None in the others. `asked` says which signal asks to stop, else "".
    """

    def __init__(
        self, handoff: Handoff, *, tell: Tell | None, asked: Callable[[], str], say: Callable[[str], object] = print
    ):
        path = Path(handoff.path)
        self._asked, self._tell = asked, tell
        super().__init__(
            pipeline=handoff.pipeline,
            steps=import_module(handoff.recipe).STEPS,
            preset=handoff.preset,
            say=say,
            config=build(resolve_name(handoff.config_type), handoff.settings),
            run_folder=open_run(path.parent.parent, path.parent.name, path.name, read_only=True),
        )
        self.report = _TellingReport(self.report.path, heading={}, say=say, tell=tell)
        self.output, self._identity = Path(handoff.output), handoff.identity
        self._step_at_work = find(self.steps, handoff.step)

    def work(self) -> dict | None:
        """Do this process's part of the step; returns the metrics, None in all but the first."""
        return self._step_at_work.function(Sections(self.config, self._step_at_work, self.path), self)

    @property
    def stop_requested(self) -> str:
        return self._asked()

    @stop_requested.setter
    def stop_requested(self, value: str) -> None:
        """Do nothing: it is asked from outside."""

    def choose(self, name: str, value: Any, reason: str) -> Any:
        """Tell an automatic choice with its reason; returns the value."""
        if not self._tell:
            return Teller.choose(self, name, value, reason)
        self._tell({"choice": [name, value, reason]})
        return value

    def progress(self, total: int, title: str, *, done: int = 0, unit: str = "steps") -> TellingProgress:
        """Return what stands where Progress stands: the holder of the run shows it."""
        return TellingProgress(total, title, done=done, unit=unit, tell=self._tell)


class _TellingReport(Report):
    """Tells what is left aside, and writes nothing."""

    def __init__(self, path: Path, *, heading: dict[str, Any], say: Callable[[str], object], tell: Tell | None):
        super().__init__(path, heading=heading, say=say)
        self.is_writable, self._tell = False, tell

    def problem(self, item: str, reason: str) -> None:
        """Tell one thing that was left aside; all processes meet the same ones."""
        if self._tell:
            self._tell({"problem": [item, reason]})
        else:
            super().problem(item, reason)


class TellingProgress:
    """Tells how far a loop is, a few times a second at most."""

    def __init__(self, total: int, title: str, *, done: int, unit: str, tell: Tell | None):
        self.total, self.title, self.done, self.unit = total, title, done, unit
        self._tell, self._told, self._values = tell, 0.0, {}

    def __enter__(self) -> TellingProgress:
        self._show()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is not None:
            self._values.clear()  # reading a tensor of a broken device would hide why it broke
        self._show()

    def update(self, count: int = 1, **values) -> None:
        """Move on; values may be tensors on a device, they are read only when they are told."""
        self.done += count
        self._values.update(values)
        if time.monotonic() - self._told >= LIVE_SECONDS:
            self._show()

    def _show(self) -> None:
        self._told = time.monotonic()
        if self._tell:
            values = {
                name: value if isinstance(value, (str, int)) else float(value) for name, value in self._values.items()
            }
            self._tell(
                {
                    "progress": {"title": self.title, "total": self.total, "done": self.done, "unit": self.unit},
                    "values": values,
                }
            )
