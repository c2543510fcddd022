"""The run's report: what was chosen and why, what each step did and why, what came out, what was left aside.

Kept in memory and in `report.json` (rewritten whole at every change), the same for notebook, command and test.
"""

from __future__ import annotations

import itertools
import numbers
import textwrap
import threading
from html import escape
from pathlib import Path
from typing import Any

from colabkit.core import files
from colabkit.core.disk import PASSING
from colabkit.core.errors import StateError

_WIDEST_CELL = 80  # characters of a table's cell on one line of text


class Report:
    """Gathers metrics, steps, choices and problems of one run and prints them as they come."""

    def __init__(self, path: str | Path, *, heading: dict[str, Any], say=print):
        self.path, self.say = Path(path), say
        self.data: dict[str, Any] = {**heading, "state": "started", "metrics": {}, "steps": [], "choices": [],
                                     "problems": []}
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


class Table:
    """Rows for people: aligned text in a terminal or log, a table in a notebook; columns of numbers stand right."""

    def __init__(self, columns: list[str], rows: list[list[Any]], title: str = ""):
        self.columns, self.title = columns, title
        self.rows = [[_cell(v) for v in row] for row in rows]
        self._right = [bool(rows) and all(isinstance(row[i], numbers.Real | None) and not isinstance(row[i], bool)
                                          for row in rows) for i in range(len(columns))]

    def __str__(self) -> str:
        cells = [[_folded(v) for v in row] for row in (self.columns, *self.rows)]
        widths = [max(len(line) for row in cells for line in row[i]) for i in range(len(self.columns))]
        cells.insert(1, [["-" * w] for w in widths])
        lines = [self.title] if self.title else []
        for row in cells:
            for parts in itertools.zip_longest(*row, fillvalue=""):
                lines.append("  ".join(part.rjust(w) if right else part.ljust(w) for part, w, right
                                       in zip(parts, widths, self._right, strict=True)).rstrip())
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        # No colours: a page's dark theme keeps its own. Styles stand in the cells, where no page takes them away.
        look = ["vertical-align:top; white-space:pre-line; overflow-wrap:break-word; max-width:40em; text-align:"
                + ("right; font-variant-numeric:tabular-nums" if right else "left") for right in self._right]
        head = "".join(f"<th style='{style}'>{escape(c)}</th>" for c, style in zip(self.columns, look, strict=True))
        body = "".join("<tr>" + "".join(f"<td style='{style}'>{escape(v)}</td>" for v, style in zip(row, look, strict=True))
                       + "</tr>" for row in self.rows)
        caption = f"<caption>{escape(self.title)}</caption>" if self.title else ""
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def _folded(text: str) -> list[str]:
    """Break a long cell between words; a path is never broken, so that it can be copied."""
    return [part for line in text.splitlines() or [""] for part in
            textwrap.wrap(line, _WIDEST_CELL, break_long_words=False, break_on_hyphens=False) or [""]]
