"""Handoff between the process that holds a run and those that work at one of its steps: the task, and errors."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest

from colabkit.core import errors
from colabkit.core.errors import ColabkitError, DataError, StateError
from colabkit.training.processes.handoff import error_of, told

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, ColabkitError)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("got", [None, 0, "", "ä\n", 2.5, ("a", 1), {"a": {3}}, Path("/x")])
def test_errors_come_back_as_they_were(kind, got):
    error = kind("Cannot do it", got=got, expected="ü", where=Path("/a/b"), fix="--set a=1")
    error.errno = 28
    back = error_of(json.loads(json.dumps(told(error))))
    assert type(back) is kind and str(back) == str(error) and back.errno == 28 and back.exit_code == error.exit_code


def test_errors_of_the_system_come_back_as_they_were():
    back = error_of(json.loads(json.dumps(told(FileNotFoundError(2, "No such file", "/x")))))
    assert type(back) is FileNotFoundError and (back.errno, back.filename) == (2, "/x")
    back = error_of(told(ModuleNotFoundError("No module named 'x'", name="x")))
    assert type(back) is ModuleNotFoundError and back.name == "x"
    described = told(ValueError("first\nsecond"))
    assert error_of(described) is None and described["text"] == "ValueError: first"
    with pytest.raises(StateError):
        error_of(told(DataError("a", fix="b")) | {"kind": "builtins:ValueError"})
