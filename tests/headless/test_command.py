"""colabkit notebook: the command line, its output and its exit codes."""

from __future__ import annotations

import pytest

from colabkit.cli import main
from tests.headless.conftest import book, printed, read, statuses


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> int:
    return main(["notebook", *arguments])


def test_a_notebook_runs(tmp_path, capsys):
    book("print(repr(TEXT), NUMBER, FLAG)", path=tmp_path / "my {book}.ipynb")
    assert run("my {book}.ipynb", "-p", "TEXT=007=x", "-p", "NUMBER=5", "--parameter", "FLAG=yes") == 0
    said = capsys.readouterr()
    assert said.out == "notebook my {book}.ipynb\nexecuted notebook out/my {book}.ipynb\ndone: out/my {book}.ipynb\n"
    assert "[3/3] Part 1\n  '007=x' 5 True\n" in said.err and "Passed unknown" not in said.err
    assert printed(read(tmp_path / "out" / "my {book}.ipynb")) == "'007=x' 5 True\n"


def test_a_cell_that_fails(tmp_path, capsys):
    book("1 / 0", "print('never')", path=tmp_path / "a.ipynb")
    assert run("a.ipynb", "--output", "b.ipynb") == 1
    said = capsys.readouterr().err
    assert "[2/3] Part 1 failed: ZeroDivisionError: division by zero." in said
    assert "Traceback" not in said and said.count("fix:") == 1
    assert statuses(read(tmp_path / "b.ipynb")) == ["completed", "failed", "pending"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nothing"], "There is no such notebook"),
        (["a.ipynb", "-p", "NUMBR=1"], "did you mean NUMBER?"),
        (["a.ipynb", "-p", "NUMBER"], "expected NAME=VALUE"),
        (["a.ipynb", "-p", "=1"], "expected NAME=VALUE"),
        (["a.ipynb", "-p", "NUMBER=1", "-p", "NUMBER=2"], "given twice"),
        (["a.ipynb", "-p", "NUMBER=x"], "a whole number"),
        (["a.ipynb", "-p", "HF_TOKEN=x"], "environment variable"),
        (["a.ipynb", "--output", "a.ipynb"], "take the place of"),
        (["a.ipynb", "--output", "."], "is a folder"),
        (["a.ipynb", "--output", "none/b.ipynb"], "mkdir -p"),
        (["a.ipynb", "--output", "s3://bucket"], "no address of a notebook"),
        (["text.ipynb"], "Cannot read the notebook"),
        (["list.ipynb"], "Cannot read the notebook"),
    ],
)
def test_wrong_use_starts_nothing(arguments, told, tmp_path, capsys):
    book("open('ran', 'w')", path=tmp_path / "a.ipynb")
    (tmp_path / "text.ipynb").write_text("no notebook")
    (tmp_path / "list.ipynb").write_text("[]")
    assert run(*arguments) == 2
    assert told in capsys.readouterr().err and not (tmp_path / "ran").exists()


@pytest.mark.parametrize("bad", [["--hung-after", "-1"], ["--cell-timeout", "x"], ["--cell-timeout", "nan"], []])
def test_wrong_options(bad, capsys):
    with pytest.raises(SystemExit) as ended:
        run(*bad, *(["a.ipynb"] if bad else []))
    assert ended.value.code == 2


def test_a_folder_that_cannot_be_made(tmp_path, capsys):
    book("1", path=tmp_path / "a.ipynb")
    (tmp_path / "out").touch()
    assert run("a.ipynb") == 1
    assert "--output PATH" in capsys.readouterr().err


def test_a_cell_that_takes_too_long(tmp_path, capsys):
    book("import time\ntime.sleep(600)", path=tmp_path / "a.ipynb")
    assert run("a.ipynb", "--cell-timeout", "0.02") == 1
    assert "ran longer than it may: expected at most 0.02 minutes" in capsys.readouterr().err
    assert statuses(read(tmp_path / "out" / "a.ipynb")) == ["completed", "failed"]
