"""Signals to the process that runs the notebook: the step saves, the notebook tells the truth, no kernel stays."""

from __future__ import annotations

import signal

import psutil
import pytest

from tests.headless.conftest import book, is_alive, printed, raw, read, statuses, wait_until

STEP = """
import pathlib, signal, time
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
print("the step works", flush=True)
while not asked:
    time.sleep(0.05)
pathlib.Path(FOLDER, "saved").write_text("all")
from colabkit.core.errors import Stopped
raise Stopped("Stopped by SIGTERM; what is done is kept", fix="run again")
"""
PARAMETERS = 'FOLDER = ""\n'


@pytest.fixture
def source(tmp_path):
    return lambda *cells: book(*cells, parameters=PARAMETERS, path=tmp_path / "in.ipynb") and tmp_path / "in.ipynb"


def kernels_of(pid: int) -> list[int]:
    return [p.pid for p in psutil.Process(pid).children(recursive=True)]


def test_sigterm_lets_the_step_save(start, source, tmp_path):
    process = start(
        "papermill",
        source(STEP, "print('never')"),
        tmp_path / "out.ipynb",
        "--engine",
        "colabkit",
        "-p",
        "FOLDER",
        tmp_path,
    )
    process.wait_for("the step works")
    started = kernels_of(process.pid)
    process.send(signal.SIGTERM)
    assert process.end() == 75, process.text()
    assert (tmp_path / "saved").read_text() == "all"
    text = process.text()
    assert (
        "Stopped by SIGTERM; what is done is kept" in text
        and "run the same command again" in text
        and "Traceback" not in text
    )
    found = read(tmp_path / "out.ipynb")
    assert (
        statuses(found) == ["completed", "completed", "failed", "pending"]
        and found.metadata.papermill.exception is True
    )
    assert found.cells[3].outputs[-1].ename == "Stopped" and "the step works" in printed(found)
    assert started and not any(map(is_alive, started))


def test_ctrl_c_outside_of_a_step_interrupts(start, source, tmp_path):
    process = start(
        "colabkit",
        "notebook",
        source("import time\nprint('asleep', flush=True)\ntime.sleep(600)", "print('never')"),
        "--output",
        tmp_path / "out.ipynb",
    )
    process.wait_for("  asleep")
    process.send(signal.SIGINT)
    assert process.end() == 75, process.text()
    assert "Stopped by SIGINT" in process.text() and "Traceback" not in process.text()
    found = read(tmp_path / "out.ipynb")
    assert (
        statuses(found) == ["completed", "failed", "pending"]
        and found.cells[2].outputs[-1].ename == "KeyboardInterrupt"
    )


def test_twice_kills_what_does_not_listen(start, source, tmp_path):
    process = start(
        "colabkit",
        "notebook",
        source(
            "import signal, time\nfor n in (2, 15): signal.signal(n, signal.SIG_IGN)\n"
            "print('deaf', flush=True)\ntime.sleep(600)"
        ),
        "--output",
        tmp_path / "out.ipynb",
    )
    process.wait_for("  deaf")
    process.send(signal.SIGTERM)
    process.wait_for("once more")
    process.send(signal.SIGTERM)
    assert process.end(30) == 75, process.text()
    found = read(tmp_path / "out.ipynb")
    assert statuses(found) == ["completed", "failed"] and found.cells[2].outputs[-1].ename == "Stopped"


@pytest.mark.slow
def test_killed_without_a_word(start, source, tmp_path):
    """What is on the disk is true, no kernel lives on, and the same command runs it whole."""
    output = tmp_path / "out.ipynb"
    cells = (
        "print('first')",
        "import pathlib, subprocess, sys, time\n"
        "if not pathlib.Path(FOLDER, 'again').exists():\n"
        "    worker = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "    print('asleep', flush=True)\n    time.sleep(600)",
        "print('last')",
    )
    process = start(
        "papermill",
        source(*cells),
        output,
        "--engine",
        "colabkit",
        "-p",
        "FOLDER",
        tmp_path,
        "--autosave-cell-every",
        "1",
    )
    process.wait_for("  asleep")
    wait_until(lambda: "asleep\\n" in raw(output).replace("print('asleep'", ""))
    started = kernels_of(process.pid)
    assert len(started) >= 3, "a kernel, its worker and the guardian"
    process.send(signal.SIGKILL)
    assert process.end() == -signal.SIGKILL
    wait_until(lambda: not any(map(is_alive, started)), seconds=5)
    found = read(output)
    assert statuses(found) == ["completed", "completed", "completed", "running", "pending"]
    assert found.metadata.papermill.end_time is None and printed(found) == "first\nasleep\n"
    (tmp_path / "again").touch()
    process = start("papermill", tmp_path / "in.ipynb", output, "--engine", "colabkit", "-p", "FOLDER", tmp_path)
    assert process.end() == 0, process.text()
    assert set(statuses(read(output))) == {"completed"}
    assert statuses(read(tmp_path / "out.previous.ipynb"))[3] == "running"
