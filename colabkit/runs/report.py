"""The run's report: what was chosen and why, what each step did and why, what came out, what was left aside.

Kept in memory and in `report.json` (rewritten whole at every change), the same for notebook, command and test.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from colabkit.core import files
from colabkit.core.disk import PASSING
from colabkit.core.errors import StateError


class Report:
    """Gathers metrics, steps, choices and problems of one run and prints them as they come."""

    def __init__(self, path: str | Path, *, heading: dict[str, Any], say: Callable[[str], object] = print):
        self.path, self.say = Path(path), say
        self.data: dict[str, Any] = {
            **heading,
            "state": "started",
            "metrics": {},
            "steps": [],
            "choices": [],
            "problems": [],
        }
        self.fresh: dict[str, list] = {"choices": [], "problems": []}  # those of the step at work
        self.is_writable = True  # False: what is reported is kept in memory only
        self._lock = threading.Lock()
        self._unsaved = False

    def choose(self, name: str, value: Any, reason: str) -> Any:
        """Record and print an automatic choice with its reason; returns the value."""
        self.say(f"  choice: {name} = {value}, because {reason}")
        self._replace("choices", {"name": name, "value": value, "reason": reason}, "name")
        self.save()
        return value

    def problem(self, item: str, reason: str) -> None:
        """Record and print one thing that was left aside, such as a broken recording."""
        self.say(f"  left aside: {item}: {reason}")
        self._replace("problems", {"item": item, "reason": reason}, "item")

    def begin(self, id: str, reason: str) -> None:
        """Record that a step starts: what is chosen and left aside from now on belongs to it."""
        self.fresh = {"choices": [], "problems": []}
        self.data["state"] = "running"
        self.step(id, "running", reason)

    def step(self, id: str, outcome: str, reason: str, **more: Any) -> None:
        """Record what happened to a step: skip, running, run, stop, stopped or failed."""
        self._replace("steps", {"id": id, "outcome": outcome, "reason": reason, **more}, "id")
        self.save()

    def adopt(self, record: dict[str, Any]) -> None:
        """Take over metrics, choices and problems from a step's record, as when it is skipped."""
        with self._lock:
            self.data["metrics"].update(record.get("metrics") or {})
        for kind, key in (("choices", "name"), ("problems", "item")):
            for entry in record.get(kind, ()):
                self._replace(kind, entry, key)

    def ended(self, state: str) -> None:
        """Write how the run ended: done, stopped or failed."""
        self.data["state"] = state
        self.save()

    def save(self) -> None:
        """Write the file; a mount that is away for a moment gets it with the next change."""
        if not self.is_writable:
            return
        with self._lock:
            try:
                files.write_json(self.path, self.data, durable=False)
                self._unsaved = False
            except StateError as error:
                if getattr(error, "errno", None) not in PASSING:
                    raise
                if not self._unsaved:
                    self.say(f"  WARNING {error.what}; what is reported stays in memory until it answers")
                self._unsaved = True

    def _replace(self, kind: str, entry: dict[str, Any], key: str) -> None:
        with self._lock:
            if kind in self.fresh:
                kept = {e[key]: e for e in self.fresh[kind]} | {entry[key]: entry}  # told again, it stays in its place
                self.fresh[kind] = list(kept.values())
            rows = self.data[kind]
            for index, row in enumerate(rows):
                if row[key] == entry[key]:
                    rows[index] = entry
                    return
            rows.append(entry)
