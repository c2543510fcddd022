"""Lines of a running notebook in a terminal or log: titles of cells, what they print, and progress now and then."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from colabkit.core.progress import LOG_SECONDS
from colabkit.headless.redaction import redact

MOST_LINES = 200  # of one cell; the executed notebook has all of them
_LONGEST_LINE = 400
_MOST_DISPLAYED = 40  # lines of one table or other display
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[@-_]|[\x00-\x08\x0b-\x1f\x7f]")
_PLACEHOLDER = re.compile(r"<[\w.]+(?: object)?(?: at 0x[0-9a-f]+)?>|[A-Z]\w*\(children=.*", re.DOTALL)


class Lines:
    """Turns messages of the kernel into few lines of text, without secrets and colours; `say` prints one line."""

    def __init__(self, notebook: Any, say: Callable[[str], None], secrets: Iterable[str]):
        self._say, self._secrets = say, secrets
        self._titles = titles(notebook)
        self._of_code = [index for index, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
        self._parts: dict[str, str] = {}  # of each stream: a line whose end has not come yet
        self._waiting = ""  # the newest state of a progress display that was not printed
        self._shown_at = -LOG_SECONDS
        self._num_lines = 0

    def title(self, index: int) -> str:
        """Return how messages call a cell."""
        number = self._of_code.index(index) + 1 if index in self._of_code else 0
        return f"[{number}/{len(self._of_code)}] {self._titles[index]}"

    def cell_begins(self, index: int) -> None:
        self._parts, self._waiting, self._num_lines, self._shown_at = {}, "", 0, -LOG_SECONDS
        self._say(self.title(index))

    def cell_ends(self) -> None:
        """Print what was held back."""
        for text in self._parts.values():
            if "\r" not in text:  # else it is the state that waits
                self._line(text)
        self._progress(self._waiting, last=True)
        if self._num_lines > MOST_LINES:
            self._say(f"  ... and {self._num_lines - MOST_LINES} more lines, in the executed notebook")

    def message(self, kind: str, content: Mapping[str, Any]) -> None:
        """Take one message of the kernel."""
        if kind == "stream":
            self._stream(content["name"], content["text"])
        elif kind in ("display_data", "update_display_data", "execute_result"):
            text = content.get("data", {}).get("text/plain", "")
            text = "".join(text) if isinstance(text, list) else text
            if (content.get("transient") or {}).get("display_id"):
                self._progress(text)
            elif not _PLACEHOLDER.fullmatch(text.strip()):
                lines = text.splitlines()
                for line in lines[:_MOST_DISPLAYED]:
                    self._line(line)
                if len(lines) > _MOST_DISPLAYED:
                    self._line(f"... {len(lines) - _MOST_DISPLAYED} more lines")

    def _stream(self, name: str, text: str) -> None:
        *whole, rest = (self._parts.get(name, "") + text.replace("\r\n", "\n")).split("\n")
        for line in whole:
            if "\r" in line:
                self._waiting = ""  # it was an earlier state of this line
            self._line(line.rpartition("\r")[2])
        overwritten, returned, rest = rest.rpartition("\r")
        if returned and (overwritten.strip() or rest.strip()):  # a progress bar that draws over itself
            self._progress(rest or overwritten.rpartition("\r")[2])
        self._parts[name] = ("\r" if returned else "") + rest[-10 * _LONGEST_LINE :]

    def _progress(self, text: str, last: bool = False) -> None:
        """Print a state that the next one replaces: at most one in 10 s, and the last one."""
        self._waiting = text
        if text.strip() and (last or time.monotonic() - self._shown_at >= LOG_SECONDS):
            self._waiting, self._shown_at = "", time.monotonic()
            self._line(next(line for line in reversed(text.splitlines()) if line.strip()))

    def _line(self, text: str) -> None:
        text = _CONTROL.sub("", redact(text, self._secrets)).rstrip()
        if not text:
            return
        self._num_lines += 1
        if self._num_lines <= MOST_LINES:
            self._say("  " + (text if len(text) <= _LONGEST_LINE else text[:_LONGEST_LINE] + " ..."))


class Copies:
    """Copies what cells print into files, without secrets, line by line.

    `files` are those of stdout and stderr, or None.
    """

    def __init__(self, files: Mapping[str, Any], secrets: Iterable[str]):
        self._files = {name: opened for name, opened in files.items() if opened}
        self._parts, self._secrets = dict.fromkeys(self._files, ""), secrets

    def take(self, output: Any) -> None:
        """Take one output of a cell."""
        if output.output_type == "stream" and output.name in self._files:
            whole, newline, self._parts[output.name] = (self._parts[output.name] + output.text).rpartition("\n")
            self._write(output.name, whole + newline)

    def end(self) -> None:
        """Write lines that have no end."""
        for name, text in self._parts.items():
            self._write(name, text)

    def _write(self, name: str, text: str) -> None:
        if text:
            self._files[name].write(redact(text, self._secrets))
            self._files[name].flush()


def titles(notebook: Any) -> list[str]:
    """Return a title for every cell: the last heading above it, or its own first line."""
    found, heading = [], ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            headings = re.findall(r"^#{1,6}\s+(.+?)\s*#*\s*$", cell.source, re.MULTILINE)
            heading = headings[-1] if headings else heading
        first = next((line.strip() for line in cell.source.splitlines() if line.strip()), "")
        found.append(heading or first[:60])
    return found
