"""Every notebook keeps to the anatomy; the linter itself is tried on broken ones, one for each rule."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest

from colabkit.pipelines import discover
from notebooks.stamp import Address, install_cell
from tests.house import forms
from tests.house.anatomy import check, check_file, check_text, code_cells, main, source, tagged

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_each_pipeline_has_its_notebook_and_no_other():
    assert [p.stem for p in NOTEBOOKS] == sorted(p.notebook for p in discover()) and len(NOTEBOOKS) >= 1


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_anatomy(path):
    faults = check_file(path)
    assert not faults, "\n".join(faults)
    pipeline = next(p for p in discover() if p.notebook == path.stem)
    assert len(code_cells(json.loads(path.read_text(encoding="utf-8")))) >= len(pipeline.steps) + 5


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_format_is_valid_and_saving_changes_nothing(path):
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert nbformat.writes(notebook) + "\n" == path.read_text(encoding="utf-8"), "JupyterLab would write it otherwise"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_papermill_reads_the_same_parameters(path):
    papermill = pytest.importorskip("papermill")
    seen = papermill.inspect_notebook(path)
    mine = forms.parameters(tagged(json.loads(path.read_text(encoding="utf-8")), "parameters"))
    assert {name: eval(about["default"]) for name, about in seen.items()} == mine
    assert all(about["help"].startswith("@param") for about in seen.values())


WHERE = Address("someone/kit", "v1.0")


def _markdown(text: str, id: str) -> dict:
    return {"cell_type": "markdown", "id": id, "metadata": {}, "source": text.splitlines(keepends=True)}


def _code(text: str, id: str, *tags: str) -> dict:
    return {
        "cell_type": "code",
        "id": id,
        "metadata": {"tags": list(tags)} if tags else {},
        "execution_count": None,
        "outputs": [],
        "source": text.splitlines(keepends=True),
    }


DOES = "**Does** it. **Reads** that. **Writes** this. **Takes** a minute."
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
LINK = f"[![x]({BADGE})]({WHERE.badge}/notebooks/01_a.ipynb)"
TABLE = (
    "| preset | time | memory | disk | accounts |\n|-|-|-|-|-|\n"
    "| `demo` | 1 | 2 | 3 | 4 |\n| `full` | 1 | 2 | 3 | 4 |\n"
)
PARAMETERS = """PRESET = "demo"  #@param ["demo", "full"]
RUN = ""  #@param {type:"string"}
STATE = ""  #@param {type: "string"}
SETTINGS = ""  #@param {type:"string"}
SIZE = 3  #@param {type:"slider", min:1, max:9, step:1}
KIND = "c"  #@param ["a", "b"] {allow-input: true}
DAY = "2026-01-31"  #@param {type:"date"}
FAST = True  #@param {type:"boolean"}
LARGEST = 0.5  #@param {type:"number"}"""
(
    TITLE,
    T_INSTALL,
    INSTALL,
    T_PARAMETERS,
    PARAMETER,
    T_CONFIGURE,
    CONFIGURE,
    T_START,
    START,
    T_FIRST,
    FIRST,
    T_SECOND,
    SECOND,
    T_RESULTS,
    RESULTS,
    ASSERTION,
    LAST,
) = range(17)
GOOD = {
    "nbformat": 4,
    "nbformat_minor": 5,
    "cells": [
        _markdown(f"# Title\n{LINK}\n{TABLE}", "a"),
        _markdown("## Install", "b"),
        _code(install_cell("kit", WHERE), "c", "install"),
        _markdown("## Parameters", "d"),
        _code(PARAMETERS, "e", "parameters"),
        _markdown("## Configuration", "f"),
        _code('config = colabkit.configure("kit", PRESET, [SIZE, KIND, DAY, FAST], SETTINGS)', "g"),
        _markdown("## Start", "h"),
        _code('run = colabkit.start("kit", config, preset=PRESET, run=RUN, state=STATE)', "i"),
        _markdown(DOES, "j"),
        _code('run.do("01_x");', "k"),
        _markdown(DOES, "l"),
        _code("run.do('02_y');", "m"),
        _markdown("## Results", "n"),
        _code("display(run.metrics_table())", "o"),
        _code("assert der < LARGEST, f'bad: {der}'\nrun.close()", "p"),
        _markdown("## What next\nAll is in the run's folder; run it again, it continues.", "q"),
    ],
    "metadata": {
        "accelerator": "GPU",
        "colab": {"provenance": [], "toc_visible": True},
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
    },
}
FACTS = {"name": "01_a", "pipeline": "kit", "presets": ["demo", "full"], "step_ids": ["01_x", "02_y"], "where": WHERE}


def _with(index: int, **changes) -> dict:
    notebook = copy.deepcopy(GOOD)
    notebook["cells"][index] |= changes
    return notebook


def _with_text(index: int, text: str) -> dict:
    return _with(index, source=[text])


def _put(index: int, old: str, new: str) -> dict:
    text = source(GOOD["cells"][index])
    assert old in text
    return _with_text(index, text.replace(old, new))


def _plus(text: str) -> dict:
    notebook = copy.deepcopy(GOOD)
    notebook["cells"][RESULTS]["source"] = [text]
    return notebook


def _swapped(a: int, b: int) -> dict:
    notebook = copy.deepcopy(GOOD)
    notebook["cells"][a], notebook["cells"][b] = notebook["cells"][b], notebook["cells"][a]
    return notebook


def _metadata(**changes) -> dict:
    return GOOD | {"metadata": GOOD["metadata"] | changes}


BROKEN = {
    "cells: there are none": {"cells": [], "metadata": {}},
    # what a front end leaves behind
    "nbformat: is not 4.5": GOOD | {"nbformat_minor": 4},
    "kernelspec": _metadata(kernelspec={"name": "conda-root"}),
    "metadata: papermill": _metadata(papermill={"duration": 1}),
    "metadata: widgets": _metadata(widgets={"x": {}}),
    "metadata: language_info": _metadata(language_info={"name": "python", "version": "3.11.7"}),
    "metadata: colab holds": _metadata(colab={"provenance": [{"file_id": "1aB"}]}),
    "colab holds more": _metadata(colab={"provenance": [], "name": "Copy of 01", "gpuType": "T4"}),
    "cell k: metadata execution": _with(FIRST, metadata={"execution": {"iopub.execute_input": "2026-01-01"}}),
    "cell k: metadata executionInfo": _with(
        FIRST, metadata={"executionInfo": {"user": {"userId": "1"}}, "outputId": "x"}
    ),
    "cell e: metadata colab": _with(PARAMETER, metadata={"tags": ["parameters"], "colab": {"base_uri": "x"}}),
    "tag injected-parameters": _with(FIRST, metadata={"tags": ["injected-parameters"]}),
    "tag skip-execution": _with(FIRST, metadata={"tags": ["skip-execution"]}),
    "holds outputs": _with(FIRST, outputs=[{"output_type": "stream", "text": "x"}]),
    "cell m: holds outputs": _with(SECOND, execution_count=3),
    "holds an attachment": _with(T_FIRST, attachments={"a.png": {}}),
    "holds a token": _plus('token = "hf_abcdefghijklmnopqrstuvwxyz"'),
    "cell ids": _with(FIRST, id="a"),
    "there, valid and different": _with(FIRST, id="no blanks"),
    "tag install": _with(INSTALL, metadata={}),
    "tag parameters": _with(FIRST, metadata={"tags": ["parameters"]}),
    # title
    "is not a title": _put(TITLE, "# Title", "Title"),
    "no badge": _put(TITLE, "01_a.ipynb", "02_b.ipynb"),
    "the badge does not open": _put(TITLE, "v1.0", "main"),
    "no table": _put(TITLE, "accounts", "notes"),
    "the table does not list the presets demo, full": _put(TITLE, "`full`", "`large`"),
    # order
    "order: expected install, parameters": _swapped(INSTALL, PARAMETER),
    "look at configuration, start": _swapped(CONFIGURE, START),
    "look at configuration": _put(CONFIGURE, '"kit", PRESET', '"kit", "demo"'),
    "look at start": _put(START, '"kit"', '"other"'),
    "cell e: has no text before it": _with(T_PARAMETERS, cell_type="code", outputs=[]),
    # install
    "install: the address is not git+https://github.com/someone/kit@v1.0": _put(INSTALL, "@v1.0", "@main"),
    "run make stamp": _put(INSTALL, "someone/kit", "else/kit"),
    "the extra is not [kit]": _put(INSTALL, "colabkit[kit]", "colabkit[all]"),
    "install: is not what": _with_text(INSTALL, "!apt-get install k"),
    # without quotes the shell sees brackets
    "notebooks/stamp.py says": _put(INSTALL, '"colabkit[kit]', "colabkit[kit]"),
    # forms
    "is not NAME = literal": _put(PARAMETER, "SIZE = 3", "SIZE = compute()"),
    "'import os' is not NAME": _put(PARAMETER, 'FAST = True  #@param {type:"boolean"}', "import os"),
    "parameters: is not Python": _put(PARAMETER, "SIZE = 3", "SIZE = = 3"),
    "SIZE is assigned twice": _put(PARAMETER, "FAST = True", 'SIZE = 1  #@param {type:"integer"}\nFAST = True'),
    "size is not in capitals": _put(PARAMETER, "SIZE", "size"),
    "FAST does not stand on a line of its own": _put(PARAMETER, "FAST = True", "FAST = (\n  True)"),
    "KIND has a # in its default": _put(PARAMETER, '"c"', '"#c"'),
    "has no #@param form": _put(PARAMETER, 'RUN = ""  #@param {type:"string"}', 'RUN = ""'),
    "'# a word' is not a parameter": _put(PARAMETER, "SIZE = 3", "# a word\nSIZE = 3"),
    "SETTINGS missing": _put(PARAMETER, "SETTINGS", "SETTING"),
    "is not #@param [choices] {options}": _put(PARAMETER, '["a", "b"]', '["a", "b"'),
    "the form is not JSON": _put(PARAMETER, '["a", "b"]', "['a', 'b']"),
    "Colab's forms know no typ": _put(PARAMETER, 'SETTINGS = ""  #@param {type:', 'SETTINGS = ""  #@param {typ:'),
    "neither choices nor a type": _put(PARAMETER, '{type:"boolean"}', ""),
    "the default 'dmo' is not among": _put(PARAMETER, 'PRESET = "demo"', 'PRESET = "dmo"'),
    "the default 'c' is not among": _put(PARAMETER, " {allow-input: true}", ""),
    "PRESET: the choices are ['demo']": _put(PARAMETER, '["demo", "full"]', '["demo"]'),
    "'text' is no type": _put(PARAMETER, 'RUN = ""  #@param {type:"string"}', 'RUN = ""  #@param {type:"text"}'),
    "is not of the form's type string": _put(PARAMETER, 'RUN = ""', "RUN = 3"),
    "is not of the form's type number": _put(PARAMETER, "LARGEST = 0.5", "LARGEST = True"),
    "is not of the form's type boolean": _put(PARAMETER, "FAST = True", "FAST = 1"),
    "a slider needs min, max and step": _put(PARAMETER, ", step:1", ""),
    "outside of the slider": _put(PARAMETER, "SIZE = 3", "SIZE = 30"),
    "is no date": _put(PARAMETER, "2026-01-31", "31.1.2026"),
    "nothing uses DAY": _put(CONFIGURE, "DAY, ", ""),
    # code
    "lines, expected at most": _plus("\n".join(f"x{i} = {i}" for i in range(40))),
    "has def": _plus("def f():\n    pass"),
    "has class": _plus("class A:\n    pass"),
    "has for": _plus("for x in y:\n    print(x)"),
    "has while": _plus("while x:\n    pass"),
    "has if": _plus("if x:\n    y = 1"),
    "has if; move": _plus("x = 1 if y else 2"),
    "has with": _plus("with open(x) as f:\n    pass"),
    "has try": _plus("try:\n    x\nexcept OSError:\n    y"),
    "has lambda": _plus("f = lambda: 1"),
    "has :=": _plus("print(x := 1)"),
    "has raise": _plus("raise ValueError"),
    "has a comprehension": _plus("y = [x for x in z]"),
    "hard path": _plus('x = "/content/drive/MyDrive"'),
    "shell or magic": _plus("!ls"),
    "magic line": _plus("%matplotlib inline"),
    "calls the shell": _plus("import os\nos.system('ls')"),
    "calls eval": _plus("eval('1')"),
    "imports *": _plus("from os import *"),
    "is not Python": _plus("x = = 1"),
    # steps and the end
    "the text before it lacks **Reads**": _with_text(T_SECOND, "**Does** it. **Writes** this. **Takes** a minute."),
    "lacks **Does**, **Reads**, **Writes**, **Takes**": _with(T_SECOND, cell_type="code", source=["x = 1"], outputs=[]),
    "one step a cell": _with_text(FIRST, "run.do('01_x')\nrun.do('02_y')"),
    "the recipe has ['01_x', '02_y']": _swapped(FIRST, SECOND),
    "cells carry out ['01_x']": _with_text(SECOND, "run.other()"),
    "asserts nothing": _with_text(ASSERTION, "run.close()"),
    "without a message": _with_text(ASSERTION, "assert der < LARGEST\nrun.close()"),
    "no limit that is a parameter": _with_text(ASSERTION, "assert der < 0.5, 'bad'"),
    "last cell: is not text": GOOD | {"cells": GOOD["cells"][:-1]},
    "does not say what next": _put(LAST, "What next", "The end"),
    "does not say where the files are": _put(LAST, "folder", "place"),
    "does not say how it resumes": _put(LAST, "continues", "works"),
}


def test_a_good_notebook_has_no_faults():
    assert check(GOOD, **FACTS) == []
    assert check_text(json.dumps(GOOD, indent=1, sort_keys=True) + "\n", **FACTS) == []
    assert source(GOOD["cells"][T_FIRST]) == DOES


@pytest.mark.parametrize("part", BROKEN)
def test_every_departure_is_seen(part):
    faults = check(BROKEN[part], **FACTS)
    assert any(part in fault for fault in faults), faults


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{", "is not JSON"),
        (json.dumps(GOOD), "is not written as Jupyter writes it"),
        (json.dumps(GOOD, indent=2, sort_keys=True) + "\n", "is not written as Jupyter writes it"),
    ],
)
def test_the_file_itself_is_looked_at(text, part):
    assert part in check_text(text, **FACTS)[0]


@pytest.mark.parametrize("part", [part for part in BROKEN if BROKEN[part]["cells"]])
def test_a_broken_notebook_is_still_read_to_its_end(part):
    """One fault hides no other: a second one, at the end, is told as well."""
    notebook = copy.deepcopy(BROKEN[part])
    notebook["cells"][-1] = _markdown("## Bye", "zz")
    assert any("where the files are" in fault for fault in check(notebook, **FACTS))


def test_the_command_names_every_fault_and_fails(tmp_path, capsys):
    good = NOTEBOOKS[0]
    bad = tmp_path / good.name
    notebook = json.loads(good.read_text(encoding="utf-8"))
    notebook["cells"][-1]["source"], notebook["cells"][0]["source"] = ["x"], ["y"]
    bad.write_text(json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
    assert main([str(good)]) == 0 and capsys.readouterr().out == ""
    assert main([str(good), str(bad)]) == 1
    out = capsys.readouterr().out
    assert out.count(str(bad)) >= 6 and "what next" in out and "is not a title" in out
    assert main([str(tmp_path / "none" / good.name)]) == 2 and "cannot be read" in capsys.readouterr().err
    other = tmp_path / "99_other.ipynb"
    other.write_text("{}")
    assert main([str(other)]) == 1 and "belongs to no pipeline" in capsys.readouterr().out


def test_the_command_runs_from_the_root():
    done = subprocess.run([sys.executable, "-m", "tests.house.anatomy"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
