"""The places of secrets on a machine without Colab's: environment, .env files, the system's keyring."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from colabkit.colab.place import in_time

KEYRING_SERVICE = "colabkit"
_KEYRING_SECONDS = 3.0  # where nobody can unlock it
_UNLOCKING_SECONDS = 60.0  # a person types a password or puts a finger on a reader
_keyring_hangs: set[str] = set()  # asked once and never heard of again: not asked twice


def find_secret(key: str, *, somebody_there: bool) -> str | None:
    """Return the first of: environment variable, .env file, keyring entry; None where all lack it or have it empty."""
    return os.environ.get(key) or _from_env_files(key) or _from_keyring(key, somebody_there)


def _from_env_files(key: str) -> str | None:
    try:
        from dotenv import dotenv_values
    except ImportError:  # an extra that is not installed
        return None
    for path in env_files():
        try:
            value = dotenv_values(path).get(key)
        except (OSError, ValueError):  # not readable, or not text
            continue
        if value:
            return value
    return None


def env_files() -> Iterator[Path]:
    """Yield the .env files of the working directory and its parents, up to a repository's top or the home folder."""
    try:
        folder = Path.cwd()
    except OSError:  # removed under our feet
        return
    home = Path(os.path.expanduser("~"))
    for place in (folder, *folder.parents):
        if place != folder and place == Path(place.anchor):
            return  # the whole machine's, nobody's project
        if (place / ".env").is_file():
            yield place / ".env"
        if place == home or (place / ".git").exists():
            return


def _from_keyring(key: str, somebody_there: bool) -> str | None:
    if _keyring_hangs:
        return None
    try:
        found = in_time(lambda: (_ask_keyring(key),), _UNLOCKING_SECONDS if somebody_there else _KEYRING_SECONDS)
    except (Exception, SystemExit):  # backends raise what they like: no service, locked, broken settings
        return None
    if found is None:
        _keyring_hangs.add(KEYRING_SERVICE)
        return None
    return found[0] or None


def _ask_keyring(key: str) -> str | None:
    try:
        import keyring
    except ImportError:  # an extra that is not installed
        return None
    return keyring.get_password(KEYRING_SERVICE, key)
