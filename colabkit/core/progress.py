"""Progress that reads well everywhere: one line that updates in a notebook or terminal, rare lines in a log."""

from __future__ import annotations

import math
import shutil
import sys
import time
from typing import Any

LOG_SECONDS = 10.0  # at most one line in this time where lines stay, and one at the end
LIVE_SECONDS = 0.5


class Progress:
    """Show how far a loop is: `with Progress(total, "train") as p: p.update(1, loss=0.3)`.

    Values with earlier steps already done are given by `done`. Output needs no widgets.
    """

    def __init__(self, total: int, title: str, *, done: int = 0, unit: str = "steps"):
        self.total, self.title, self.done, self.unit = total, title, done, unit
        self._live = _place()
        self._interval = LOG_SECONDS if self._live == "log" else LIVE_SECONDS
        self._first, self._started = done, time.monotonic()
        self._shown = self._started - (0.0 if self._live == "log" else self._interval)
        self._shown_done = done
        self._values: dict[str, Any] = {}
        self._handle = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind, error, trace) -> None:
        if kind is not None:
            self._values.clear()  # reading a tensor of a broken device would hide why it broke
        self._show(last=True)

    def update(self, count: int = 1, **values) -> None:
        """Move on; values may be tensors on a device, they are read only when a line is shown."""
        self.done += count
        self._values.update(values)
        if time.monotonic() - self._shown >= self._interval:
            self._show()

    def line(self) -> str:
        elapsed = time.monotonic() - self._started
        rate = (self.done - self._first) / max(elapsed, 1e-9)
        left = (self.total - self.done) / rate if rate > 0 else float("nan")
        known = {name: _text(value) for name, value in self._values.items()}
        values = ", ".join(f"{name} {text}" for name, text in known.items() if text)
        timing = f"{rate:.3g} {self.unit}/s" + (f", {_clock(left)} left" if self.done < self.total and rate > 0 else "")
        return f"{self.title}: {self.done}/{self.total}" + (f", {values}" if values else "") + f", {timing}"

    def _show(self, last: bool = False) -> None:
        if last and self._live == "log" and self.done == self._shown_done:
            return
        self._shown, self._shown_done = time.monotonic(), self.done
        if self._live == "notebook":
            self._show_in_notebook()
        elif self._live == "terminal":
            width = shutil.get_terminal_size().columns - 1  # a line that wraps could not be taken back
            print("\r\x1b[2K" + self.line()[:width], end="\n" if last else "", file=sys.stderr, flush=True)
        else:
            print(self.line(), flush=True)

    def _show_in_notebook(self) -> None:
        from html import escape

        from IPython.display import display
        share, line = 100 * self.done / max(self.total, 1), self.line()
        bundle = {"text/plain": line,
                  "text/html": f"<progress value='{share:.1f}' max='100'></progress> <code>{escape(line)}</code>"}
        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)


def in_kernel() -> bool:
    """Say whether this is a notebook's kernel, without importing IPython."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module else None
    return shell is not None and hasattr(shell, "kernel")


def _place() -> str:
    if in_kernel():
        return "notebook"
    return "terminal" if sys.stderr.isatty() else "log"


def _text(value: Any) -> str:
    """Write a value short; empty for NaN and infinities, which say nothing yet."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return f"{number:.4g}" if math.isfinite(number) else ""


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
