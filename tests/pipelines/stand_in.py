"""What stands in for a run where a pipeline's training is tested alone."""

from __future__ import annotations

from pathlib import Path

from colabkit.core.errors import Stopped
from colabkit.core.progress import Progress
from tests.told import Told


class StandInRun(Told):
    """What training uses of a run; it keeps what a person would have read, and is asked to stop at `stop_at_step`."""

    stop_requested = ""

    def __init__(self, folder: Path):
        super().__init__()
        self.output = self.path = Path(folder)
        self.pipeline, self.name = "pipeline", "test"
        self.stop_at_step: int | None = None
        self.scratch_at_work, self.identity_at_work = self.path / "scratch", ""

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
