"""Training in two processes (gloo on CPUs): what one would give, the same bytes each time, also after kills.

The steps before training are done once; every training starts from a copy of them.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from colabkit.core.config import with_settings
from colabkit.pipelines import find
from colabkit.runs.run import Run
from colabkit.runs.state import open_run
from colabkit.training.processes import team
from colabkit.training.processes.team import _is_alive
from tests.contracts.small import settings_of, small_config

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[4]
FILES = ("model.safetensors", "model.json", "history.jsonl")
PIPELINE = find("diarization")
MORE = ("train.steps=18",)
PATIENCE_SECONDS = 90.0


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    """A state root in which everything before training is done."""
    root = tmp_path_factory.mktemp("listed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        with open_here(root) as run:
            run.do("01_speech")
        yield root


@pytest.fixture
def state(listed, tmp_path):
    return shutil.copytree(listed, tmp_path / "state", symlinks=True)


def open_here(root: Path, **settings) -> Run:
    config = with_settings(
        small_config(PIPELINE), [*MORE, *(f"{name.replace('__', '.')}={v}" for name, v in settings.items())]
    )
    return Run(
        pipeline="diarization",
        steps=PIPELINE.steps,
        config=config,
        preset="demo",
        run_folder=open_run(root, "diarization", "demo"),
        say=lambda text: None,
        carry_out=team.carry_out,
    )


def results(root: Path) -> dict[str, bytes]:
    return {name: (root / "diarization" / "demo" / "02_train" / name).read_bytes() for name in FILES}


def history(made: dict[str, bytes]) -> list[dict]:
    return [json.loads(line) for line in made["history.jsonl"].splitlines()]


def settings() -> list[str]:
    return [*settings_of(PIPELINE), *MORE]


def begin(root: Path, *more: str) -> subprocess.Popen:
    changes = [word for setting in settings() for word in ("--set", setting)]
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "colabkit",
            "run",
            "diarization",
            "--state",
            str(root),
            "--to",
            "02_train",
            *changes,
            *more,
        ],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def whole_checkpoints(root: Path) -> set[Path]:
    return set((root / "diarization" / "demo" / "02_train.partial" / "checkpoints").glob("*/COMMIT.json"))


def wait_for_checkpoint(root: Path) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not whole_checkpoints(root):
        assert time.monotonic() < end, "no checkpoint came"
        time.sleep(0.01)


def descendants(pid: int) -> list[int]:
    done = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True)
    pairs = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    found, waiting = [], [pid]
    while waiting:
        parent = waiting.pop()
        children = [child for child, its_parent in pairs if its_parent == parent]
        found, waiting = found + children, waiting + children
    return found


@pytest.fixture(scope="module")
def undisturbed(listed, tmp_path_factory):
    """What two undisturbed processes make, started with the command --print-launch prints, as on two machines."""
    state = shutil.copytree(listed, tmp_path_factory.mktemp("undisturbed") / "state")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = printed_launch(state, "--processes", "1", "--nodes", "2", "--endpoint", f"127.0.0.1:{port}")
    assert not (state / "diarization" / "demo" / "02_train.partial").exists()
    machines = [launch(command) for _ in range(2)]
    said = [machine.communicate(timeout=PATIENCE_SECONDS)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], said
    assert sorted(text.count("02_train  done in") for text in said) == [0, 1], "one of them speaks for both"
    return results(state)


def printed_launch(root: Path, *more: str) -> list[str]:
    printing = begin(root, "--print-launch", *more)
    text, _ = printing.communicate(timeout=PATIENCE_SECONDS)
    assert printing.returncode == 0, text
    return shlex.split(text.splitlines()[-1])


def launch(command: list[str]) -> subprocess.Popen:
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.Popen(
        command,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PATH": programs},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def second_process(root: Path) -> int:
    """Return the pid of the second process, as its log tells it."""
    log = (root / "diarization" / "demo" / "logs" / "rank-1.log").read_text()
    return int(re.findall(r"process 1, pid (\d+)", log)[-1])


def test_torchrun_starts_them_again_when_one_dies(state, undisturbed):
    command = launch(printed_launch(state, "--processes", "2"))
    wait_for_checkpoint(state)
    os.kill(second_process(state), signal.SIGKILL)
    text, _ = command.communicate(timeout=PATIENCE_SECONDS)
    assert command.returncode == 0, text[-5000:]
    # The survivor sees that the other is gone, or torchrun's SIGTERM, whichever comes first.
    assert re.search("Lost another process of 02_train|Stopped by SIGTERM", text) and "continues at step" in text, text[
        -5000:
    ]
    assert results(state) == undisturbed


def test_two_processes_learn_what_one_learns(state, listed, tmp_path):
    """Without dropout, which is drawn anew in each process."""
    other = shutil.copytree(listed, tmp_path / "other")
    with open_here(state, model__dropout=0, train__processes=1) as run:
        run.do("02_train")
    with open_here(other, model__dropout=0, train__processes=2) as run:
        run.do("02_train")
    one, both = history(results(state)), history(results(other))
    assert [row["step"] for row in one] == [row["step"] for row in both] == [6, 12, 18]
    for ours, theirs in zip(both, one, strict=True):
        for name in ("frame_loss", "speaker_loss"):
            assert ours[name] == pytest.approx(theirs[name], abs=1e-4), name


def test_stopped_killed_and_interrupted_it_gives_the_same_bytes(state, undisturbed):
    """One training that meets everything, on a command line and in a notebook."""
    # Asked to stop: all stop at one step, and the exit code says that the same command continues.
    command = begin(state, "--processes", "2")
    wait_for_checkpoint(state)
    command.send_signal(signal.SIGTERM)
    text, _ = command.communicate(timeout=PATIENCE_SECONDS)
    assert command.returncode == 75 and "Stopped by SIGTERM" in text and "Traceback" not in text, text[-3000:]

    # The holder of the run is killed: nobody trains on, and nothing is locked.
    command = begin(state, "--processes", "2")
    read_up_to(command, "  continues at step")
    family = descendants(command.pid)
    assert len(family) >= 3
    command.kill()
    command.communicate()
    end = time.monotonic() + 5
    while any(_is_alive(pid) for pid in family):
        assert time.monotonic() < end, "a trainer lives on"
        time.sleep(0.05)
    halfway = shutil.copytree(state, state.parent / "halfway")

    # In a notebook it goes on, is interrupted, and goes on to the same bytes.
    interrupted, finished = notebook_of(state), notebook_of(state)
    how = {"timeout": PATIENCE_SECONDS, "kernel_name": "python3", "resources": {"metadata": {"path": str(ROOT)}}}
    with pytest.raises(CellExecutionError) as caught:
        Impatient(interrupted, state, **how).execute()
    assert "Stopped by SIGINT" in str(caught.value)
    assert "stopping: the processes save their work" in printed(interrupted)
    NotebookClient(finished, **how).execute()
    assert "continues at step" in printed(finished) and "02_train  done in" in printed(finished)
    assert [o for cell in finished.cells for o in cell.outputs if o.get("name") == "stderr"] == []
    assert printed(finished).count("train: 18/18") == 1, "the progress of one"
    assert results(state) == undisturbed

    # Another number of processes goes on as well.
    said: list[str] = []
    with open_here(halfway, train__processes=1) as run:
        run.say = said.append
        assert run.do("02_train")["metrics"]["train_steps"] == 18
    assert any("continues at step" in line for line in said)


class Impatient(NotebookClient):
    """Interrupts the kernel once training saves a new checkpoint, as the stop button does: the kernel's whole group."""

    def __init__(self, notebook, state: Path, **how):
        super().__init__(notebook, **how)
        self.state_folder = state

    async def async_execute_cell(self, cell, cell_index, *args, **how):
        task = asyncio.ensure_future(super().async_execute_cell(cell, cell_index, *args, **how))
        if cell_index == 1:
            before = whole_checkpoints(self.state_folder)
            while not task.done() and not whole_checkpoints(self.state_folder) - before:
                await asyncio.sleep(0.02)
            await self.km.interrupt_kernel()
        return await task


def notebook_of(state: Path) -> nbformat.NotebookNode:
    sources = (
        "import colabkit\n"
        f"config = colabkit.configure('diarization', 'demo', {{'train.processes': 2}}, {' '.join(settings())!r})\n"
        f"run = colabkit.start('diarization', config, state={str(state)!r})",
        "run.do('02_train');",
        "import sys\nassert 'torch' not in sys.modules, 'the kernel must not touch a GPU that the processes need'",
    )
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])


def read_up_to(command: subprocess.Popen, beginning: str) -> None:
    assert any(line.startswith(beginning) for line in command.stdout), f"{beginning!r} did not come"


def printed(notebook) -> str:
    return "".join(o.text for cell in notebook.cells for o in cell.get("outputs", ()) if o.output_type == "stream")
