"""One step in several processes: shown as one, stopped together, and no process outlives the one that holds the run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from colabkit.core.errors import DataError, StateError, Stopped, UsageError
from colabkit.runs.run import Run
from colabkit.runs.state import open_run
from colabkit.runs.steps import step
from colabkit.training.processes import team as team_module
from colabkit.training.processes.handoff import Handoff
from tests.training.processes import team_steps

ROOT = Path(__file__).parents[3]
SOON_SECONDS = 8.0  # on a busy machine; on a quiet one a lost process is noticed within one


@pytest.fixture
def team(tmp_path, monkeypatch):
    """Return a function that carries the step out and returns its metrics; what was said is in `said`."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    said: list[str] = []

    def carry_out(trouble: str = "", **settings):
        config = team_steps.Config(team=team_steps.TeamConfig(trouble=trouble, **settings))
        with Run(
            pipeline="team",
            steps=team_steps.STEPS,
            config=config,
            preset="demo",
            run_folder=open_run(tmp_path, "team", "a"),
            say=said.append,
            carry_out=team_module.carry_out,
        ) as run:
            carry_out.run = run
            run.do_all()
            return run.ledger.record(team_steps.together)["metrics"]

    carry_out.said, carry_out.path = said, tmp_path / "team" / "a"
    return carry_out


def report(team) -> dict:
    return json.loads((team.path / "report.json").read_text())


def pids(team) -> list[int]:
    """Return the processes of the latest team."""
    return [json.loads(path.read_text())["pid"] for path in (team.run.scratch / "processes").glob("rank-*.json")]


def gone(numbers: list[int]) -> bool:
    return not any(team_module._is_alive(pid) for pid in numbers)


def test_it_looks_like_one_process(team, capsys):
    metrics = team()
    assert metrics == {
        "world": 2,
        "squares": [0, 1, 4, 9, 16],
        "who": [0, 1, 0, 1, 0],
        "any": [True, False],
        "all": [True, False],
        "from_first": "made by 0",
        "gathered": [0, 1],
    }
    assert "process 0 works" in team.said and "process 1 works" not in team.said
    assert "no end of line" in team.said, "an event came after it"
    assert team.said.index("Grüße") < team.said.index("100 %")
    assert "  choice: team.size = 2, because there are so many" in team.said
    assert "work: 20/20" in capsys.readouterr().out
    told = report(team)
    assert told["choices"] == [{"name": "team.size", "value": 2, "reason": "there are so many"}]
    assert told["problems"] == [{"item": "ä", "reason": "is no\nb"}]
    logs = {name: (team.path / "logs" / name).read_text() for name in ("rank-0.log", "rank-1.log")}
    assert "stderr of 0" in logs["rank-0.log"] and "process 0 works" not in logs["rank-0.log"]
    assert "process 1 works" in logs["rank-1.log"] and "stderr of 1" in logs["rank-1.log"]
    assert not any("stderr of" in line for line in team.said) and gone(pids(team))


def test_an_error_of_any_process_is_the_error_of_the_step(team):
    with pytest.raises(DataError) as caught:
        team("bad data")
    assert str(caught.value) == str(DataError("Cannot read ä", got=["a", 1], expected="b", where="c", fix="d"))
    assert type(caught.value) is DataError and gone(pids(team)) and report(team)["state"] == "failed"
    assert "  process 1 said last:" in team.said


def test_a_killed_process_ends_the_step_within_seconds(team):
    with pytest.raises(StateError) as caught:
        team("killed")
    assert time.time() - float(team.said[-1]) < SOON_SECONDS
    text = str(caught.value)
    assert "Process 1 of 2 was killed by SIGKILL in 01_team" in text and "memory" in text
    assert (
        str(team.path / "logs" / "rank-1.log") in text and "run the same again" in text and "team.processes=1" in text
    )
    assert gone(pids(team))


def test_a_fault_of_the_program_is_told_with_its_log(team):
    with pytest.raises(StateError) as caught:
        team("fault")
    assert "Process 0 of 2 failed in 01_team: ValueError: a fault of the program" in str(caught.value)
    assert any("Traceback" in line for line in team.said)


def test_a_full_disk_is_told_as_in_one_process(team):
    with pytest.raises(StateError) as caught:
        team("disk full")
    assert "full" in str(caught.value) and caught.value.errno == 28


@pytest.mark.parametrize("how", ["asked", "interrupted"])
def test_all_stop_in_good_order(team, how):
    def stop() -> None:
        if until(lambda: "process 0 works" in team.said):
            if how == "asked":
                team.run.stop_requested = "SIGTERM"
            else:
                os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(Stopped) as caught:
        team("waits")
    thread.join()
    assert ("SIGTERM" if how == "asked" else "SIGINT") in str(caught.value) and "run the same" in str(caught.value)
    assert gone(pids(team)) and report(team)["state"] == "stopped"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_interrupted_twice_it_ends_at_once(team):
    """The processes of this trouble never look whether they should stop."""

    def stop() -> None:
        if until(lambda: "process 0 works" in team.said):
            os.kill(os.getpid(), signal.SIGINT)
            until(lambda: any("stopping" in line for line in team.said))
            os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=stop).start()
    with pytest.raises(KeyboardInterrupt):
        team("deaf")
    assert gone(pids(team))


def test_nobody_works_on_for_a_holder_that_was_killed(tmp_path):
    command = [sys.executable, "-m", "tests.training.processes.team_steps", str(tmp_path), "waits"]
    holder = subprocess.Popen(
        command,
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    for line in holder.stdout:
        if "process 0 works" in line:
            break
    family = descendants(holder.pid)
    assert len(family) == 3, "the launcher and two processes"
    holder.kill()
    holder.wait()
    assert until(lambda: gone(family), 3.0), "they live on"
    holder.stdout.close()


def until(true, seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def descendants(pid: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it ended meanwhile
        if parent == pid:
            found += [int(folder.name), *descendants(int(folder.name))]
    return found


# --- how many ---


def fake_gpus(monkeypatch, folder: Path, count: int) -> None:
    """Put an nvidia-smi that lists so many GPUs first in the PATH, and a torch that could use them."""
    rows = "\n".join(f"{i}, GPU-{i}, Tesla T4, 15360, 7.5" for i in range(count))
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{rows}\nEND\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("colabkit.core.accelerators.installed_version", lambda package: "2.9.0")


class Chooser:
    """What is asked of a run to find out how many processes a step takes."""

    def __init__(self, number: int):
        self.config, self.chosen = team_steps.Config(team=team_steps.TeamConfig(processes=number)), []

    def choose(self, name, value, reason):
        self.chosen.append((name, value, reason))
        return value


@pytest.mark.parametrize("gpus, wanted, number", [(0, 0, 1), (0, 3, 3), (1, 0, 1), (4, 0, 4), (4, 2, 2), (4, 1, 1)])
def test_one_process_a_gpu_unless_told_otherwise(tmp_path, monkeypatch, gpus, wanted, number):
    fake_gpus(monkeypatch, tmp_path, gpus)
    run = Chooser(wanted)
    assert team_module._num_processes(team_steps.together, run) == number
    assert run.chosen == ([("team.processes", 4, "there are 4 GPUs")] if (gpus, wanted) == (4, 0) else [])


def test_more_processes_than_gpus_are_refused(tmp_path, monkeypatch):
    fake_gpus(monkeypatch, tmp_path, 2)
    with pytest.raises(UsageError) as caught:
        team_module._num_processes(team_steps.together, Chooser(3))
    assert "team.processes=3" in str(caught.value) and "at most 2" in str(caught.value)


def test_slices_of_a_gpu_and_a_torch_without_cuda_give_one_process(tmp_path, monkeypatch):
    fake_gpus(monkeypatch, tmp_path, 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1,MIG-2")
    assert team_module._num_processes(team_steps.together, Chooser(0)) == 1
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr("colabkit.core.accelerators.installed_version", lambda package: "2.9.0+cpu")
    assert team_module._num_processes(team_steps.together, Chooser(0)) == 1


def test_a_step_made_in_a_notebook_is_refused(tmp_path):
    def function(config, run):
        """Work."""

    function.__module__ = "__main__"
    made = step("01_made", processes="team.processes")(function)
    run = Chooser(2)
    run.pipeline, run.preset, run.path, run.output = "team", "demo", tmp_path, tmp_path
    with pytest.raises(UsageError) as caught:
        Handoff.of(made, run, {})
    assert "team.processes=1" in str(caught.value)
