"""Tests of colabkit.core.errors: what a user reads, and that an error survives the way out of a worker process."""

from __future__ import annotations

import copy
import doctest
import pickle
from pathlib import Path

import pytest

from colabkit.core import errors
from colabkit.core.errors import ChangedError, ColabkitError, DataError, StateError, Stopped, UsageError

KINDS = {ColabkitError: 1, UsageError: 2, DataError: 1, StateError: 1, ChangedError: 1, Stopped: 75}


def test_the_example_in_the_docstring():
    assert doctest.testmod(errors).failed == 0 and doctest.testmod(errors).attempted == 1


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_its_exit_code_and_crosses_processes_whole(kind):
    error = kind("Cannot do it.", got=["a", 1], expected="b", where=Path("/x"), fix="do c")
    assert error.exit_code == KINDS[kind]
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(other) is kind and str(other) == str(error) and other.got == ["a", 1] and other.fix == "do c"


def test_all_parts_are_printed_the_mend_last():
    lines = str(DataError("Cannot read it.", got="x", expected="y", where="/a/b", fix="do z")).splitlines()
    assert lines == ["Cannot read it: got 'x', expected y.", "  where: /a/b", "  fix:   do z"]


@pytest.mark.parametrize(("got", "shown"), [(0, "got 0"), ("", "got ''"), (False, "got False"), ([], "got []")])
def test_an_empty_value_is_still_told(got, shown):
    assert shown in str(DataError("No", got=got, fix="f"))
    assert str(DataError("No", got=None, fix="f")) == "No.\n  fix:   f"


def test_a_long_list_does_not_bury_the_mend():
    error = DataError("Cannot use these files", got=[f"{i}.wav" for i in range(10_000)], fix="remove them")
    assert len(str(error)) < 500 and str(error).endswith("remove them") and "9999.wav" in error.got


def test_the_mend_is_mandatory():
    with pytest.raises(TypeError, match="fix"):
        ColabkitError("No mend")
