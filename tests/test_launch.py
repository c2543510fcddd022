"""Tests of colabkit.launch: settings on top of a preset, and opening a run that can be closed again."""

from __future__ import annotations

import subprocess
import sys

import pytest

from colabkit import launch, pipelines
from colabkit.core.errors import StateError, UsageError


@pytest.fixture(autouse=True)
def only_the_toy(toy, monkeypatch):
    monkeypatch.setattr(pipelines, "discover", lambda: [toy.pipeline])


def test_a_preset_as_it_is_and_changed_is_told():
    said = []
    config = launch.configure("toy", "big", say=said.append)
    assert config.make.size == 9 and said == ["A toy; preset big, unchanged"]
    said.clear()
    config = launch.configure("09", "big", ["grow.rate=2", "make.size=9"], say=said.append)
    assert config.grow.rate == 2.0 and said == ["A toy; preset big", "  grow.rate = 2.0  (preset: 0.5)"]


def test_an_empty_form_field_means_as_in_the_preset():
    config = launch.configure(
        "toy", "big", {"make.size": "", "grow.rate": None, "grow.units": 0, "make.comment": "x"}, say=lambda line: None
    )
    assert (config.make.size, config.grow.rate, config.grow.units, config.make.comment) == (9, 0.5, 0, "x")


def test_more_settings_are_one_text_and_win():
    config = launch.configure(
        "toy", "big", {"grow.units": 3, "make.size": 5}, "grow.units=7 'make.comment=two words'", say=lambda line: None
    )
    assert (config.grow.units, config.make.size, config.make.comment) == (7, 5, "two words")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("toy", "demo", (), "make.comment='open"), "No closing quotation"),
        (("toy", "demo", (), 3), "SETTINGS"),
        (("toy", "bgi"), "demo or big"),
        (("tyo",), "colabkit run toy"),
        (("",), "one of toy"),
        (("toy", "demo", {"make.sise": 3}), "did you mean size?"),
        (("toy", "demo", ["make.size=0"]), "at least 1"),
    ],
)
def test_wrong_names_are_told_with_the_right_ones(arguments, words):
    with pytest.raises(UsageError) as caught:
        launch.configure(*arguments, say=lambda line: None)
    assert words in str(caught.value)


def test_start_says_where_and_what_is_done(tmp_path):
    said = []
    with launch.start("toy", state=str(tmp_path / "state"), say=said.append) as run:
        assert run.path == tmp_path / "state/toy/demo" and "nothing is done yet" in said[-1]
        run.do("01")
    with launch.start("toy", preset="big", run="mine", state=str(tmp_path / "state"), say=said.append) as run:
        assert run.name == "mine" and run.config.make.size == 9
    with launch.start("toy", state=str(tmp_path / "state"), say=said.append):
        assert said[-1].endswith("done are 01_make") and "--state" in said[-2]


def test_a_start_that_fails_leaves_the_run_unlocked(tmp_path):
    with launch.start("toy", state=str(tmp_path), say=lambda line: None) as run:
        run.do("01")
    (tmp_path / "toy/demo/ledger/01_make.json").write_text("{")
    with pytest.raises(StateError, match="01_make.json"):
        launch.start("toy", state=str(tmp_path), say=lambda line: None)
    code = "import sys; from colabkit.runs.state import open_run; open_run(sys.argv[1], 'toy', 'demo').close()"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == 0


@pytest.mark.parametrize("wrong", [{"run": 3}, {"state": 5.0}, {"preset": None}, {"state": ["a"]}])
def test_a_form_field_of_the_wrong_type_is_told(wrong):
    with pytest.raises(UsageError, match=f"Cannot use this {next(iter(wrong)).upper()}"):
        launch.start("toy", **wrong, say=lambda line: None)


def test_the_machine_is_described_without_making_anything(tmp_path):
    table = launch.machine_table(str(tmp_path / "none"))
    assert table.columns == ["what", "value", "what it means"] and len(table.rows) > 3
    assert not (tmp_path / "none").exists()
