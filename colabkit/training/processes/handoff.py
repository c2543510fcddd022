"""Handoff between the process that holds a run and those that work at one of its steps: the task, and errors."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from colabkit.core.config import to_dict
from colabkit.core.errors import ColabkitError, StateError, UsageError
from colabkit.runs.run import Run
from colabkit.runs.steps import Step

MARK = "\x1e"  # begins a line that is an event, not text
STOP = "STOP"  # a file of the exchange folder: the name of the signal that asks to stop


@dataclass(frozen=True, slots=True, kw_only=True)
class Handoff:
    """All that a process needs to know to take part in a step; plain JSON.

    `exchange` is a local folder for what goes to and fro; empty where the first process holds the run itself.
    """

    recipe: str  # the module that holds STEPS
    config_type: str  # module:name
    settings: dict[str, Any]
    pipeline: str
    preset: str
    step: str
    path: str
    output: str
    identity: dict[str, Any]
    exchange: str = ""
    num_processes: int = 0
    launcher_pid: int = 0

    @classmethod
    def of(cls, step: Step, run: Run, identity: dict[str, Any], **how: Any) -> Handoff:
        """Describe the step at work. Raises: UsageError when other processes could not import it."""
        recipe, config_type = step.function.__module__, type(run.config)
        if "__main__" in (recipe, config_type.__module__):
            raise UsageError(
                f"Cannot do {step.id} in several processes: they could not import it",
                got="a step made in the notebook",
                expected="steps and settings in a module",
                fix=f"move them to a .py file, or --set {step.processes}=1",
            )
        return cls(
            recipe=recipe,
            config_type=f"{config_type.__module__}:{config_type.__qualname__}",
            settings=to_dict(run.config),
            pipeline=run.pipeline,
            preset=run.preset,
            step=step.id,
            path=str(Path(run.path).absolute()),
            output=str(Path(run.output).absolute()),
            identity=identity,
            **how,
        )

    @classmethod
    def read(cls, path: str | Path) -> Handoff:
        return cls(**json.loads(Path(path).read_text(encoding="utf-8")))

    def text(self) -> str:
        return json.dumps(asdict(self))


def told(error: BaseException) -> dict[str, Any]:
    """Describe an error in JSON, so that `error_of` makes the same one in another process."""
    kind = f"{type(error).__module__}:{type(error).__qualname__}"
    if isinstance(error, ColabkitError):
        got = error.got if error.got is None or isinstance(error.got, (str, int, float)) else {"repr": repr(error.got)}
        more = {
            name: value
            for name, value in vars(error).items()
            if name not in ("what", "got", "expected", "where", "fix") and isinstance(value, (str, int, float))
        }
        return {
            "kind": kind,
            "what": error.what,
            "got": got,
            "expected": error.expected,
            "where": str(error.where),
            "fix": error.fix,
            "more": more,
        }
    if isinstance(error, OSError) and error.errno is not None:
        return {
            "kind": "OSError",
            "arguments": [error.errno, error.strerror, str(error.filename) if error.filename else None],
        }
    if isinstance(error, ModuleNotFoundError):
        return {"kind": "ModuleNotFoundError", "message": str(error), "name": error.name}
    return {"kind": kind, "text": f"{type(error).__name__}: {error}".splitlines()[0].rstrip(": ")}


def error_of(described: dict[str, Any]) -> BaseException | None:
    """Return the error that `told` described; None for a fault of the program, which has only a text."""
    if described["kind"] == "OSError":
        number, text, name = described["arguments"]
        return OSError(number, text, name) if name else OSError(number, text)
    if described["kind"] == "ModuleNotFoundError":
        return ModuleNotFoundError(described["message"], name=described["name"])
    if "what" not in described:
        return None
    kind = resolve_name(described["kind"])
    if not issubclass(kind, ColabkitError):
        raise StateError(
            "Cannot read an error of another process",
            got=described["kind"],
            expected="one of colabkit's",
            fix="see the logs of the run",
        )
    got = _Told(described["got"]["repr"]) if isinstance(described["got"], dict) else described["got"]
    error = kind(
        described["what"], got=got, expected=described["expected"], where=described["where"], fix=described["fix"]
    )
    vars(error).update(described["more"])
    return error


class _Told:
    """Looks like what another process got."""

    def __init__(self, text: str):
        self._text = text

    def __repr__(self) -> str:
        return self._text
