"""One kernel that runs the cells in order: signals, deaths and hangs, all told as they were; no kernel stays."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest

from colabkit.core.errors import Stopped
from colabkit.headless import client as client_module
from colabkit.headless.failures import KernelDied, KernelHung
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


def test_a_kernel_that_dies(execute, output):
    began = time.monotonic()
    with pytest.raises(KernelDied) as caught:
        execute(
            "print('fine')",
            "import os, time\nprint('last words', flush=True)\ntime.sleep(0.5)\nos.kill(os.getpid(), 9)",
            "print('never')",
        )
    assert time.monotonic() - began < 30
    assert caught.value.exit_code == 1 and "[3/4] Part 2: killed by SIGKILL" in str(caught.value)
    found = output()
    assert (
        statuses(found) == ["completed", "completed", "failed", "pending"]
        and found.metadata.papermill.exception is True
    )
    failed = found.cells[4]
    assert failed.outputs[0].text == "last words\n" and failed.outputs[1].ename == "KernelDied"
    assert failed.metadata.papermill.exception is True and "SIGKILL" in failed.outputs[1].evalue


def test_workers_of_a_dead_kernel_are_gone(execute, output):
    with pytest.raises(KernelDied):
        execute(
            "import os, subprocess, sys\n"
            "worker = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
            "print(worker.pid, flush=True)\nimport time; time.sleep(0.5)\nos.kill(os.getpid(), 9)"
        )
    worker = int(printed(output()))
    wait_until(lambda: not is_alive(worker), seconds=5)


def test_a_kernel_that_ends_itself(execute, output):
    with pytest.raises(KernelDied, match="exit code 3"):
        execute("import os\nos._exit(3)", "print('never')")
    assert statuses(output()) == ["completed", "failed", "pending"]


def test_a_kernel_that_hangs(execute, output):
    with pytest.raises(KernelHung, match=r"\[2/3\] Part 1: no message and no CPU time for 0.0[34]\d* minutes"):
        execute("import threading\nthreading.Event().wait()", "print('never')", hung_after_minutes=2 / 60)
    found = output()
    assert statuses(found) == ["completed", "failed", "pending"]
    assert [o.ename for o in found.cells[2].outputs] == ["KeyboardInterrupt"], (
        "it was interrupted, which shows where it hung"
    )


def test_asked_to_stop_before_the_first_cell(execute, output, monkeypatch):
    start = client_module.Client.start_new_kernel
    monkeypatch.setattr(
        client_module.Client,
        "start_new_kernel",
        lambda self, **how: (start(self, **how), os.kill(os.getpid(), signal.SIGTERM)),
    )
    with pytest.raises(Stopped) as caught:
        execute("print(1)")
    assert caught.value.exit_code == 75 and statuses(output()) == ["pending", "pending"]
    assert output().metadata.papermill.exception is True


def test_kernels_workers_are_not_hurt_by_the_handler(execute):
    """A forked worker inherits the kernel's handler of SIGTERM: it must end by it, and the kernel go on."""
    done = execute(
        "import multiprocessing, time\n"
        "worker = multiprocessing.get_context('fork').Process(target=time.sleep, args=(60,))\n"
        "worker.start()\ntime.sleep(0.3)\nworker.terminate()\nworker.join(10)\nprint(worker.exitcode)"
    )
    assert printed(done) == "-15\n"
