"""Failures of a notebook as papermill's command line tells them: one message, and the exit code that it has."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from colabkit.core import errors
from colabkit.core.errors import EXIT_FAILED, ColabkitError, StateError


class KernelDied(StateError):
    """The kernel was killed, or ended by itself, while a cell was at work."""


class KernelHung(StateError):
    """The kernel neither computed nor said anything for a long time."""


class CellTooLong(StateError):
    """A cell took longer than it may."""


class CellFailed(ColabkitError):
    """A cell raised an error; `name` is its class. An error of ours keeps its message and its exit code."""

    def __init__(self, title: str, name: str, message: str):
        self.title, self.name, self.message = title, name, message
        kind = getattr(errors, name, None)
        # Only its name and text come out of the kernel: the text of one of ours says how to mend it.
        self.is_ours = isinstance(kind, type) and issubclass(kind, ColabkitError) and "\n  fix:   " in message
        self.exit_code = kind.exit_code if self.is_ours else EXIT_FAILED
        super().__init__(
            f"{title} failed: {name}: {message}" if message else f"{title} failed: {name}",
            fix="read the whole traceback in the executed notebook, then run the same command again: it continues",
        )

    def __reduce__(self):
        return type(self), (self.title, self.name, self.message)

    def __str__(self) -> str:
        return f"{self.title} failed: {self.message}" if self.is_ours else super().__str__()


@contextmanager
def told_by_papermill() -> Iterator[None]:
    """Let papermill's command end with the message and exit code of our errors instead of a traceback and 1."""
    try:
        yield
    except ColabkitError as error:
        click = sys.modules.get("click")
        context = click.get_current_context(silent=True) if click else None
        if context is None or getattr(context.command.callback, "__module__", "") != "papermill.cli":
            raise

        class Told(click.ClickException):
            exit_code = error.exit_code

            def show(self, file: Any = None) -> None:
                click.echo(f"\n{self.message}", err=True)

        raise Told(str(error)) from error
