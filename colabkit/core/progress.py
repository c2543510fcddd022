"""Progress that reads well everywhere: one bar or line that is renewed where that can be seen, rare lines in a log.

Needs no widgets. What stays behind of a day of work is small, wherever it is written: lines and updates come rarer the
longer the work lasts.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
import warnings
from typing import Any

from colabkit.core.front_end import current_shell, find_front_end

LIVE_SECONDS = 0.5  # between two updates of what is renewed, at first
LOG_SECONDS = 10.0  # between two lines where lines stay, at first
# at first and at most
_PACE = {"page": (LIVE_SECONDS, 10.0), "terminal": (LIVE_SECONDS, 10.0), "log": (LOG_SECONDS, 600.0)}
_SHARE = 1 / 60  # of the time that has passed, between the two

# Importing accelerate or transformers prints this in red where ipywidgets are missing: no part of ours needs them.
warnings.filterwarnings("ignore", message="IProgress not found")


class Progress:
    """Show how far a loop is: `with Progress(total, "train") as p: p.update(1, loss=0.3)`.

    Values with earlier steps already done are given by `done`.
    """

    def __init__(self, total: int, title: str, *, done: int = 0, unit: str = "steps"):
        self.total, self.title, self.done, self.unit = total, title, done, unit
        self._place = place()
        self._first, self._started = done, time.monotonic()
        # A page shows the bar with the first step, so that everybody sees that it moves; a log waits for news.
        self._next = self._started + (LOG_SECONDS if self._place == "log" else 0.0)
        self._shown_done = done
        self._values: dict[str, Any] = {}
        self._handle = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._place != "log" or self.done != self._shown_done:
            # Reading a tensor of a broken device would hide why it broke: then no values.
            self._show(self.line() if kind is None else self._stopped_line(), last=True)

    def update(self, count: int = 1, **values) -> None:
        """Move on; values may be tensors on a device, they are read only when a line is shown."""
        self.done += count
        self._values.update(values)
        now = time.monotonic()
        if now >= self._next:
            self._show(self.line())
            shortest, longest = _PACE[self._place]
            self._next = now + min(longest, max(shortest, (now - self._started) * _SHARE))

    def line(self) -> str:
        """Return what is shown: how far, the values, the speed, and the time left at this speed."""
        elapsed = time.monotonic() - self._started
        rate = (self.done - self._first) / max(elapsed, 1e-9)
        left = (self.total - self.done) / rate if rate > 0 else float("nan")
        known = {name: _text(value) for name, value in self._values.items()}
        values = ", ".join(f"{name} {text}" for name, text in known.items() if text)
        timing = f"{rate:.3g} {self.unit}/s" + (f", {_clock(left)} left" if self.done < self.total and rate > 0 else "")
        return f"{self.title}: {self.done}/{self.total}" + (f", {values}" if values else "") + f", {timing}"

    def _stopped_line(self) -> str:
        return f"{self.title}: {self.done}/{self.total}, stopped after {_clock(time.monotonic() - self._started)}"

    def _show(self, line: str, last: bool = False) -> None:
        self._shown_done = self.done
        if self._place == "page":
            self._show_in_page(line)
        elif self._place == "terminal":
            width = shutil.get_terminal_size().columns - 1  # a line that wraps could not be taken back
            print("\r\x1b[2K" + line[:width], end="\n" if last else "", file=sys.stderr, flush=True)
        else:
            print(line, flush=True)

    def _show_in_page(self, line: str) -> None:
        from html import escape

        from IPython.display import display

        share = min(100.0, 100 * self.done / max(self.total, 1))
        bundle = {
            "text/plain": line,
            "text/html": f"<div style='padding-left:5px'><progress value='{share:.1f}' max='100' "
            "style='vertical-align:middle'></progress> "
            f"<code style='font-size:90%; background:none'>{escape(line)}</code></div>",
        }
        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)


def place() -> str:
    """Tell what shows our output: a "page" that renews displays, a "terminal", or a "log" where lines stay.

    What draws widgets also renews displays: Colab, JupyterLab, VS Code. Headless clients (papermill, nbmake, nbclient,
    colab exec) renew a display in the notebook's file at best, and never in their log; consoles do not renew it at all.
    """
    shell = current_shell()
    if hasattr(shell, "kernel"):
        # A Colab VM alone says little: its page names the running cell, its command line does not.
        return "page" if find_front_end(shell, os.environ, on_colab_vm=False).draws_widgets else "log"
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
