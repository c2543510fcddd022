"""Needs of a config that this machine may not meet: told before anything is cut, uploaded or encoded."""

from __future__ import annotations

from colabkit.core.errors import ColabkitError
from colabkit.pipelines.dataset.codecs.names import kind_of, lacking
from colabkit.pipelines.dataset.config import Config


def hindrance(config: Config) -> tuple[str, ColabkitError] | None:
    """Return a step that cannot be done on this machine, and why; None where all can."""
    if config.role.machine not in ("all", "encode"):
        return None
    error = lacking(kind_of(config.codec.name))
    return None if error is None else ("04_encode", error)
