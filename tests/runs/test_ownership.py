"""Tests of runs.ownership: other projects' folders and newer states are refused, and nothing in them is touched."""

from __future__ import annotations

import json
import os

import pytest

from colabkit.core.errors import StateError
from colabkit.runs.ownership import FORMAT, MARKER
from colabkit.runs.state import StateRoot, open_run


def listing(folder):
    return sorted((str(path), path.stat().st_mtime_ns) for path in folder.rglob("*"))


def refused(root, run="demo", **how):
    """Try in all three ways to open a run; returns the one error."""
    path, errors = root.path if isinstance(root, StateRoot) else root, set()
    before = listing(path)
    for mode in ({}, {"lazily": True}, *([{"read_only": True}] if (path / "asr" / run).is_dir() else [])):
        with pytest.raises(StateError) as caught:
            open_run(root, "asr", run, **mode)
        assert caught.value.exit_code == 1 and "fix" in str(caught.value)
        errors.add(str(caught.value))
    assert listing(path) == before and len(errors) == 1
    return errors.pop()


def test_a_root_is_marked_once_there_is_work_and_then_believed(tmp_path):
    open_run(tmp_path, "asr", "demo", lazily=True)
    assert os.listdir(tmp_path) == []
    open_run(tmp_path, "asr", "demo").close()
    marker = json.loads((tmp_path / MARKER).read_text())
    assert marker["project"] == "colabkit" and marker["format"] == FORMAT
    (tmp_path / "something else").write_text("x")
    open_run(StateRoot(tmp_path, "", chosen_by_us=True), "asr", "demo").close()


def test_another_projects_folder_on_drive_is_refused_and_one_that_was_named_is_shared(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "train.py").write_text("x")
    text = refused(StateRoot(tmp_path, "", chosen_by_us=True))
    assert (
        "belongs to something else" in text and "checkpoints, train.py" in text and f"--state {tmp_path}-state" in text
    )
    open_run(StateRoot(tmp_path, ""), "asr", "demo").close()


def test_runs_from_before_there_was_a_marker_are_ours(tmp_path):
    (tmp_path / "asr/old/ledger").mkdir(parents=True)
    open_run(StateRoot(tmp_path, "", chosen_by_us=True), "asr", "new").close()


def test_a_run_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "asr/demo").mkdir(parents=True)
    (tmp_path / "asr/demo/model.pt").write_text("x")
    assert "model.pt" in refused(tmp_path) and "another run name" in refused(tmp_path)
    (tmp_path / "asr/empty").mkdir()
    open_run(tmp_path, "asr", "empty").close()


@pytest.mark.parametrize("place", [MARKER, "asr/demo/config.json"])
def test_a_state_of_a_newer_colabkit_is_refused(tmp_path, place):
    (tmp_path / "asr/demo").mkdir(parents=True)
    (tmp_path / place).write_text(
        json.dumps({"project": "colabkit", "format": FORMAT + 1, "version": "9.1", "pipeline": "asr"})
    )
    text = refused(tmp_path)
    assert "newer colabkit 9.1" in text and 'pip install --upgrade "colabkit @ git+https://' in text


def test_a_run_of_another_pipeline_and_another_projects_marker(tmp_path):
    (tmp_path / "asr/demo").mkdir(parents=True)
    (tmp_path / "asr/demo/config.json").write_text('{"pipeline": "hubert"}')
    assert "another pipeline" in refused(tmp_path)
    (tmp_path / MARKER).write_text('{"project": "colabkitty"}')
    assert "colabkitty" in refused(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "3"])
def test_a_marker_that_is_broken_is_told(tmp_path, content):
    (tmp_path / MARKER).write_text(content)
    assert MARKER in refused(tmp_path) or "something else" in refused(tmp_path)
