"""One run of a pipeline: its folder, settings and report, and the one way its steps are carried out.

Notebook cell, command and test all go through Run.do.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from colabkit.core import files
from colabkit.core.config import to_dict
from colabkit.core.errors import ColabkitError, Stopped, missing_extra
from colabkit.core.report import Report, Table
from colabkit.core.steps import CHOICES, Ledger, Sections, Step, changed_error, find, select


class Run:
    """A run that is open in this process; use as a context manager, or close it.

    `output` is the folder of the step at work; `stop_requested` names the signal that asks it to stop, else "".
    """

    def __init__(self, *, pipeline: str, steps: tuple[Step, ...], config: Any, preset: str, run_folder: Any,
                 say=print):
        self.pipeline, self.steps, self.config, self.preset, self.say = pipeline, steps, config, preset, say
        self.run_folder, self.path, self.name = run_folder, Path(run_folder.path), run_folder.name
        self.ledger = Ledger(self.path, steps)
        (self.path / "ledger").mkdir(exist_ok=True)
        self.report = Report(self.path / "report.json", say=say, heading={
            "pipeline": pipeline, "run": self.name, "preset": preset, "folder": str(self.path)})
        self.output: Path = self.path
        self.stop_requested = ""
        self._asked_redo = False
        if not (self.path / "config.json").exists():
            self._write_config()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind, error, trace) -> None:
        self.close()

    def close(self) -> None:
        self.run_folder.close()

    @property
    def scratch(self) -> Path:
        """A fast local folder that may be gone tomorrow."""
        return self.run_folder.scratch

    def folder_of(self, step_id: str) -> Path:
        """Return where the finished step's files are."""
        return self.ledger.place(find(self.steps, step_id))

    def metrics_table(self) -> Table:
        """Return the figures of all steps done so far."""
        return Table(["metric", "value"], [[k, v] for k, v in self.report.data["metrics"].items()])

    def choose(self, name: str, value: Any, reason: str) -> Any:
        """Record and print an automatic choice with its reason; returns the value. A resumed step remembers it."""
        self.report.choose(name, value, reason)
        if self.output != self.path:
            files.write_json(self.output / CHOICES, self.report.fresh["choices"])
        return value

    def do_all(self, *, start: str | None = None, stop: str | None = None, redo: Iterable[str] = ()) -> Report:
        """Carry out the steps in order; those in `redo` are made anew, and whatever no longer fits them."""
        redo = tuple(redo)
        chosen = select(self.steps, start, stop, redo)
        self._asked_redo = bool(redo)
        for wanted in redo:
            self.ledger.redo(find(self.steps, wanted), self.config)
        for step in self.steps[: self.steps.index(chosen[0])]:
            if record := self.ledger.record(step):
                self.report.adopt(record)
                self.report.step(step.id, "skip", f"done {record['finished']}, not looked at")
        for step in chosen:
            if self.stop_requested:  # asked while the last step saved its work, and that step was done
                self.report.ended("stopped")
                raise self.stopped()
            self.do(step.id)
        return self.report

    def do(self, step_id: str, *, redo: bool = False) -> dict:
        """Skip, run or stop one step, saying why; returns its record.

        Raises: ChangedError when it was made with other settings; Stopped on SIGTERM; whatever the step raises.
        """
        step = find(self.steps, step_id)
        if redo:
            self._asked_redo = True
            self.ledger.redo(step, self.config)
        identity = self.ledger.identity(step, self.config)
        decision = self.ledger.decide(step, identity)
        self.say(f"{step.id}  {decision.outcome}: {decision.reason}")
        if decision.outcome == "skip":
            record = self.ledger.record(step)
            self.report.adopt(record)
            self.report.step(step.id, "skip", decision.reason)
        elif decision.outcome == "stop":
            self.report.step(step.id, "stop", decision.reason)
            self.report.ended("stopped")
            raise changed_error(step, decision, self.name, self.path)
        else:
            record = self._carry_out(step, identity, decision.reason)
        if step is self.steps[-1]:
            self.report.ended("done")
        return record

    def _carry_out(self, step: Step, identity: dict, reason: str) -> dict:
        began = time.monotonic()
        self.stop_requested = ""
        try:
            self._write_config()
            self.report.begin(step.id, reason)
            self.output = self.ledger.begin(step, identity)
            if (self.output / CHOICES).exists():
                self.report.adopt({"choices": files.read_json(self.output / CHOICES)})
            with self._stopping_in_good_order(step):
                metrics = step.function(Sections(self.config, step), self) or {}
            if self.stop_requested and not step.resumes:
                raise self.stopped()  # the step took Stopped for a fault of its input
            self.run_folder.ensure_held()
            record = self.ledger.finish(step, identity, {
                "metrics": metrics, **self.report.fresh, "seconds": round(time.monotonic() - began, 1)})
        except BaseException as error:
            stopped = isinstance(error, (Stopped, KeyboardInterrupt))
            told = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(": ")
            self._note_end(step, "stopped" if stopped else "failed", told)
            if isinstance(error, OSError) and error.errno is not None:  # libraries raise it for other faults too
                raise files.disk_fault(error, error.filename or self.output, f"finish {step.id}") from error
            for missing in (error, error.__cause__):  # what was missing for a library of ours, too
                if isinstance(missing, ModuleNotFoundError):
                    raise missing_extra(missing, self.pipeline) from missing.__cause__
            raise
        finally:
            self.output = self.path
        self.report.adopt(record)
        self.report.step(step.id, "run", reason, seconds=record["seconds"])
        self.say(f"{step.id}  done in {record['seconds']} s")
        return record

    def _note_end(self, step: Step, state: str, reason: str) -> None:
        try:
            self.report.step(step.id, state, reason)
            self.report.ended(state)
        except ColabkitError as error:  # a full disk must not hide why the step failed
            self.say(f"  the report could not be written: {error.what}")

    @contextmanager
    def _stopping_in_good_order(self, step: Step):
        """Turn SIGTERM into a request to stop: at once, or when the step that resumes has saved its work."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def on_signal(number, frame):
            self.stop_requested = signal.Signals(number).name
            if not step.resumes:
                raise self.stopped()
        before = signal.signal(signal.SIGTERM, on_signal)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)

    def stopped(self) -> Stopped:
        """The error a step raises when `stop_requested` and its work is saved."""
        again = "the same command without --redo" if self._asked_redo else "the same command or notebook"
        return Stopped(f"Stopped by {self.stop_requested or 'request'}; what is done is kept", where=self.path,
                       fix=f"run {again} again: it continues here")

    def _write_config(self) -> None:
        files.write_json(self.path / "config.json", {"pipeline": self.pipeline, "preset": self.preset,
                                                     "settings": to_dict(self.config)})
