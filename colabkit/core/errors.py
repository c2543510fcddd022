"""One way to fail: what could not be done, what was got, what is wanted, where, and how to mend it."""

from __future__ import annotations

from typing import Any

INSTALLED_FROM = "git+https://github.com/colabkit/colabkit@main"  # by make stamp; on PyPI the name is somebody else's
EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_STOPPED = 75  # EX_TEMPFAIL of sysexits.h: stopped in good order, run the same command again
_LONGEST_GOT = 300  # characters: a list of a thousand files must not bury the line that says how to mend it


class ColabkitError(Exception):
    """An error a user can act on; prints as a few lines, the last one saying how to mend it.

    Example:
        >>> print(ColabkitError("Cannot read audio", got="a.txt", expected="wav, flac, mp3 or ogg",
        ...                     fix="remove the file or convert it to wav"))
        Cannot read audio: got 'a.txt', expected wav, flac, mp3 or ogg.
          fix:   remove the file or convert it to wav
    """

    exit_code = EXIT_FAILED

    def __init__(self, what: str, *, got: object = None, expected: str = "", where: object = "", fix: str):
        self.what, self.got, self.expected, self.where, self.fix = what, got, expected, where, fix
        super().__init__(what)

    def __str__(self) -> str:
        details = []
        if self.got is not None:
            got = repr(self.got)
            details.append("got " + (got if len(got) <= _LONGEST_GOT else got[:_LONGEST_GOT] + " ..."))
        if self.expected:
            details.append(f"expected {self.expected}")
        first = self.what.rstrip(".") + (": " + ", ".join(details) if details else "") + "."
        lines = [first]
        if self.where:
            lines.append(f"  where: {self.where}")
        lines.append(f"  fix:   {self.fix}")
        return "\n".join(lines)

    def _render_traceback_(self) -> list[str]:
        """Show a notebook's reader what to mend instead of where in our code it was noticed (IPython asks for this)."""
        return str(self).splitlines()

    def __reduce__(self):  # crosses process boundaries whole
        more = {name: value for name, value in vars(self).items() if name not in _FIELDS}  # such as errno
        return _rebuild, (type(self), self.what, self.got, self.expected, str(self.where), self.fix), more or None


_FIELDS = ("what", "got", "expected", "where", "fix")


def _rebuild(kind: type[ColabkitError], what: str, got: Any, expected: str, where: str, fix: str) -> ColabkitError:
    return kind(what, got=got, expected=expected, where=where, fix=fix)


class UsageError(ColabkitError):
    """The command, a setting or a parameter is wrong; nothing was started."""

    exit_code = EXIT_USAGE


class DataError(ColabkitError):
    """The input data cannot be used."""


class BrokenSampleError(DataError):
    """One sample cannot be used and stays so, while the others of its source can."""


class StateError(ColabkitError):
    """The state folder, a lock or the disk does not allow what was asked."""


def install_command(extra: str = "", *, options: str = "") -> str:
    """Return the pip command for colabkit with an extra, from the repository: the name alone is somebody else's."""
    name = f"colabkit[{extra}]" if extra else "colabkit"
    return f'pip install {options}"{name} @ {INSTALLED_FROM}"'


def missing_extra(error: ModuleNotFoundError, pipeline: str) -> StateError | ModuleNotFoundError:
    """Turn a library that is not installed into the error that names its cure; a module of our own stays a fault."""
    if (error.name or "colabkit").partition(".")[0] == "colabkit":
        return error
    return StateError(
        f"Cannot go on: {error.name} is not installed",
        expected=f"what the {pipeline} pipeline needs",
        fix=f"{install_command(pipeline)}, then run the same again",
    )


class ChangedError(ColabkitError):
    """What is stored was made with other settings than those asked for now."""


class Stopped(ColabkitError):
    """Work was stopped in good order; the same command continues it."""

    exit_code = EXIT_STOPPED


class Rehearsed(Stopped):
    """A dry run has told what it would do, and has done nothing of it."""

    exit_code = EXIT_DONE


class Interrupted(KeyboardInterrupt):
    """A step was interrupted by hand; a notebook shows its one line."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]
