"""Failures of a notebook as papermill's command line tells them: one message, and the exit code that it has."""

from __future__ import annotations

import pickle
from contextlib import nullcontext

import click
import pytest

from colabkit.core.errors import StateError, UsageError
from colabkit.headless.failures import CellFailed, KernelDied, told_by_papermill


def test_our_errors_keep_their_exit_codes(execute):
    stopped = "from colabkit.core.errors import Stopped\nraise Stopped('Stopped by SIGTERM', fix='run again')"
    with pytest.raises(CellFailed, match="run again") as caught:
        execute(stopped)
    assert (
        caught.value.exit_code == 75
        and str(caught.value) == "[2/2] Part 1 failed: Stopped by SIGTERM.\n  fix:   run again"
    )
    with pytest.raises(CellFailed) as caught:
        execute("class UsageError(Exception): pass\nraise UsageError('of somebody else')", raise_failures=True)
    assert caught.value.exit_code == 1


def test_a_cell_that_failed_crosses_processes_with_its_exit_code():
    ours = CellFailed("[2/2] Part 1", "UsageError", "Cannot do it.\n  fix:   do that")
    others = CellFailed("[2/2] Part 1", "ZeroDivisionError", "")
    for error, code, text in (
        (ours, 2, "[2/2] Part 1 failed: Cannot do it.\n  fix:   do that"),
        (others, 1, "[2/2] Part 1 failed: ZeroDivisionError"),
    ):
        back = pickle.loads(pickle.dumps(error))
        assert type(back) is CellFailed and back.exit_code == error.exit_code == code
        assert str(back) == str(error) and str(error).startswith(text) and "fix:" in str(error)


def test_a_name_that_is_no_error_of_ours_is_somebody_elses():
    for name in ("EXIT_STOPPED", "Any", "no_such_name"):
        assert not CellFailed("Part 1", name, "x\n  fix:   y").is_ours


def test_papermills_command_ends_with_our_message_and_code(capsys):
    from papermill.cli import papermill

    error = UsageError("Cannot do it", fix="do that")
    with pytest.raises(click.ClickException) as caught, click.Context(papermill), told_by_papermill():
        raise error
    assert caught.value.exit_code == error.exit_code and caught.value.__cause__ is error
    caught.value.show()
    assert capsys.readouterr().err == f"\n{error}\n"


@pytest.mark.parametrize(
    "context", [None, click.Context(click.Command("other", callback=print))], ids=["none", "other"]
)
def test_elsewhere_our_errors_stay_as_they_are(context):
    error = KernelDied("The kernel died", fix="run it again")
    with pytest.raises(StateError) as caught, context or nullcontext(), told_by_papermill():
        raise error
    assert caught.value is error
    with pytest.raises(ZeroDivisionError), told_by_papermill():
        1 / 0  # noqa: B018
