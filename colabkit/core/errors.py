"""One way to fail: what could not be done, what was got, what is wanted, where, and how to mend it."""

from __future__ import annotations

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_STOPPED = 75  # EX_TEMPFAIL of sysexits.h: stopped in good order, run the same command again


class ColabkitError(Exception):
    """An error a user can act on; prints as at most five lines, the last one saying how to mend it.

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
            details.append(f"got {self.got!r}")
        if self.expected:
            details.append(f"expected {self.expected}")
        first = self.what.rstrip(".") + (": " + ", ".join(details) if details else "") + "."
        lines = [first]
        if self.where:
            lines.append(f"  where: {self.where}")
        lines.append(f"  fix:   {self.fix}")
        return "\n".join(lines)

    def __reduce__(self):  # crosses process boundaries whole
        return _rebuild, (type(self), self.what, self.got, self.expected, str(self.where), self.fix)


def _rebuild(kind, what, got, expected, where, fix):
    return kind(what, got=got, expected=expected, where=where, fix=fix)


class UsageError(ColabkitError):
    """The command, a setting or a parameter is wrong; nothing was started."""

    exit_code = EXIT_USAGE


class DataError(ColabkitError):
    """The input data cannot be used."""


class StateError(ColabkitError):
    """The state folder, a lock or the disk does not allow what was asked."""


class ChangedError(ColabkitError):
    """What is stored was made with other settings than those asked for now."""


class Stopped(ColabkitError):
    """Work was stopped in good order; the same command continues it."""

    exit_code = EXIT_STOPPED
