"""Command, `colabkit notebook`, papermill and nbmake make the same of a pipeline, to the last bit.

tests/browser compares JupyterLab with the command. nbmake's kernel has no ipywidgets, the others' have: nothing may
look different.
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest

from colabkit.pipelines import Pipeline
from tests.contracts.conftest import ROOT
from tests.contracts.killing import differences, environment, results
from tests.contracts.notebooks import LENIENT, ledgers, with_parameters
from tests.contracts.small import settings_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
AT_ONCE = 2  # more would fight for the cores of a small machine

BLOCKER = """import sys


class NoWidgets:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("ipywidgets", "widgetsnbextension", "jupyterlab_widgets"):
            raise ModuleNotFoundError(f"No module named {name!r}: blocked by this test", name=name)


sys.meta_path.insert(0, NoWidgets())
"""


@dataclass(frozen=True)
class Made:
    """What a front end made: the run's folder, what it printed, and the executed notebook if there is one."""

    folder: Path
    text: str
    notebook: nbformat.NotebookNode | None = None

    def said(self) -> list[str]:
        """Return what was decided and chosen, without times."""
        text = (
            self.text
            if self.notebook is None
            else "".join(o.text for o in _outputs(self.notebook) if o.output_type == "stream" and o.name == "stdout")
        )
        return [
            line for line in text.splitlines() if re.match(r"\d\d_\w+  (run|skip|stop)|  choice: |  left aside: ", line)
        ]


def _outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def _shell(command: list[str], cwd: Path, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=cwd,
        env=environment(threads=1) | variables,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=800,
    )
    assert done.returncode == 0, f"{command[0]} ended with exit code {done.returncode}:\n{done.stdout[-4000:]}"
    return done.stdout


def _parameters(pipeline: Pipeline, place: Path) -> list[str]:
    given = {"STATE": str(place / "state"), "SETTINGS": " ".join(settings_of(pipeline)), **LENIENT[pipeline.name]}
    return [f"{name}={value}" for name, value in given.items()]


def with_notebook_command(pipeline: Pipeline, place: Path) -> Made:
    target = place / "executed.ipynb"
    text = _shell(
        [
            "colabkit",
            "notebook",
            pipeline.name,
            "--output",
            str(target),
            *(word for given in _parameters(pipeline, place) for word in ("-p", given)),
        ],
        place,
    )
    return Made(place / "state" / pipeline.name / "demo", text, nbformat.read(target, as_version=4))


def with_papermill(pipeline: Pipeline, place: Path) -> Made:
    source, target = ROOT / "notebooks" / f"{pipeline.notebook}.ipynb", place / "executed.ipynb"
    text = _shell(
        [
            "papermill",
            str(source),
            str(target),
            "--log-output",
            "--no-progress-bar",
            *(word for given in _parameters(pipeline, place) for word in ("-p", *given.split("=", 1))),
        ],
        place,
    )
    return Made(place / "state" / pipeline.name / "demo", text, nbformat.read(target, as_version=4))


def with_nbmake(pipeline: Pipeline, place: Path) -> Made:
    """nbmake takes no parameters: the values stand in a copy, the state in the environment."""
    source = json.loads((ROOT / "notebooks" / f"{pipeline.notebook}.ipynb").read_text())
    copy, blocker = place / "copy.ipynb", place / "without_widgets"
    copy.write_text(
        json.dumps(with_parameters(source, {"SETTINGS": " ".join(settings_of(pipeline)), **LENIENT[pipeline.name]}))
    )
    blocker.mkdir()
    (blocker / "sitecustomize.py").write_text(BLOCKER)
    text = _shell(
        [
            "pytest",
            "--nbmake",
            "--overwrite",
            "--nbmake-timeout=800",
            "-p",
            "no:cacheprovider",
            "-c",
            "/dev/null",
            "--rootdir",
            str(place),
            str(copy),
        ],
        place,
        COLABKIT_STATE=str(place / "state"),
        PYTHONPATH=str(blocker),
    )
    return Made(place / "state" / pipeline.name / "demo", text, nbformat.read(copy, as_version=4))


FRONT_ENDS: tuple[Callable[[Pipeline, Path], Made], ...] = (with_papermill, with_notebook_command, with_nbmake)


@pytest.fixture(scope="module")
def made(bench, tmp_path_factory) -> dict[str, Made]:
    """Return what each front end made of the same settings, by its name; the command's is that of all contracts."""
    names = [function.__name__.removeprefix("with_") for function in FRONT_ENDS]
    places = [tmp_path_factory.mktemp(name) for name in names]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        command = pool.submit(lambda: bench.plain)
        started = [
            pool.submit(function, bench.pipeline, place) for function, place in zip(FRONT_ENDS, places, strict=True)
        ]
        made = {name: future.result() for name, future in zip(names, started, strict=True)}
    assert command.result().code == 0, command.result().text
    return made | {"command": Made(bench.folder("plain"), command.result().text)}


def test_all_front_ends_make_the_same(made):
    expected = ledgers(made["command"].folder)
    assert len(expected) >= 3 and all(record["outputs"] and record["identity"] for record in expected.values())
    for name, one in made.items():
        assert differences(results(made["command"].folder), results(one.folder)) == [], name
        assert ledgers(one.folder) == expected, name


def test_all_front_ends_say_the_same(made):
    expected = made["command"].said()
    assert len([line for line in expected if line[0].isdigit()]) == len(ledgers(made["command"].folder))
    assert {name: one.said() for name, one in made.items()} == dict.fromkeys(made, expected)
    assert set(expected) <= {line.rstrip() for line in made["papermill"].text.splitlines()}, (
        "papermill's log says it, too"
    )


def test_notebooks_show_the_same_with_and_without_widgets(made):
    shown = {name: _shown(made[name].notebook) for name in ("papermill", "notebook_command", "nbmake")}
    assert shown["papermill"] == shown["nbmake"] == shown["notebook_command"]
    for name in shown:
        data = [o.data for o in _outputs(made[name].notebook) if "data" in o]
        assert len(data) >= 4 and all("text/plain" in d for d in data), "what a log or a terminal shows"
        assert not any("widget" in kind for d in data for kind in d), "an empty box where no widgets are"
        assert [o.text for o in _outputs(made[name].notebook) if o.output_type == "stream" and o.name == "stderr"] == []


def _shown(notebook: nbformat.NotebookNode) -> list[tuple[str, list]]:
    """Return each cell's source and the kinds of its outputs; how printed lines are cut into outputs is chance."""
    cells = [c for c in notebook.cells if c.cell_type == "code" and "parameters" not in str(c.metadata.get("tags"))]
    return [
        (
            cell.source,
            [kind for kind, _ in itertools.groupby((o.output_type, *sorted(o.get("data", ()))) for o in cell.outputs)],
        )
        for cell in cells
    ]


def test_there_were_no_widgets_where_there_should_be_none(made, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(BLOCKER)
    done = subprocess.run(
        [sys.executable, "-c", "import ipywidgets"],
        env=environment(1) | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "blocked by this test" in done.stderr
    table = next(
        o.data["text/plain"]
        for o in _outputs(made["nbmake"].notebook)
        if "widgets" in o.get("data", {}).get("text/plain", "")
    )
    assert re.search(r"^widgets +no\b", table, flags=re.MULTILINE), table
