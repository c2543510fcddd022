"""Refusals that are also the built-in exceptions google.colab raises, so `except ValueError` and others still work."""

from __future__ import annotations

from colabkit.colab.errors import Error
from colabkit.core.errors import UsageError


class WrongValueError(UsageError, ValueError):
    """An argument cannot be used as it is."""


class NoSuchFileError(UsageError, FileNotFoundError):
    """The file that was asked for is not there."""


class NotAFileError(UsageError, IsADirectoryError):
    """A folder was given where one file is wanted."""


class NotUploadedError(Error, ValueError):
    """No file was handed over."""


class MountError(Error, ValueError):
    """Google Drive's folder cannot be shown where it was asked for."""


class UnsupportedError(Error, NotImplementedError):
    """Only Colab can do this."""
