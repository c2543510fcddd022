"""One run of a pipeline: its folder, settings and report, and the one way its steps are carried out.

Notebook cell, command and test all go through Run.do.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from colabkit.core import files
from colabkit.core.config import digest, renamed, to_dict
from colabkit.core.disk import PASSING, faults_told, patiently
from colabkit.core.errors import ColabkitError, Interrupted, StateError, Stopped, missing_extra
from colabkit.core.runtime import detect
from colabkit.core.table import Table
from colabkit.core.teller import Teller, signals_to
from colabkit.runs.lifetime import Lifetime, known_ends
from colabkit.runs.medium import medium_of, wait_for_uploads
from colabkit.runs.ownership import FORMAT
from colabkit.runs.report import Report
from colabkit.runs.steps import CHOICES, Decision, Ledger, Sections, Step, changed_error, find, select


def alone(step: Step, sections: Sections, run: Run, identity: dict[str, Any]) -> dict | None:
    """Do the work of a step in this process."""
    if step.processes:
        raise ValueError(f"{step.id} may take several processes: open the run with carry_out=team.carry_out")
    return step.function(sections, run)


class Run(Teller):
    """A run that is open in this process; use as a context manager, or close it. What it is told stands in its report.

    `output` is the folder of the step at work; `stop_requested` names the signal that asks it to stop, else "".
    `carry_out` does the work of a step: here, or as training.processes.team.carry_out does in as many processes as a
    setting says.
    """

    def __init__(
        self,
        *,
        pipeline: str,
        steps: tuple[Step, ...],
        config: Any,
        preset: str,
        run_folder: Any,
        say: Callable[[str], object] = print,
        carry_out: Callable[[Step, Sections, Run, dict[str, Any]], dict | None] = alone,
    ):
        super().__init__(say)
        self.pipeline, self.steps, self.config, self.preset = pipeline, steps, config, preset
        self._carry_out_work = carry_out
        self.run_folder, self.path, self.name = run_folder, Path(run_folder.path), run_folder.name
        self.ledger = Ledger(self.path, steps, renamed(type(config)))
        self.report = Report(
            self.path / "report.json",
            say=say,
            heading={"pipeline": pipeline, "run": self.name, "preset": preset, "folder": str(self.path)},
        )
        self.report.is_writable = False
        self.output: Path = self.path
        self.stop_requested = ""
        self.lifetime = Lifetime(known_ends(on_colab_vm=detect().on_colab_vm))
        self._asked_redo = False
        self._step_at_work: Step | None = None
        self._identity: dict = {}
        if run_folder.is_held:
            self.hold()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()

    def close(self) -> None:
        self.run_folder.close()
        self.report.is_writable = False  # a step that is asked for later takes the run again

    def hold(self) -> None:
        """Take the right to write the run; until then it is only looked at, and a finished one stays as it is."""
        if self.report.is_writable:
            return
        patiently(self._hold)
        self.report.is_writable = True

    def _hold(self) -> None:
        self.run_folder.hold()
        (self.path / "ledger").mkdir(exist_ok=True)
        if not (self.path / "config.json").exists():
            self._write_config()

    @property
    def scratch(self) -> Path:
        """A fast local folder that may be gone tomorrow."""
        return self.run_folder.scratch

    def folder_of(self, step_id: str) -> Path:
        """Return where the finished step's files are."""
        return self.ledger.place(find(self.steps, step_id))

    @property
    def scratch_at_work(self) -> Path:
        """The part of the scratch that is the step's at work: it lasts until the step is done, or other work begins."""
        return self._scratch_of(self._step_at_work)

    @property
    def identity_at_work(self) -> str:
        """What tells the work of the step at hand from other work."""
        return digest(self._identity)

    def wants_checkpoint(self) -> bool:
        """Tell whether to store a checkpoint now: a stop was asked for, or this machine is known to end soon."""
        if self.stop_requested:
            return True
        end = self.lifetime.ending()
        if end is not None:
            clock = time.strftime("%H:%M", time.localtime(end.at))
            self.say(f"  a checkpoint is stored now: this machine may end at {clock} ({end.reason})")
        return end is not None

    def metrics_table(self) -> Table:
        """Return the figures of all steps done so far."""
        return Table(["metric", "value"], [[k, v] for k, v in self.report.data["metrics"].items()])

    def choose(self, name: str, value: Any, reason: str) -> Any:
        """Record and print an automatic choice with its reason; returns the value. A resumed step remembers it."""
        self.report.choose(name, value, reason)
        if self.output != self.path:
            try:
                files.write_json(self.output / CHOICES, self.report.fresh["choices"])
            except StateError as error:
                if getattr(error, "errno", None) not in PASSING:
                    raise
                self.say(
                    f"  WARNING {error.what}; the choice is remembered with the next one, or when the step is done"
                )
        return value

    def problem(self, item: str, reason: str) -> None:
        """Record and print one thing that was left aside."""
        self.report.problem(item, reason)

    def do_all(self, *, start: str | None = None, stop: str | None = None, redo: Iterable[str] = ()) -> Report:
        """Carry out the steps in order; those in `redo` are made anew, and whatever no longer fits them."""
        redo = tuple(redo)
        chosen = select(self.steps, start, stop, redo)
        self._asked_redo = bool(redo)
        with faults_told(self.path, "make steps anew"):
            if redo:
                self.hold()
            for wanted in redo:
                self.ledger.redo(find(self.steps, wanted), self.config)
        for step in self.steps[: self.steps.index(chosen[0])]:
            if record := self.ledger.record(step):
                self.report.adopt(record)
                self.report.step(step.id, "skip", f"done {record['finished']}, not looked at")
        for step in chosen:
            if self.stop_requested:  # asked while the last step saved its work, and that step was done
                self._ended("stopped")
                raise self.stopped()
            self.do(step.id)
        return self.report

    def do(self, step_id: str, *, redo: bool = False) -> dict:
        """Skip, run or stop one step, saying why; returns its record.

        Raises: ChangedError when it was made with other settings; Stopped on SIGTERM; whatever the step raises.
        """
        step = find(self.steps, step_id)
        with faults_told(self.path, f"go on with {step.id}"):
            return self._do(step, redo)

    def _do(self, step: Step, redo: bool) -> dict:
        if redo:
            self._asked_redo = True
            self.hold()
            self.ledger.redo(step, self.config)
        if step.elsewhere and (reason := step.elsewhere(Sections(self.config, step, self.path))):
            return self._leave(step, reason)
        identity, decision = self._decide(step)
        if decision.outcome == "run" and not self.report.is_writable:
            self.hold()
            identity, decision = self._decide(step)  # another process may have done it while this one only looked
        self.say(f"{step.id}  {decision.outcome}: {decision.reason}")
        if decision.outcome == "skip":
            record = self.ledger.record(step)
            self.report.adopt(record)
            self.report.step(step.id, "skip", decision.reason)
        elif decision.outcome == "stop":
            self.report.step(step.id, "stop", decision.reason)
            self._ended("stopped")
            raise changed_error(step, decision, self.name, self.path)
        else:
            record = self._carry_out(step, identity, decision.reason)
        if step is self.steps[-1]:
            self._ended("done")
        return record

    def _leave(self, step: Step, reason: str) -> dict:
        """Skip a step that is another machine's to do; nothing is recorded of it here."""
        self.say(f"{step.id}  skip: {reason}")
        self.report.step(step.id, "skip", reason)
        if step is self.steps[-1]:
            self._ended("done")
        return {}

    def _decide(self, step: Step) -> tuple[dict, Decision]:
        def look() -> tuple[dict, Decision]:
            identity = self.ledger.identity(step, self.config)
            return identity, self.ledger.decide(step, identity)

        return patiently(look)

    def _ended(self, state: str) -> None:
        """Write how the run ended, unless the report says just that of it already."""
        if not self.report.is_writable and self.report.path.exists():
            stored = files.read_json(self.report.path)
            if (stored.get("state"), stored.get("metrics")) == (state, files.plain(self.report.data["metrics"])):
                return
        self.hold()
        self.report.ended(state)
        if state == "done":
            wait_for_uploads(medium_of(self.path), [*self.ledger.files(), self.report.path], say=self.say)

    def _scratch_of(self, step: Step) -> Path:
        return self.scratch / step.id

    def _carry_out(self, step: Step, identity: dict, reason: str) -> dict:
        began = time.monotonic()
        self.stop_requested = ""
        try:
            self._write_config()
            self.report.begin(step.id, reason)
            begun = self.ledger.begun(step, identity)
            if begun is None:
                files.remove_generation(self._scratch_of(step))  # of other work under this name
            identity = begun or identity
            self.output = self.ledger.begin(step, identity)
            self._step_at_work, self._identity = step, identity
            if (self.output / CHOICES).exists():
                self.report.adopt({"choices": files.read_json(self.output / CHOICES)})
            with self._stopping_in_good_order(step):
                metrics = self._carry_out_work(step, Sections(self.config, step, self.path), self, identity) or {}
            if self.stop_requested and not step.resumes:
                raise self.stopped()  # the step took Stopped for a fault of its input
            self.run_folder.ensure_held()
            record = self.ledger.finish(
                step, identity, {"metrics": metrics, **self.report.fresh, "seconds": round(time.monotonic() - began, 1)}
            )
        except BaseException as error:
            stopped = isinstance(error, (Stopped, KeyboardInterrupt))
            told = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(": ")
            self._note_end(step, "stopped" if stopped else "failed", told)
            if isinstance(error, OSError) and error.errno is not None:  # libraries raise it for other faults too
                raise files.disk_fault(error, error.filename or self.output, f"finish {step.id}") from error
            for missing in (error, error.__cause__):  # what was missing for a library of ours, too
                if isinstance(missing, ModuleNotFoundError):
                    raise missing_extra(missing, self.pipeline) from missing.__cause__
            if isinstance(error, KeyboardInterrupt):
                raise Interrupted(
                    f"Interrupted in {step.id}; what is done is kept. Run the same again: it continues."
                ) from None
            raise
        finally:
            self.output, self._step_at_work = self.path, None
        files.remove_generation(self._scratch_of(step))
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

        def on_signal(number: int, frame: object) -> None:
            self.stop_requested = signal.Signals(number).name
            if not step.resumes:
                raise self.stopped()

        with signals_to(on_signal, signal.SIGTERM):
            yield

    def stopped(self) -> Stopped:
        """The error a step raises when `stop_requested` and its work is saved."""
        again = "the same command without --redo" if self._asked_redo else "the same command or notebook"
        return Stopped(
            f"Stopped by {self.stop_requested or 'request'}; what is done is kept",
            where=self.path,
            fix=f"run {again} again: it continues here",
        )

    def _write_config(self) -> None:
        files.write_json(
            self.path / "config.json",
            {"pipeline": self.pipeline, "preset": self.preset, "format": FORMAT, "settings": to_dict(self.config)},
        )
