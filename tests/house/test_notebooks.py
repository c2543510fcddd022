"""Every notebook keeps to the anatomy; the linter itself is tried on broken ones."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from colabkit.pipelines import discover
from tests.house.anatomy import check, code_cells, source

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))


def test_each_pipeline_has_its_notebook_and_no_other():
    assert [p.stem for p in NOTEBOOKS] == sorted(p.notebook for p in discover()) and len(NOTEBOOKS) >= 1


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_anatomy(path):
    pipeline = next(p for p in discover() if p.notebook == path.stem)
    notebook = json.loads(path.read_text(encoding="utf-8"))
    faults = check(notebook, name=path.stem, step_ids=[s.id for s in pipeline.steps])
    assert not faults, "\n".join(faults)
    assert len(code_cells(notebook)) >= len(pipeline.steps) + 5


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_format_is_valid(path):
    nbformat = pytest.importorskip("nbformat")
    nbformat.validate(nbformat.read(path, as_version=4))


def _markdown(text: str, id: str) -> dict:
    return {"cell_type": "markdown", "id": id, "metadata": {}, "source": text.splitlines(keepends=True)}


def _code(text: str, id: str, *tags: str) -> dict:
    return {"cell_type": "code", "id": id, "metadata": {"tags": list(tags)} if tags else {}, "execution_count": None,
            "outputs": [], "source": text.splitlines(keepends=True)}


DOES = "**Does** it. **Reads** that. **Writes** this. **Takes** a minute."
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
GOOD = {"nbformat": 4, "metadata": {"kernelspec": {"name": "python3"}}, "cells": [
    _markdown(f"# Title\n[![x]({BADGE})](https://x/notebooks/01_a.ipynb)\n| preset | time |\n", "a"),
    _code("import importlib.util\nif importlib.util.find_spec('k') is None:\n    %pip install --quiet k", "b", "install"),
    _code("A = 1  #@param {type:'integer'}\nB = [\"x\"]  #@param", "c", "parameters"),
    _markdown(DOES, "d"), _code("run.do(\"01_x\");", "e"),
    _markdown(DOES, "f"), _code("run.do('02_y');", "g"),
    _code("assert A < 2, 'bad'\nrun.close()", "h"),
    _markdown("## What next", "i")]}


def _with(index: int, **changes) -> dict:
    notebook = copy.deepcopy(GOOD)
    notebook["cells"][index] |= changes
    return notebook


def _with_text(index: int, text: str) -> dict:
    return _with(index, source=[text])


def _plus(text: str) -> dict:
    notebook = copy.deepcopy(GOOD)
    notebook["cells"].insert(7, _code(text, "new"))
    return notebook


def _swapped() -> dict:
    notebook = copy.deepcopy(GOOD)
    notebook["cells"][4], notebook["cells"][6] = notebook["cells"][6], notebook["cells"][4]
    return notebook


BROKEN = {
    "kernelspec": GOOD | {"metadata": {"kernelspec": {"name": "conda-root"}}},
    "cell ids": _with(3, id="a"),
    "is not a title": _with_text(0, f"Title {BADGE} /notebooks/01_a.ipynb | preset |"),
    "no badge": _with_text(0, f"# T {BADGE} /notebooks/02_b.ipynb | preset |"),
    "no table": _with_text(0, f"# T {BADGE} /notebooks/01_a.ipynb"),
    "holds outputs": _with(4, outputs=[{"output_type": "stream", "text": "x"}]),
    "cell g: holds outputs": _with(6, execution_count=3),
    "tag install": _with(1, metadata={}, source=["import k"]),
    "tag parameters": _with(4, metadata={"tags": ["parameters"]}, source=["B = 2  #@param"]),
    "is not NAME = literal": _with_text(2, "A = compute()  #@param"),
    "'import os' is not NAME": _with_text(2, "import os\nA = 1  #@param"),
    "no #@param": _with_text(2, "A = 1"),
    "lines, expected at most": _plus("\n".join(f"x{i} = {i}" for i in range(40))),
    "has def": _plus("def f():\n    pass"),
    "has class": _plus("class A:\n    pass"),
    "has for": _plus("for x in y:\n    print(x)"),
    "has while": _plus("while x:\n    pass"),
    "has lambda": _plus("f = lambda: 1"),
    "has a comprehension": _plus("y = [x for x in z]"),
    "hard path": _plus("x = \"/content/drive/MyDrive\""),
    "shell or magic": _plus("!ls"),
    "calls the shell": _plus("import os\nos.system('ls')"),
    "other means": _with_text(1, "!apt-get install k"),
    "is not Python": _plus("x = = 1"),
    "the text before it lacks **Reads**": _with_text(5, "**Does** it. **Writes** this. **Takes** a minute."),
    "lacks **Does**, **Reads**, **Writes**, **Takes**": _with(5, cell_type="code", source=["x = 1"], outputs=[]),
    "one step a cell": _with_text(4, "run.do('01_x')\nrun.do('02_y')"),
    "the recipe has ['01_x', '02_y']": _swapped(),
    "cells carry out ['01_x']": _with_text(6, "run.other()"),
    "asserts nothing": _with_text(7, "run.close()"),
    "last cell: is not text": GOOD | {"cells": GOOD["cells"][:-1]},
    "what next": _with_text(8, "## The end"),
}


def test_a_good_notebook_has_no_faults():
    assert check(GOOD, name="01_a", step_ids=["01_x", "02_y"]) == []
    assert source(GOOD["cells"][3]) == DOES


@pytest.mark.parametrize("part", BROKEN)
def test_every_departure_is_seen(part):
    faults = check(BROKEN[part], name="01_a", step_ids=["01_x", "02_y"])
    assert any(part in fault for fault in faults), faults
