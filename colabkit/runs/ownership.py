"""Whose folder this is: nothing is written into another project's, nor into one that a newer colabkit has written."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from colabkit.core import files
from colabkit.core.errors import StateError, install_command
from colabkit.core.versions.differences import installed_version

MARKER = ".colabkit.json"
FORMAT = 1  # of state folders; raised when an older colabkit could not read them rightly
_OURS = {MARKER, "config.json", "report.json", "ledger", ".lock", ".lease"}


def is_marked(root: Path) -> bool:
    """Tell whether a state root was used before."""
    return (root / MARKER).is_file()


def mark(root: Path) -> None:
    """Say in a state root whose it is."""
    if not is_marked(root):
        files.write_json(
            root / MARKER, {"project": "colabkit", "format": FORMAT, "version": installed_version("colabkit")}
        )


def require_ours(root: Path, pipeline: str, run: Path, *, chosen_by_us: bool) -> None:
    """Raise StateError when the state root or the run folder is another project's or a newer colabkit's.

    A root that the user named may hold other things beside ours; one that was chosen for him, or that lies on Drive
    (`chosen_by_us`), must be ours or empty.
    """
    if is_marked(root):
        _require_format(files.read_json(root / MARKER), root / MARKER)
    elif chosen_by_us and (found := _strange_names(root)):
        other = shlex.quote(str(root.with_name(root.name + "-state")))
        raise _foreign(root, found, f"name another folder: --state {other} (STATE in a notebook)")
    config = run / "config.json"
    if config.is_file():
        content = files.read_json(config)
        _require_format(content, config)
        if isinstance(content, dict) and content.get("pipeline") not in (None, pipeline):
            raise StateError(
                "This is a run of another pipeline",
                got=content["pipeline"],
                expected=pipeline,
                where=run,
                fix="choose another run name (--run, RUN in a notebook)",
            )
    elif run.is_dir() and not _OURS & set(names := os.listdir(run)) and (found := _visible(names)):
        raise _foreign(run, found, "choose another run name (--run, RUN in a notebook), or move the folder away")


def _require_format(content: object, where: Path) -> None:
    project = content.get("project", "colabkit") if isinstance(content, dict) else None
    if project != "colabkit":
        raise _foreign(where.parent, [str(project)], "name another folder: --state DIR (STATE in a notebook)")
    if content.get("format", FORMAT) > FORMAT:
        newer = f" {content['version']}" if content.get("version") else ""
        raise StateError(
            f"This state was written by a newer colabkit{newer}",
            got=f"format {content['format']}",
            expected=f"format {FORMAT} or older",
            where=where,
            fix=f"{install_command(options='--upgrade ')}; or name another folder: --state DIR (STATE in a notebook)",
        )


def _strange_names(root: Path) -> list[str]:
    """Return what lies in an unmarked root, unless some of it is a run of ours."""
    names = _visible(os.listdir(root)) if root.is_dir() else []
    return [] if any(next(root.glob(f"*/*/{name}"), None) for name in ("config.json", "ledger")) else names


def _visible(names: list[str]) -> list[str]:
    return sorted(name for name in names if not name.startswith("."))


def _foreign(folder: Path, found: list[str], fix: str) -> StateError:
    return StateError(
        "This folder belongs to something else; nothing was written",
        where=folder,
        got=", ".join(found[:5]) + (", ..." if len(found) > 5 else ""),
        expected="an empty folder or one of colabkit",
        fix=fix,
    )
