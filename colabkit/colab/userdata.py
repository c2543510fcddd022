"""google.colab.userdata: secrets by name, never printed and never written down by us."""

from __future__ import annotations

import getpass
import re
import threading

from colabkit.colab import fetched_secrets
from colabkit.colab.errors import Error
from colabkit.colab.place import here, real
from colabkit.colab.refusals import WrongValueError
from colabkit.colab.secret_sources import KEYRING_SERVICE, find_secret
from colabkit.core.errors import ColabkitError
from colabkit.core.runtime import Runtime

__all__ = ["NotebookAccessError", "SecretNotFoundError", "TimeoutException", "fetched_values", "forget", "get"]


class _OfKey:
    """Keeps the secret's name, so that the exception crosses process boundaries whole."""

    def __reduce__(self):
        return type(self), (self.key,)


class NotebookAccessError(_OfKey, ColabkitError):
    """The secret exists, but this notebook may not read it."""

    def __init__(self, key):
        self.key = key
        super().__init__(
            f"Notebook does not have access to secret {key}",
            fix="open the key icon on the left of Colab's page and switch on 'Notebook access' for it",
        )


class SecretNotFoundError(_OfKey, Error):
    """No secret of this name was found, and nobody gave one."""

    def __init__(self, key):
        self.key = key
        super().__init__(f"Secret {key} does not exist", fix=_how_to_give(key))


class TimeoutException(_OfKey, Error):
    """Colab's page, which keeps the secret, does not answer."""

    def __init__(self, key):
        self.key = key
        super().__init__(f"Requesting secret {key} timed out: Colab's page does not answer here", fix=_how_to_give(key))


def _how_to_give(key: str) -> str:
    return (
        f"set the environment variable {key} before the notebook starts, or write {key}=... into a .env file "
        f"beside it, or run: keyring set {KEYRING_SERVICE} {key}"
    )


_asking = threading.Lock()  # one question at a time
_remembered: dict[str, str] = {}
_fetched: set[str] = set()


def get(key):
    """Return a secret: on Colab from its secrets, else environment, .env file, keyring, or asked for at the front end.

    Raises ValueError for a name that cannot be one, SecretNotFoundError, NotebookAccessError or TimeoutException.
    """
    if not key or not isinstance(key, str):
        raise WrongValueError(
            "Please enter a valid secret name",
            got=type(key).__name__ if key else key,
            expected="a text such as HF_TOKEN",
            fix="userdata.get('HF_TOKEN')",
        )
    if re.search(r"\s", key):
        raise WrongValueError("Secret name cannot contain spaces or whitespace", fix="userdata.get('HF_TOKEN')")
    runtime = here()
    colab = real("userdata", runtime, answered=runtime.answers_secrets)
    value = _ask_colab(colab, key) if colab else _look(key, runtime)
    if value:
        _know(value)
    return value


def _know(value: str) -> None:
    _fetched.add(value)
    fetched_secrets.tell(value)


def fetched_values() -> frozenset[str]:
    """Return every secret this process has got, so that whoever writes logs and reports can leave them out."""
    return frozenset(_fetched)


def forget(key: str | None = None) -> None:
    """Drop what was typed in for `key`, or all of it: the next get() asks again."""
    with _asking:
        if key is None:
            _remembered.clear()
        else:
            _remembered.pop(key, None)


def _ask_colab(colab, key: str) -> str:
    try:
        return colab.get(key)
    # Ours are the ones that code importing from colabkit.colab catches.
    except colab.SecretNotFoundError as error:
        raise SecretNotFoundError(key) from error
    except colab.NotebookAccessError as error:
        raise NotebookAccessError(key) from error
    except colab.TimeoutException as error:
        raise TimeoutException(key) from error


def _look(key: str, runtime: Runtime) -> str:
    somebody_there = runtime.answers_requests or runtime.front_end == "terminal"
    with _asking:
        value = find_secret(key, somebody_there=somebody_there) or _remembered.get(key)
        if value:
            return value
        if somebody_there:
            return _ask(key)
    raise TimeoutException(key) if runtime.on_colab_vm else SecretNotFoundError(key)


def _ask(key: str) -> str:
    try:
        value = getpass.getpass(f"Secret {key} (not shown; empty if there is none): ").strip()
        if not value:
            raise SecretNotFoundError(key)
        _know(value)  # before anything else can fail and be printed
        if input(f"Keep {key} until this kernel stops? [Y/n] ").strip().lower() not in ("n", "no"):
            _remembered[key] = value
    except (EOFError, OSError) as error:  # the input was closed: nobody is there after all
        raise SecretNotFoundError(key) from error
    except Exception as error:
        if type(error).__name__ != "StdinNotImplementedError":
            raise
        raise SecretNotFoundError(key) from error
    return value
