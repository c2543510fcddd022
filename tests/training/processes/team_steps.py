"""A pipeline of one step that works in several processes, and in which what is asked for goes wrong."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from colabkit.core import files
from colabkit.core.config import KEEPS_RESULT
from colabkit.core.errors import DataError
from colabkit.runs.run import Run
from colabkit.runs.state import open_run
from colabkit.runs.steps import step
from colabkit.training.processes import ranks
from colabkit.training.processes.team import carry_out

LONG_SECONDS = 60.0  # longer than any test waits: who is left behind is ended, or the test fails


@dataclass(frozen=True, slots=True, kw_only=True)
class TeamConfig:
    processes: Annotated[int, "how many", KEEPS_RESULT] = 2
    units: Annotated[int, "how long it works"] = 20
    trouble: Annotated[str, "what goes wrong", KEEPS_RESULT] = ""
    words: Annotated[tuple[str, ...], "what is said"] = ("Grüße", "100 %")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    team: Annotated[TeamConfig, "the step"] = field(default_factory=TeamConfig)


@step("01_team", uses=("team",), writes=("result.json",), resumes=True, processes="team.processes")
def together(config, run):
    """Work together."""
    rank = int(os.environ.get("RANK", "0"))
    run.say(f"process {rank} works")
    print(f"stderr of {rank}", file=sys.stderr)
    if config.team.trouble:
        return TROUBLES[config.team.trouble](rank, run)
    team = ranks.join()
    print("no end of line", end="")
    run.choose("team.size", team.world, "there are so many")
    run.report.problem("ä", "is no\nb")
    squares = team.share(range(5), lambda part: [(i * i, team.rank) for i in part])
    told = {
        "world": team.world,
        "squares": [value for value, _ in squares],
        "who": [who for _, who in squares],
        "any": [team.any(rank == 1), team.any(False)],
        "all": [team.all(True), team.all(rank == 0)],
        "from_first": team.from_first(lambda: f"made by {rank}"),
        "gathered": team.gather(rank),
    }
    with run.progress(config.team.units, "work", done=2) as progress:
        for _ in range(2, config.team.units):
            progress.update(loss=0.5)
    for word in config.team.words:
        run.say(word)
    if not team.is_first:
        return None
    files.write_json(run.output / "result.json", told)
    return told


def _wait(rank, run):
    deadline = time.monotonic() + LONG_SECONDS
    while not run.stop_requested and time.monotonic() < deadline:
        time.sleep(0.02)
    if run.stop_requested:
        raise run.stopped()
    raise RuntimeError("nobody stopped this process")


def _bad_data(rank, run):
    if rank != 1:
        time.sleep(LONG_SECONDS)
    time.sleep(0.2)
    raise DataError("Cannot read ä", got=["a", 1], expected="b", where="c", fix="d")


def _killed(rank, run):
    team = ranks.join()
    if rank == 1:
        print(time.time(), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    team.gather(rank)  # fails, as one is gone: this is not what is to be told


def _fault(rank, run):
    if rank == 0:
        raise ValueError("a fault of the program")
    time.sleep(LONG_SECONDS)


def _disk_full(rank, run):
    if rank == 0:
        raise OSError(28, "No space left on device", str(run.output / "x"))
    time.sleep(LONG_SECONDS)


def _deaf(rank, run):
    time.sleep(LONG_SECONDS)


TROUBLES = {
    "waits": _wait,
    "deaf": _deaf,
    "bad data": _bad_data,
    "killed": _killed,
    "fault": _fault,
    "disk full": _disk_full,
}
STEPS = (together,)


def main() -> None:
    """Carry it out: the folder, and what goes wrong."""
    folder, config = open_run(Path(sys.argv[1]), "team", "a"), Config(team=TeamConfig(trouble=sys.argv[2]))
    with Run(pipeline="team", steps=STEPS, config=config, preset="demo", run_folder=folder, carry_out=carry_out) as run:
        run.do_all()


if __name__ == "__main__":
    from tests.training.processes import team_steps  # by its name: other processes must find it

    team_steps.main()
