"""Small notebooks, papermill in this process, and in one of its own that tests can send signals to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import papermill
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

BIN = Path(sys.executable).parent
PARAMETERS = (
    'TEXT = ""\nNUMBER = 3\nRATE = 0.5\nFLAG = False\nPRESET = "demo"  #@param ["demo", "quick"]\nANYTHING = None\n'
)


def book(*cells: str, parameters: str | None = PARAMETERS, path: Path | None = None) -> nbformat.NotebookNode:
    """Return a notebook of a parameters cell and these code cells, each below a heading; written if there is a path."""
    notebook = new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    )
    if parameters is not None:
        notebook.cells.append(new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    for number, code in enumerate(cells, 1):
        notebook.cells += [new_markdown_cell(f"## Part {number}\n\nSome text."), new_code_cell(code)]
    if path:
        nbformat.write(notebook, path)
    return notebook


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def statuses(notebook: nbformat.NotebookNode) -> list[str]:
    """Return the code cells' statuses; what comes after a cell that failed or is at work must not claim anything."""
    all_of_them = [cell.metadata.papermill.status for cell in notebook.cells if "papermill" in cell.metadata]
    reached = [s != "pending" for s in all_of_them]
    assert reached == sorted(reached, reverse=True), all_of_them
    return [c.metadata.papermill.status for c in notebook.cells if c.cell_type == "code"]


def printed(notebook: nbformat.NotebookNode) -> str:
    return "".join(o.text for c in notebook.cells for o in c.get("outputs", ()) if o.output_type == "stream")


class Process:
    """A command that runs, whose lines are read as they come."""

    def __init__(self, *command: str | Path, cwd: Path, env: dict[str, str] | None = None):
        self._log = open(cwd / "process.log", "w+")  # a file: nobody must empty a pipe
        self._process = subprocess.Popen(
            [str(c) for c in command],
            cwd=cwd,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=os.environ | (env or {}),
            stdin=subprocess.DEVNULL,
        )
        self.pid = self._process.pid

    def text(self) -> str:
        return Path(self._log.name).read_text(errors="replace")

    def wait_for(self, wanted: str, seconds: float = 90) -> None:
        """Wait until something was printed."""
        wait_until(lambda: wanted in self.text() or self._process.poll() is not None, seconds)
        assert wanted in self.text(), self.text()

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self, seconds: float = 120) -> int:
        """Wait for the end; returns the exit code."""
        return self._process.wait(seconds)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._log.close()


@pytest.fixture
def start(tmp_path) -> Iterator[Callable[..., Process]]:
    """Start commands of this Python's bin folder in the test's folder; they are gone afterwards."""
    started: list[Process] = []

    def begin(name: str, *arguments: str | Path, env: dict[str, str] | None = None) -> Process:
        folder = tmp_path / f"process{len(started)}"
        folder.mkdir()
        started.append(Process(BIN / name, *arguments, cwd=folder, env=env))
        return started[-1]

    yield begin
    for process in started:
        process.close()


def wait_until(is_so: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that nobody has reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def raw(path: Path) -> str:
    """Return a notebook file's text, whatever moment it is read at: it is always whole."""
    text = path.read_text(encoding="utf-8")
    json.loads(text)
    return text


@pytest.fixture
def execute(tmp_path):
    """Run cells through papermill's own function, with our engine, in this process."""

    def run(*cells: str, parameters: dict | None = None, **options):
        source = book(*cells, path=tmp_path / "in.ipynb")
        assert source
        return papermill.execute_notebook(
            tmp_path / "in.ipynb",
            tmp_path / "out.ipynb",
            parameters,
            engine_name="colabkit",
            cwd=tmp_path,
            **{"progress_bar": False} | options,
        )

    return run


@pytest.fixture
def output(tmp_path):
    return lambda: read(tmp_path / "out.ipynb")
