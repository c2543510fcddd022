"""Executed notebooks are written whole or not at all, and an earlier one is not lost."""

from __future__ import annotations

import json
import os

import papermill.iorw
import pytest

from colabkit.core.errors import StateError, UsageError
from colabkit.headless.places import (
    FilePlace,
    ForeignPlace,
    is_worth_keeping,
    make_papermill_write_atomically,
    place_of,
    previous_of,
)


def executed(*statuses: str, shows: bool = True) -> str:
    outputs = [{"text": "x"}] if shows else []
    return json.dumps(
        {
            "cells": [
                {"cell_type": "code", "metadata": {"papermill": {"status": s}}, "outputs": outputs} for s in statuses
            ]
        }
    )


@pytest.mark.parametrize(
    ("text", "alone", "beside"),
    [
        (executed("completed", "completed"), True, True),
        (executed("completed", "failed", "pending"), True, False),
        (executed("running"), True, False),
        (executed("completed", shows=False), False, False),
        (executed(), False, False),
        ("no notebook", True, True),
        ("[]", True, True),
        ("{}", True, True),
        (json.dumps({"cells": [{"cell_type": "code", "metadata": {}, "outputs": [1]}]}), True, True),
    ],
)
def test_what_is_kept(text, alone, beside):
    assert is_worth_keeping(text, has_previous=False) == alone
    assert is_worth_keeping(text, has_previous=True) == beside


def test_names():
    assert (
        previous_of("out/01.ipynb") == "out/01.previous.ipynb"
        and previous_of("s3://b/a.b/x.ipynb") == "s3://b/a.b/x.previous.ipynb"
    )
    assert previous_of("a.b/x") == "a.b/x.previous" and previous_of("x") == "x.previous"


def test_file(tmp_path):
    place = place_of(str(tmp_path / "ünï codé.ipynb"))
    place.keep_previous()
    place.write(executed("completed"))
    place.keep_previous()
    place.write(executed("failed", "pending"))
    place.keep_previous()
    place.write(executed("running"))
    assert json.loads((tmp_path / "ünï codé.previous.ipynb").read_text()) == json.loads(executed("completed"))
    assert json.loads((tmp_path / "ünï codé.ipynb").read_text()) == json.loads(executed("running"))
    assert len(os.listdir(tmp_path)) == 2, "no temporary files"


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(UsageError, match="is a folder"):
        FilePlace(tmp_path)
    with pytest.raises(UsageError, match="mkdir -p"):
        place_of(str(tmp_path / "none" / "x.ipynb"))


def test_relative_paths_count_from_papermills_folder(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with papermill.iorw.local_file_io_cwd():
        os.chdir(tmp_path / "elsewhere")  # as papermill does for --cwd
        assert place_of("x.ipynb").address == str(tmp_path / "x.ipynb")
    assert place_of("x.ipynb").address == str(tmp_path / "elsewhere" / "x.ipynb")


def test_papermills_own_write_is_atomic(tmp_path, monkeypatch):
    make_papermill_write_atomically()
    make_papermill_write_atomically()
    path = tmp_path / "x.ipynb"
    papermill.iorw.papermill_io.write("old", str(path))
    seen = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (seen.append(path.read_text()), replace(a, b)))
    papermill.iorw.papermill_io.write("new", str(path))
    assert seen == ["old"] and path.read_text() == "new"


def test_foreign_places():
    class Handler:
        written = ""

        def write(self, text, address):
            if text == "bad":
                raise KeyError("token")
            self.written = (text, address)

    place = ForeignPlace("abs://x/y.ipynb", Handler())
    place.keep_previous()
    place.write("text", patient=True)
    assert place._handler.written == ("text", "abs://x/y.ipynb")
    with pytest.raises(StateError, match="Cannot write the notebook"):
        place.write("bad")
