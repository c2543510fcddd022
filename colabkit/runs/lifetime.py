"""Lifetime of this machine: when it is known to end, so that a last checkpoint is stored before it does."""

from __future__ import annotations

import datetime
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from colabkit.core.errors import UsageError

MARGIN_SECONDS = 300.0  # a checkpoint is stored so long before the end
_COLAB_HOURS = (12.0, 24.0)  # the longest a free, and a paid, VM lives
_SETTING = "COLABKIT_ENDS_AT"


@dataclass(frozen=True, slots=True)
class End:
    """One instant at which the machine may end, in seconds since 1970, and how that is known."""

    at: float
    reason: str


def known_ends(
    env: Mapping[str, str] | None = None, *, on_colab_vm: bool = False, root: str | os.PathLike = "/"
) -> list[End]:
    """Return the instants at which this machine is known to end or may end, the first one first. Raises: UsageError."""
    env = os.environ if env is None else env
    ends = []
    if env.get(_SETTING):
        ends.append(End(_instant(env[_SETTING]), f"{_SETTING} says so"))
    if env.get("SLURM_JOB_END_TIME", "").isdigit():
        ends.append(End(float(env["SLURM_JOB_END_TIME"]), "Slurm ends the job then"))
    if on_colab_vm and (booted := _boot_time(root)):
        ends += [End(booted + hours * 3600, f"a Colab VM may end after {hours:g} hours") for hours in _COLAB_HOURS]
    return sorted((e for e in ends if e.at > time.time()), key=lambda end: end.at)


class Lifetime:
    """Tells once for every known end that it comes near."""

    def __init__(self, ends: list[End], *, margin_seconds: float = MARGIN_SECONDS):
        self._ends, self._margin_seconds = list(ends), margin_seconds

    def ending(self) -> End | None:
        """Return the end that is near now, each only once; costs next to nothing."""
        if not self._ends or time.time() < self._ends[0].at - self._margin_seconds:
            return None
        return self._ends.pop(0)


def _instant(text: str) -> float:
    """Read seconds since 1970, an ISO date with time, or "+MINUTES" from now."""
    try:
        if text.startswith("+"):
            found = time.time() + 60 * float(text)
        else:
            found = (
                float(text) if text.replace(".", "", 1).isdigit() else datetime.datetime.fromisoformat(text).timestamp()
            )
        if math.isfinite(found):
            return found
    except ValueError:
        pass  # told below
    raise UsageError(
        f"Cannot read {_SETTING}",
        got=text,
        expected="seconds since 1970, 2026-01-31T18:00, or +90 (minutes from now)",
        fix=f"export {_SETTING}=$(date -d '+12 hours' +%s)",
    )


def _boot_time(root: str | os.PathLike) -> float | None:
    try:
        return time.time() - float(Path(root, "proc/uptime").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None
