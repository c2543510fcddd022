"""What stands in for a run where a pipeline's training is tested alone."""

from __future__ import annotations

from pathlib import Path

from colabkit.core.errors import Stopped
from colabkit.core.progress import Progress


class StandInRun:
    """What training uses of a run; `said`, `chosen` and `problems` hold what a person would have read."""

    def __init__(self, folder: Path):
        self.output = self.path = Path(folder)
        self.pipeline, self.name, self.stop_requested, self.report = "pipeline", "test", "", self
        self.said, self.chosen, self.problems = [], [], {}
        self.stop_at_step = None
        self.scratch_at_work, self.identity_at_work = self.path / "scratch", ""

    def say(self, text: str) -> None:
        self.said.append(text)

    def choose(self, name, value, reason):
        self.chosen.append((name, value, reason))
        return value

    def problem(self, item, reason) -> None:
        self.problems[item] = reason

    def progress(self, total, title, *, done=0, unit="steps"):
        run = self

        class Counted(Progress):
            def update(self, count=1, **values):
                super().update(count, **values)
                if self.done == run.stop_at_step:
                    run.stop_requested = "SIGTERM"
        return Counted(total, title, done=done, unit=unit)

    def wants_checkpoint(self) -> bool:
        return bool(self.stop_requested)

    def stopped(self) -> Stopped:
        return Stopped(f"Stopped by {self.stop_requested}", fix="run it again")
