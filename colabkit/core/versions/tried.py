"""Versions that were tried together: in which environments, when, and what of this machine lies outside of them.

tried.json is written by `python -m tests.install.record_tried` from the environments that the tests ran in.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from colabkit.core.versions.differences import installed_version, is_older

PLACE = Path(__file__).with_name("tried.json")


@dataclass(frozen=True, slots=True)
class Environment:
    """Versions that were together when the tests passed.

    `versions`: package -> version; `date`: when they were tried.
    """

    name: str
    date: str
    python: str
    versions: dict[str, str]


@cache
def environments() -> tuple[Environment, ...]:
    """Return what was tried, the oldest versions first."""
    return tuple(Environment(**entry) for entry in json.loads(PLACE.read_text(encoding="utf-8")))


def bounds(package: str) -> tuple[str, str]:
    """Return the lowest and the highest version of a package that was tried; ("", "") for one that was not."""
    lowest = highest = ""
    for version in (e.python if package == "python" else e.versions.get(package, "") for e in environments()):
        if version:
            lowest = version if not lowest or is_older(version, lowest) else lowest
            highest = version if not highest or is_older(highest, version) else highest
    return lowest, highest


def packages() -> list[str]:
    """Return the packages whose versions were written down."""
    return sorted({name for environment in environments() for name in environment.versions})


def outside(python: str = "") -> list[str]:
    """Return a line for all of this machine that is older or newer than what was tried; nothing is imported."""
    found = []
    for name, version in [("python", python), *((name, installed_version(name)) for name in packages())]:
        lowest, highest = bounds(name)
        if version and lowest and is_older(version, lowest):
            found.append(f"{name} {version} is older than {lowest}")
        elif version and highest and is_older(_series(highest), _series(version)):
            found.append(f"{name} {version} is newer than {highest}")
    return found


def _series(version: str) -> str:
    """Return a version without its last part, which stands for repairs."""
    return ".".join(version.split("+")[0].split(".")[:2])


def row(python: str) -> tuple[str, str, str]:
    """Return (what, value, what it means) for `colabkit check`."""
    strangers = outside(python)
    if not strangers:
        last = max(environment.date for environment in environments())
        return "libraries", "tried", f"all within the versions that were tried, the last time on {last}"
    told = "; ".join(strangers[:4]) + (f"; {len(strangers) - 4} more" if len(strangers) > 4 else "")
    return (
        "libraries",
        "not all tried",
        told + ": they may work; if something fails, this is the first thing to look at",
    )
