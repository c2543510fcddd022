"""Idempotent steps: each is skipped, run or stopped, and always says why.

A step is a plain function `(config, run) -> metrics or None` with an id, the config sections it uses, the earlier
steps it reads, the files it writes and a version:

    @step("02_train", uses=("model", "train"), reads=("01_speech",), writes=("model.safetensors",), version=1)
    def train(config, run): ...

What was made is described by a record in `ledger/<id>.json`, written last. A step is
- skipped, when its record matches today's settings, inputs and version, and its files are whole;
- stopped, when its own settings, version or outside input differ from the record: what exists is never overwritten;
- run, otherwise: nothing is there yet, a file is missing, or a step it reads was made anew;
- skipped without a record, when it says that it is another machine's to do.

Outputs are made in `<id>.partial/` and moved to `<id>/`. A step that `resumes` finds its own unfinished work there.
Anything replaced is moved to `superseded/`; only half-made work that cannot be resumed is deleted.
"""

from __future__ import annotations

import difflib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from colabkit.core import files
from colabkit.core.config import digest, identity_settings
from colabkit.core.disk import patiently
from colabkit.core.errors import ChangedError, ColabkitError, UsageError

STARTED = "STARTED.json"
CHOICES = "CHOICES.json"  # what unfinished work chose once, and must remember when it goes on


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    id: str
    function: Callable[[Any, Any], dict | None]
    title: str
    uses: tuple[str, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    version: int
    resumes: bool
    outside: Callable[[Any], dict[str, str]] | None
    processes: str = ""
    elsewhere: Callable[[Any], str] | None = None


def step(
    id: str,
    *,
    uses: tuple[str, ...] = (),
    reads: tuple[str, ...] = (),
    writes: tuple[str, ...] = (),
    version: int = 1,
    resumes: bool = False,
    outside: Callable[[Any], dict[str, str]] | None = None,
    processes: str = "",
    elsewhere: Callable[[Any], str] | None = None,
) -> Callable[[Callable[..., dict | None]], Step]:
    """Make a Step of a function; its docstring's first line is the title.

    `writes` are glob patterns inside the step's folder; they are fingerprinted, other files are not part of the
    result. `outside(config)` returns fingerprints of inputs that no step made, such as the user's recordings.
    `processes` names the setting that says in how many processes the step works, as in "train.processes".
    `elsewhere(config)` says why a step is left to another machine; "" when it is this one's.
    """

    def decorate(function: Callable) -> Step:
        title = (function.__doc__ or id).strip().splitlines()[0].rstrip(".")
        return Step(
            id=id,
            function=function,
            title=title,
            uses=uses,
            reads=reads,
            writes=writes,
            version=version,
            resumes=resumes,
            outside=outside,
            processes=processes,
            elsewhere=elsewhere,
        )

    return decorate


@dataclass(frozen=True, slots=True)
class Decision:
    outcome: str  # "skip", "run" or "stop"
    reason: str


class Sections:
    """The config as a step sees it: only the sections it declared, so that its identity cannot lie.

    `run_folder` is where the run lies, for inputs that are kept beside it.
    """

    def __init__(self, config: Any, step: Step, run_folder: Path | None = None):
        self._step_id, self._names, self.run_folder = step.id, step.uses, run_folder
        for name in step.uses:
            setattr(self, name, getattr(config, name))

    def __getattr__(self, name: str):
        if name.startswith("_"):  # pickle and copy ask for special methods before __init__ has run
            raise AttributeError(name)
        raise AttributeError(f"step {self._step_id} uses {self._names} and must declare {name!r} in `uses` to read it")


def select(steps: tuple[Step, ...], start: str | None, stop: str | None, redo: tuple[str, ...]) -> list[Step]:
    """Return the steps from `start` to `stop`, inclusive; `redo` must be among them. Raises: UsageError."""
    first = steps.index(find(steps, start)) if start else 0
    last = steps.index(find(steps, stop)) if stop else len(steps) - 1
    if first > last:
        raise UsageError(
            "Cannot run these steps",
            got=f"from {start} to {stop}",
            expected="--from before --to",
            fix="swap --from and --to",
        )
    chosen = list(steps[first : last + 1])
    for wanted in redo:
        if find(steps, wanted) not in chosen:
            raise UsageError(
                "Cannot redo a step that is not run",
                got=wanted,
                expected="one of " + ", ".join(s.id for s in chosen),
                fix="leave out --from and --to",
            )
    return chosen


def find(steps: tuple[Step, ...], wanted: str) -> Step:
    """Return the step with this id; its number ("02") or its name ("train") will do."""
    for candidate in steps:
        number, _, name = candidate.id.partition("_")
        if wanted and wanted in (candidate.id, number, name, number.lstrip("0")):
            return candidate
    names = {name: s.id for s in steps for name in (s.id, s.id.partition("_")[2])}
    near = difflib.get_close_matches(wanted, names, n=1, cutoff=0.5)
    raise UsageError(
        "No such step",
        got=wanted,
        expected="one of " + ", ".join(s.id for s in steps),
        fix=f"did you mean {names[near[0]]}?" if near else f"use for example {steps[0].id}",
    )


class Ledger:
    """The records of one run's steps, and the moves that keep them true at every instant.

    `renamed`: {former name: name} of settings, which records of earlier versions hold under their former names.
    """

    def __init__(self, folder: Path, steps: tuple[Step, ...], renamed: Mapping[str, str] = MappingProxyType({})):
        self.folder, self.steps, self.renamed = Path(folder), steps, renamed

    def record_path(self, step: Step) -> Path:
        return self.folder / "ledger" / f"{step.id}.json"

    def record(self, step: Step) -> dict | None:
        path = self.record_path(step)
        return files.read_json(path) if path.exists() else None

    def files(self) -> list[Path]:
        """Return the records and outputs of everything done."""
        done = {s: record for s in self.steps if (record := self.record(s))}
        outputs = [self.place(s) / name for s, record in done.items() for name in record["outputs"]]
        return [*map(self.record_path, done), *outputs]

    def place(self, step: Step) -> Path:
        return self.folder / step.id

    def partial(self, step: Step) -> Path:
        return self.folder / f"{step.id}.partial"

    def identity(self, step: Step, config: Any) -> dict[str, Any]:
        """Return what makes this step's result what it is. Raises: UsageError when a step it reads is not done."""
        reads = {}
        for name in step.reads:
            source = find(self.steps, name)
            record = self.record(source)
            if record is None or not self.place(source).is_dir():
                raise UsageError(
                    f"Cannot run {step.id}",
                    expected=f"{name} to be done first",
                    where=self.folder,
                    fix=f"run {name} first (leave --from out to run all steps)",
                )
            reads[name] = record["fingerprint"]
        outside = step.outside(Sections(config, step, self.folder)) if step.outside else {}
        return _own_identity(step, config) | {"reads": reads, "outside": outside}

    def decide(self, step: Step, identity: dict[str, Any]) -> Decision:
        record = self.record(step)
        if record is not None:
            change = own_change(record["identity"], identity, self.renamed)
            if change:
                return Decision("stop", f"made with {change}")
            if record["identity"]["reads"] != identity["reads"]:
                names = [n for n, v in identity["reads"].items() if record["identity"]["reads"].get(n) != v]
                return Decision("run", f"{', '.join(names)} was made anew")
            broken = self.broken_output(step, record)
            if broken:
                return Decision("run", f"its file {broken} is missing or changed")
            return Decision("skip", f"done {record['finished']}, settings and inputs unchanged")
        started = self.started(step)
        if started is None:
            return Decision("run", "not done yet")
        change = own_change(started, identity, self.renamed)
        if change and step.resumes:
            return Decision("stop", f"half made with {change}")
        if step.resumes and started["reads"] == identity["reads"]:
            return Decision("run", "continues what was begun")
        return Decision("run", "begun but not finished")

    def begun(self, step: Step, identity: dict[str, Any]) -> dict | None:
        """Return the identity that unfinished work was begun with where the step goes on with it, else None.

        It means the same as `identity`, and may say it in the words of an earlier version.
        """
        started = self.started(step) if step.resumes else None
        return started if started and self._is_same(started, identity) else None

    def _is_same(self, then: dict[str, Any], now: dict[str, Any]) -> bool:
        return then["reads"] == now["reads"] and not own_change(then, now, self.renamed)

    def started(self, step: Step) -> dict | None:
        """Return the identity of unfinished work, if any; a resumable step's unrecorded work counts as unfinished."""
        place = self.place(step) if self._is_moved_but_not_recorded(step) else self.partial(step)
        if not (place / STARTED).exists():
            return None
        try:
            return files.read_json(place / STARTED)
        except ColabkitError:  # what cannot be told apart is not continued
            return None

    def _is_moved_but_not_recorded(self, step: Step) -> bool:
        """Tell whether a step that resumes was killed between its last two acts: it goes on, and is soon done."""
        return (
            step.resumes
            and self.record(step) is None
            and (self.place(step) / STARTED).exists()
            and not self.partial(step).exists()
        )

    def broken_output(self, step: Step, record: dict) -> str | None:
        """Return the name of the first output that is missing or not what was made; None when all are whole."""
        return next(self._broken_outputs(step, record), None)

    def _broken_outputs(self, step: Step, record: dict) -> Iterator[str]:
        place = self.place(step)
        if not place.is_dir():
            yield f"{step.id}/"
        for name, (size, sha256) in record["outputs"].items():
            path = place / name
            if not path.is_file() or path.stat().st_size != size or files.sha256_file(path) != sha256:
                yield name

    def begin(self, step: Step, identity: dict[str, Any]) -> Path:
        """Prepare the folder to work in: work of the same identity is continued where the step resumes."""
        partial, record = self.partial(step), self.record(step)
        if step.resumes and record and self._is_same(record["identity"], identity) and not partial.exists():
            self._reopen(step, record)
        if self._is_moved_but_not_recorded(step):
            _move(self.place(step), partial)
        started = self.started(step)
        self.supersede(step)
        if step.resumes and started and self._is_same(started, identity):
            return partial
        if step.resumes and partial.is_dir() and any(partial.iterdir()):
            self._move_away(partial)
        else:
            files.remove_generation(partial)  # unfinished and not resumable: nobody's result
        try:
            patiently(lambda: partial.mkdir(exist_ok=True))
        except OSError as error:
            raise files.disk_fault(error, partial, f"start {step.id}") from error
        files.write_json(partial / STARTED, identity)
        return partial

    def _reopen(self, step: Step, record: dict) -> None:
        """Turn a finished step with a broken file back into unfinished work, so that hours are not done again."""
        place = self.place(step)
        for name in list(self._broken_outputs(step, record)):
            self._move_away(place / name, f"{step.id}.{Path(name).name}")
        if (place / STARTED).exists():
            _move(place, self.partial(step))

    def finish(self, step: Step, identity: dict[str, Any], results: dict[str, Any]) -> dict:
        """Move the outputs into place and write the record, last."""
        partial, place = self.partial(step), self.place(step)
        outputs = {}
        written = {p for pattern in step.writes for p in partial.glob(pattern) if p.is_file()}
        for path in sorted(written - {partial / STARTED, partial / CHOICES}):
            files.sync_folder(path)  # a file is synced the same way
            outputs[path.relative_to(partial).as_posix()] = [path.stat().st_size, files.sha256_file(path)]
        _move(partial, place)
        record = {
            "step": step.id,
            "identity": identity,
            "outputs": outputs,
            "fingerprint": digest([outputs, step.id]),
            **results,
            "finished": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        files.write_json(self.record_path(step), record)
        return record

    def supersede(self, step: Step) -> None:
        """Move a step's outputs and record aside. The outputs go first: a record without them counts as broken."""
        self._move_away(self.place(step))
        self._move_away(self.record_path(step))

    def redo(self, step: Step, config: Any) -> None:
        """Set a step aside, with its unfinished work and all later results that would no longer match."""
        doomed = {step.id}
        for later in self.steps:
            if later.id in doomed or doomed & set(later.reads):
                doomed.add(later.id)
        for later in reversed([s for s in self.steps if s.id in doomed]):
            if self._is_moved_but_not_recorded(later):
                _move(self.place(later), self.partial(later))
            record, started = self.record(later), self.started(later)
            known = record["identity"] if record else started
            if later.id == step.id or (known and own_change(known, known | _own_identity(later, config), self.renamed)):
                self.supersede(later)
                self._move_away(self.partial(later))

    def _move_away(self, path: Path, name: str = "") -> None:
        if not path.exists():
            return
        shelf, name, number = self.folder / "superseded", name or path.name, 1
        shelf.mkdir(exist_ok=True)
        while (shelf / f"{name}.{number}").exists():
            number += 1
        _move(path, shelf / f"{name}.{number}")


def _move(source: Path, target: Path) -> None:
    """Rename for good: after a crash it has happened or not."""

    def rename() -> None:
        if not os.path.lexists(source) and os.path.lexists(target):
            return  # a try before this one had come through after all
        source.rename(target)

    try:
        patiently(rename)
    except OSError as error:
        raise files.disk_fault(error, source, f"move {source.name} to {target.name}") from error
    for folder in {source.parent, target.parent}:
        files.sync_folder(folder)


def _own_identity(step: Step, config: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for section in step.uses:
        settings |= identity_settings(getattr(config, section), f"{section}.")
    return {"settings": settings, "version": step.version}


def own_change(then: dict, now: dict, renamed: Mapping[str, str] = MappingProxyType({})) -> str:
    """Say how a step's own settings, version or outside input differ; empty when they do not.

    `renamed`: {former name: name} of settings, for records that hold the former. A setting that did not exist yet
    counts as none.
    """
    was, new = ({renamed.get(name, name): value for name, value in of["settings"].items()} for of in (then, now))
    changed = [
        f"{name}={was.get(name)!r}, now {new.get(name)!r}"
        for name in sorted(was.keys() | new.keys())
        if was.get(name) != new.get(name)
    ]
    if then["version"] != now["version"]:
        changed.append(f"version {then['version']} of this step, now {now['version']}")
    for name in sorted(then.get("outside", {}).keys() | now.get("outside", {}).keys()):
        if then.get("outside", {}).get(name) != now.get("outside", {}).get(name):
            changed.append(f"other files in {name}")
    return "; ".join(changed)


def changed_error(step: Step, decision: Decision, run_name: str, where: Path) -> ChangedError:
    """Return the error that says what a step was made with, and the three ways out."""
    return ChangedError(
        f"Stopped before {step.id}: it was {decision.reason}",
        where=where,
        fix=f"--redo {step.id} makes it anew (the old one is kept in superseded/), or choose another "
        f"run name than {run_name!r}, or set the old value again",
    )
