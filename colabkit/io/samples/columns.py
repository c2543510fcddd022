"""Columns of a source by their role: from the settings, the table of known datasets, or the usual names."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files

from colabkit.core.errors import DataError, UsageError


@cache
def _table() -> dict:
    return json.loads((files("colabkit.io.samples") / "datasets.json").read_text(encoding="utf-8"))


def known_dataset(address: str) -> dict:
    """Return what is known of a dataset by its address ("hub:org/name/..."); {} for an unknown one.

    Raises: UsageError for one that is known to be gone or not to stream, naming what to use instead.
    """
    whole = address.partition("@")[0]
    for entry in _table()["datasets"]:
        if fnmatchcase(whole, entry["match"]) or fnmatchcase(whole, entry["match"] + "/*"):
            if "gone" in entry:
                raise UsageError(
                    "This dataset cannot be streamed",
                    got=address,
                    expected=entry["gone"],
                    fix=f"use {entry['instead']}",
                )
            return entry
    return {}


def parse_columns(settings: Iterable[str]) -> dict[str, str]:
    """Read ("speaker=client_id", ...) into {role: column}. Raises: UsageError for other forms and unknown roles."""
    mapping = {}
    for setting in settings:
        role, equals, column = setting.partition("=")
        roles = _table()["roles"]
        if not equals or not column or role not in roles:
            near = difflib.get_close_matches(role, roles, n=1)
            raise UsageError(
                "Cannot read a column setting",
                got=setting,
                expected="ROLE=COLUMN, ROLE one of " + ", ".join(roles),
                fix=f"did you mean {near[0]}={column}?" if near else columns_fix("speaker"),
            )
        mapping[role] = column
    return mapping


def columns_fix(role: str) -> str:
    """Return how to say which column holds a role."""
    return (
        f"name the column that holds it, as in --set data.columns={role}=COLUMN (ASR; in the other pipelines "
        "speech.columns, recordings.columns or segments.columns)"
    )


def match_columns(
    present: Iterable[str], address: str, settings: Mapping[str, str], needs: Iterable[str] = ()
) -> dict[str, str]:
    """Return {role: column} for the columns that are there.

    Raises: DataError when the settings name a column that is missing, with the nearest that exists, or when there is
    none for a role in `needs`.
    """
    present = list(present)
    for role, column in settings.items():
        if column not in present:
            near = difflib.get_close_matches(column, present, n=1, cutoff=0.4)
            raise DataError(
                f"The source has no column {column!r}",
                got=f"columns {', '.join(present) or 'none'}",
                expected=f"one for the role {role}",
                where=address,
                fix=f"did you mean {role}={near[0]}?" if near else f"name one of them: {role}=COLUMN",
            )
    known = known_dataset(address).get("columns", {})
    found = {role: next((n for n in names if n in present), None) for role, names in _table()["roles"].items()}
    found |= {role: column for role, column in known.items() if column in present}
    matched = {role: column for role, column in {**found, **settings}.items() if column is not None}
    for role in needs:
        if role not in matched:
            raise DataError(
                f"The source does not say the {role} of its samples",
                got=f"columns {', '.join(present) or 'none'}",
                expected=f"a column for the role {role}, as in {', '.join(_table()['roles'][role][:4])}",
                where=address,
                fix=columns_fix(role),
            )
    return matched
