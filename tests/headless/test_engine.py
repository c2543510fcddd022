"""The engine under papermill: what runs, what is saved of it, and what is told when it ends badly."""

from __future__ import annotations

import io
import json
import os

import papermill
import pytest

from colabkit.core.errors import UsageError
from tests.headless.conftest import book, printed, read, statuses

SECRET = "hunter2-hunter2-hunter2"


def test_a_notebook_runs(execute, output, capsys):
    done = execute(
        "print(TEXT * 2, NUMBER + 1, RATE)",
        "x = 5\nx",
        "%%time\n!echo shell",
        "from IPython.display import display\nh = display('first', display_id=True)\nfor i in range(3): h.update(i)",
        parameters={"TEXT": 12, "RATE": 1},
        progress_bar=True,
    )
    assert statuses(done) == ["completed"] * 6 == statuses(output()), "with the cell that papermill adds"
    assert printed(done).startswith("1212 4 1.0\n") and "shell" in printed(done)
    assert done.cells[5].outputs[0].data["text/plain"] == "5"
    assert [o.data["text/plain"] for o in done.cells[-1].outputs] == ["2"], "only the last state of a display"
    about = done.metadata.papermill
    assert about.exception is None and about.parameters == {"TEXT": "12", "RATE": 1.0} and about.duration > 0
    assert done.metadata.language_info.name == "python" and json.loads(json.dumps(done)) == json.loads(
        json.dumps(output())
    )
    said = capsys.readouterr()
    assert said.out == "" and "[3/6] Part 1\n  1212 4 1.0\n[4/6] Part 2\n  5\n" in said.err


def test_a_cell_that_fails_is_papermills_error(execute, output):
    with pytest.raises(papermill.PapermillExecutionError, match="ZeroDivisionError"):
        execute("print(1)", "1 / 0", "print('never')")
    found = output()
    assert (
        statuses(found) == ["completed", "completed", "failed", "pending"]
        and found.metadata.papermill.exception is True
    )
    assert "papermill-error-cell" in str(found.cells), "papermill's marks are there"
    assert [o.ename for c in found.cells for o in c.get("outputs", ()) if o.output_type == "error"] == [
        "ZeroDivisionError"
    ]


def test_a_cell_that_may_fail(execute, tmp_path):
    notebook = book("1 / 0", "print('on')")
    notebook.cells[2].metadata["tags"] = ["raises-exception"]
    done = papermill.engines.papermill_engines.get_engine("colabkit").execute_notebook(
        _prepared(notebook), "python3", progress_bar=False
    )
    assert statuses(done) == ["completed"] * 3


def _prepared(notebook):
    notebook.metadata["papermill"] = {"parameters": {}}
    for cell in notebook.cells:
        cell.metadata["papermill"] = {}
    return notebook


def test_a_parameter_that_holds_a_secret_is_used_but_not_written(execute, tmp_path):
    token = "hf_" + "abcDEF" * 5
    done = execute("print(len(TEXT), TEXT)", parameters={"TEXT": f"hub.token={token}"})
    assert printed(done) == f"{len(token) + 10} hub.token=[redacted]\n"
    assert token not in (tmp_path / "out.ipynb").read_text() + json.dumps(done)


def test_wrong_use(execute, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="no such option"):
        execute("1", autosave="never")
    with pytest.raises(UsageError, match="no such kernel"):
        execute("1", kernel_name="nosuchkernel")
    monkeypatch.setenv("COLABKIT_HUNG_AFTER", "soon")
    with pytest.raises(UsageError, match="COLABKIT_HUNG_AFTER"):
        execute("1")
    with pytest.raises(UsageError, match="mkdir -p"):
        papermill.execute_notebook(
            tmp_path / "in.ipynb", tmp_path / "none" / "out.ipynb", engine_name="colabkit", hung_after_minutes=1
        )


def test_an_earlier_notebook_is_kept_until_there_is_a_newer_whole_one(execute, output, tmp_path):
    execute("print('first')")
    for _ in range(2):
        with pytest.raises(papermill.PapermillExecutionError):
            execute("print('second')", "1 / 0")
        assert "second" in printed(output())
        assert printed(read(tmp_path / "out.previous.ipynb")) == "first\n"


SPILLS = """
import os, sys, time
from IPython.display import HTML, display
print(dict(os.environ))
print(os.environ["MY_TOKEN"], file=sys.stderr)
for part in (os.environ["MY_TOKEN"][:11], os.environ["MY_TOKEN"][11:]):
    print(part, end="", flush=True)
    time.sleep(1.3)
print()
display(HTML("<b>" + os.environ["MY_TOKEN"] + "</b>"), {"token": os.environ["MY_TOKEN"]})
display({"application/json": {"a": [os.environ["MY_TOKEN"]]}, "text/plain": "x"}, raw=True)
print("hf_" + "abcDEF" * 5)
token = os.environ["MY_TOKEN"]
raise RuntimeError(f"cannot log in with {token}")
"""


def test_no_secret_reaches_the_file_at_any_moment(execute, tmp_path, monkeypatch, capsys):
    """Every version of the file that ever stands on the disk is looked at, as it is moved into its place."""
    monkeypatch.setenv("MY_TOKEN", SECRET)
    monkeypatch.setenv("DB_PASSWORD", "p&ss<w>'ord\"\\ü")
    versions, replace = [], os.replace

    def look(old, new):
        if str(new).endswith(".ipynb"):
            versions.append(open(old, encoding="utf-8").read())
        replace(old, new)

    monkeypatch.setattr(os, "replace", look)
    copy = io.StringIO()
    with pytest.raises(papermill.PapermillExecutionError) as caught:
        execute(SPILLS, f"unused = '{SECRET}'", autosave_cell_every=0.3, progress_bar=True, stdout_file=copy)
    told = "".join(
        (*versions, str(caught.value), *capsys.readouterr(), copy.getvalue(), (tmp_path / "out.ipynb").read_text())
    )
    assert len(versions) >= 6 and "[redacted]" in versions[-1] and "[redacted]" in copy.getvalue()
    for spelling in ("hunter2-hunte", "r2-hunter2", "abcDEFabcDEF", "p&ss<w>", "p&amp;ss", "ss<w>'ord"):
        assert spelling not in told, spelling


def test_a_secret_that_the_kernel_fetched_is_as_unseen(execute, output, tmp_path, monkeypatch, capsys):
    """Its name says nothing and its form neither: only the kernel knows that it is one."""
    monkeypatch.delenv("COLABKIT_FETCHED_SECRETS", raising=False)
    monkeypatch.setenv("FAVOURITE_FISH", "swordfish on friday")
    monkeypatch.setenv("COURSE", "mackerel")
    done = execute(
        "from colabkit.colab import userdata\nfish = userdata.get('FAVOURITE_FISH')\nprint('dish:', fish)",
        "import os\nos.environ['COURSE'], fish",
        progress_bar=True,
    )
    told = "".join((*capsys.readouterr(), (tmp_path / "out.ipynb").read_text()))
    assert "swordfish" not in told and "dish: [redacted]" in told and "mackerel" in printed(output()) + str(done)
    assert "COLABKIT_FETCHED_SECRETS" not in os.environ


def test_much_output_does_not_fill_the_notebook(execute, tmp_path, capsys):
    done = execute(
        "for i in range(60_000): print('a line of output that nobody will read, number', i)", progress_bar=True
    )
    assert (tmp_path / "out.ipynb").stat().st_size < 1_000_000 and "number 59999\n" in printed(done)
    assert len(capsys.readouterr().err.splitlines()) < 250


def test_a_long_cell_is_saved_while_it_runs(execute, tmp_path, monkeypatch):
    seen, replace = [], os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (seen.append(open(a, encoding="utf-8").read()), replace(a, b)))
    execute("import time\nprint('printed early', flush=True)\ntime.sleep(3)", autosave_cell_every=1)
    texts = [
        t for t in seen if '"status": "running"' in t and "printed early" in t.replace("print('printed early'", "")
    ]
    assert texts, "what was printed is on the disk before the cell ends, without another message"
