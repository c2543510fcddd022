"""A notebook that is killed, kernel or papermill or both, and run again makes what an undisturbed one makes.

A short campaign.

benchmarks/notebook_kills.py is the long one.
"""

from __future__ import annotations

import json

import nbformat
import pytest

from colabkit.core.errors import EXIT_STOPPED
from tests.headless.conftest import printed
from tests.headless.notebook_killing import CHECKPOINT_EVERY_STEPS, PIPELINE, Campaign, Server, arguments, made_by

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SECONDS_TO_SKIP = 5.0  # of all cells of a finished notebook, as the kernel's clock has it; imports are not counted


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("kills")


@pytest.fixture(scope="module")
def server(place):
    with Server(place / "server") as server:
        yield server


def run(server, place, name: str, **order) -> tuple[dict, nbformat.NotebookNode, str]:
    log, output = place / f"{name}.log", place / f"{name}.ipynb"
    log.unlink(missing_ok=True)
    answer = server.run(
        {"arguments": arguments(place / "state", name, output), "log": str(log), "steps": str(place / "steps"), **order}
    )
    return answer, nbformat.read(output, as_version=4), log.read_text()


@pytest.fixture(scope="module")
def finished(server, place):
    """The undisturbed run, by which all others are measured."""
    answer, _, text = run(server, place, "finished")
    assert answer["code"] == 0, text
    return place / "state" / PIPELINE / "finished"


def test_killed_and_run_again(server, place, finished):
    campaign = Campaign(server, place / "campaign", made_by(place / "state", "finished"))
    cells = _cells_with_steps(place)
    for cell, moment, victims in (
        (cells[0], "after", ("kernel",)),
        (cells[1], "after", ("kernel", "papermill")),
        (cells[2], "before", ("papermill",)),
        (cells[3], "before", ("kernel",)),
    ):
        assert campaign.attempt(cell=cell, moment=moment, victims=victims), f"was not killed {moment} cell {cell}"
    campaign.finish()
    for step, victims in ((4, ("kernel",)), (8, ("papermill",))):
        assert campaign.attempt(kill_at_step=step, victims=victims), f"was not killed at step {step}"
    campaign.seconds = 3.0
    campaign.at_random(8, seed=1)
    tally = campaign.finish()
    print(tally)
    assert (
        tally.faults == []
        and tally.num_kills >= 8
        and tally.runs >= 2
        and set(tally.kills) == {"kernel", "papermill", "kernel+papermill"}
    )
    assert 0 < tally.repeated_steps and tally.most_repeated_steps <= CHECKPOINT_EVERY_STEPS


def _cells_with_steps(place) -> list[int]:
    cells = [c for c in nbformat.read(place / "finished.ipynb", as_version=4).cells if c.cell_type == "code"]
    return [index for index, cell in enumerate(cells) if cell.source.startswith("run.do(")]


def test_sigterm_in_the_middle_of_training(server, place, finished):
    """papermill gets the signal, training stores a checkpoint, and goes on exactly there."""
    (place / "steps").unlink()
    answer, notebook, text = run(server, place, "terminated", stop_at_step=4)
    assert answer["code"] == EXIT_STOPPED, text
    assert "Stopped by SIGTERM" in text and "run the same command again" in text and "Traceback" not in text
    done = list(map(int, (place / "steps").read_text().split()))
    assert done[:5] == [0, 1, 2, 3, 4] and len(done) <= 7
    failed = [c for c in notebook.cells if c.metadata.papermill.status == "failed"]
    assert len(failed) == 1 and "02_train" in failed[0].source and failed[0].outputs[-1].ename == "Stopped"
    (place / "steps").unlink()
    answer, notebook, text = run(server, place, "terminated")
    assert answer["code"] == 0, text
    assert next(map(int, (place / "steps").read_text().split())) == done[-1] + 1, (
        "no step is repeated, none is left out"
    )
    assert f"continues at step {done[-1] + 1} of 12" in printed(notebook)
    assert made_by(place / "state", "terminated") == made_by(place / "state", "finished")


def test_a_finished_notebook_takes_seconds(server, place, finished):
    """Measured by the kernel's own clock, from the first cell to the last."""
    answer, notebook, text = run(server, place, "finished")
    num_steps = len(list((finished / "ledger").glob("*.json")))
    assert answer["code"] == 0 and printed(notebook).count("  skip: done ") == num_steps, text
    times = [c.metadata.execution for c in notebook.cells if c.cell_type == "code"]
    seconds = sum(_seconds(t["iopub.status.busy"], t["iopub.status.idle"]) for t in times)
    assert seconds < SECONDS_TO_SKIP, f"{seconds:.1f} s in {len(times)} cells"
    assert json.loads((finished / "report.json").read_text())["state"] == "done"


def _seconds(start: str, end: str) -> float:
    from datetime import datetime

    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
