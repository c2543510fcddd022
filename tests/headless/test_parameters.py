"""Parameters: unknown names, wrong types and unclear notebooks are refused before anything is started."""

from __future__ import annotations

import math

import papermill
import pytest

from colabkit.core.errors import UsageError
from colabkit.headless.parameters import checked, declared
from tests.headless.conftest import book

BOOK = book()


def given(is_text: bool = False, **values):
    return checked(values, declared(BOOK, "x.ipynb"), "x.ipynb", is_text=is_text)


def test_types_of_values_that_papermill_read():
    assert given(TEXT=12, NUMBER=4.0, RATE=1, FLAG=True, PRESET="quick", ANYTHING=[1]) == {
        "TEXT": "12",
        "NUMBER": 4,
        "RATE": 1.0,
        "FLAG": True,
        "PRESET": "quick",
        "ANYTHING": [1],
    }
    assert type(given(NUMBER=4.0)["NUMBER"]) is int and type(given(RATE=1)["RATE"]) is float
    assert given(TEXT=True)["TEXT"] == "True" and given(TEXT=0.5)["TEXT"] == "0.5" and given(FLAG=1)["FLAG"] is True


def test_types_of_values_that_were_typed_in():
    assert given(True, TEXT="007", NUMBER=" 4", RATE="1e-3", FLAG="yes", ANYTHING="[1, 'a']") == {
        "TEXT": "007",
        "NUMBER": 4,
        "RATE": 0.001,
        "FLAG": True,
        "ANYTHING": [1, "a"],
    }
    assert given(True, TEXT="", ANYTHING="some words") == {"TEXT": "", "ANYTHING": "some words"}
    assert given(True, TEXT="ünïcode 'quotes' \"too\" \\ {x}")["TEXT"] == "ünïcode 'quotes' \"too\" \\ {x}"
    assert math.isinf(given(True, RATE="inf")["RATE"]) and given(True, FLAG="0")["FLAG"] is False


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NUMBER", "abc"),
        ("NUMBER", 3.5),
        ("NUMBER", True),
        ("NUMBER", None),
        ("NUMBER", ""),
        ("RATE", "abc"),
        ("RATE", []),
        ("RATE", False),
        ("FLAG", "maybe"),
        ("FLAG", 7),
        ("TEXT", None),
        ("TEXT", [1]),
        ("PRESET", "medium"),
    ],
)
def test_wrong_types_are_refused(name, value):
    for is_text in (True, False) if isinstance(value, str) else (False,):
        with pytest.raises(UsageError, match=name) as caught:
            given(is_text, **{name: value})
        assert caught.value.exit_code == 2 and f"{name}=" in caught.value.fix


def test_choices_of_a_form():
    free = book(parameters='PRESET = "demo"  #@param ["demo", "quick"] {allow-input: true}\n')
    assert checked({"PRESET": "mine"}, declared(free, "x"), "x") == {"PRESET": "mine"}
    numbers = book(parameters='N = 3  #@param [1, 2, 3] {type:"raw"}\nODD = 1  #@param [unreadable]\n')
    assert checked({"N": "2", "ODD": "5"}, declared(numbers, "x"), "x", is_text=True) == {"N": 2, "ODD": 5}
    with pytest.raises(UsageError, match="no such choice"):
        checked({"N": 4}, declared(numbers, "x"), "x")


@pytest.mark.parametrize(("name", "meant"), [("NUMBR", "NUMBER"), ("preset", "PRESET"), ("rates", "RATE")])
def test_unknown_names_get_a_suggestion(name, meant):
    with pytest.raises(UsageError, match=f"did you mean {meant}") as caught:
        given(**{name: "1"})
    assert caught.value.got == name


def test_nothing_near():
    with pytest.raises(UsageError, match="leave out"):
        given(ZZZ="1")
    with pytest.raises(UsageError, match="it has no parameters"):
        checked({"ZZZ": 1}, {}, "x")


def test_secrets_are_refused_without_repeating_them():
    with pytest.raises(UsageError, match="environment variable") as caught:
        given(HF_TOKEN="hunter2hunter2")
    assert "hunter2" not in str(caught.value)
    with pytest.raises(UsageError) as caught:
        given(NUMBER="hf_" + "a" * 30)
    assert "aaaa" not in str(caught.value)


def test_notebooks_without_clear_parameters():
    with pytest.raises(UsageError, match="got 0, expected one"):
        declared(book(parameters=None), "x.ipynb")
    twice = book()
    twice.cells.append(twice.cells[0].copy())
    with pytest.raises(UsageError, match="got 2, expected one"):
        declared(twice, "x.ipynb")
    with pytest.raises(UsageError, match="parameters cell"):
        declared(book(parameters="%pip install x\nA = 1"), "x.ipynb")


def test_what_is_declared():
    found = declared(book(parameters="A: int = 3\nB = C = [1]\nimport os\nD = os.getcwd()\nE: int\nF = -1.5\n"), "x")
    assert list(found) == ["A", "B", "C", "D", "F"] and found["F"].default == -1.5
    assert found["D"].fitting({"any": "thing"}) == {"any": "thing"}


@pytest.mark.parametrize("bad", [{"NUMBR": 1}, {"NUMBER": "abc"}, {"HF_TOKEN": "x"}])
def test_engine_starts_nothing(tmp_path, bad):
    path, output = tmp_path / "in.ipynb", tmp_path / "out.ipynb"
    book("open('ran', 'w')", path=path)
    output.write_text("as it was")
    with pytest.raises(UsageError):
        papermill.execute_notebook(path, output, bad, engine_name="colabkit", cwd=tmp_path, progress_bar=False)
    assert output.read_text() == "as it was" and sorted(p.name for p in tmp_path.iterdir()) == ["in.ipynb", "out.ipynb"]


def test_engine_wants_the_tag_also_without_values(tmp_path):
    book("1", parameters=None, path=tmp_path / "in.ipynb")
    with pytest.raises(UsageError, match="parameters are"):
        papermill.execute_notebook(
            tmp_path / "in.ipynb", tmp_path / "out.ipynb", engine_name="colabkit", progress_bar=False
        )
    assert not (tmp_path / "out.ipynb").exists()


def test_engine_runs_python_only(tmp_path):
    notebook = book("1")
    notebook.metadata.kernelspec.language = "R"
    with pytest.raises(UsageError, match="Python"):
        papermill.execute_notebook(notebook, None, engine_name="colabkit", progress_bar=False)


def test_papermill_command_ends_with_2(start, tmp_path):
    book("print(1)", path=tmp_path / "in.ipynb")
    process = start(
        "papermill", tmp_path / "in.ipynb", tmp_path / "out.ipynb", "--engine", "colabkit", "-p", "NUMBR", "4"
    )
    assert process.end() == 2
    text = process.text()
    assert "did you mean NUMBER?" in text and "Traceback" not in text and not (tmp_path / "out.ipynb").exists()
