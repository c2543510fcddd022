"""The exceptions of google.colab.errors; each also says how to mend what went wrong."""

from __future__ import annotations

from colabkit.core.errors import ColabkitError

__all__ = ["AuthorizationError", "Error", "RuntimeManagementError", "WidgetException"]


class _OfColab(ColabkitError):
    """Takes one text like any exception, and the cure where one is known."""

    def __init__(self, what: str = "", *, got: object = None, expected: str = "", where: object = "", fix: str = ""):
        super().__init__(what, got=got, expected=expected, where=where, fix=fix)

    def __str__(self) -> str:
        return super().__str__() if self.fix else self.what


class Error(_OfColab):
    """Base class of what these calls raise."""


class AuthorizationError(Error):
    """No usable Google credentials."""


class RuntimeManagementError(Error):
    """The machine cannot be managed from here."""


class WidgetException(_OfColab):
    """A widget was used in a way it does not allow; no Error, as there."""
