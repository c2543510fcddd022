"""Metrics of a training run to Weights & Biases or TensorBoard; with neither there is still history.jsonl."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from colabkit.core.versions.differences import summary_writer
from colabkit.runs.run import Run


class Tracker:
    """Logs scalars by step; `resume_step` continues a curve where a resumed run stands."""

    def log(self, step: int, values: dict[str, float]) -> None:
        """Log nothing: the base of the two real trackers."""

    def close(self) -> None:
        """Finish writing."""


class _Tolerant(Tracker):
    """Goes on without a tracker that fails: a dead network or a Drive that is away must not cost the training."""

    def __init__(self, tracker: Tracker, say: Callable[[str], object]):
        self._tracker, self._say = tracker, say

    def log(self, step: int, values: dict[str, float]) -> None:
        self._try(lambda tracker: tracker.log(step, values))

    def close(self) -> None:
        self._try(lambda tracker: tracker.close())

    def _try(self, act: Callable[[Tracker], object]) -> None:
        try:
            act(self._tracker)
        except Exception as error:  # whatever a tracker raises, it is told once and missed no more
            self._say(
                f"  WARNING metrics are no longer tracked ({type(error).__name__}: {error}".splitlines()[0]
                + "); history.jsonl holds them"
            )
            self._tracker = Tracker()


class _TensorBoard(Tracker):
    def __init__(self, folder: Path, resume_step: int):
        # What was logged at or after the step that is gone back to is not shown: it comes again.
        self.writer = summary_writer()(str(folder), purge_step=resume_step)

    def log(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class _Wandb(Tracker):
    def __init__(self, folder: Path, project: str, run_id: str, settings: dict[str, Any]):
        import wandb

        mode = "online" if os.environ.get("WANDB_API_KEY") else "offline"
        folder.mkdir(parents=True, exist_ok=True)
        self.run = wandb.init(
            project=project,
            id=run_id,
            resume="allow",
            dir=str(folder),
            config=settings,
            mode=mode,
            settings=wandb.Settings(silent=True),
        )

    def log(self, step: int, values: dict[str, float]) -> None:
        self.run.log(values, step=step)

    def close(self) -> None:
        self.run.finish()


def open_tracker(kind: str, run: Run, *, resume_step: int, settings: dict[str, Any]) -> Tracker:
    """Open the tracker asked for; "auto" takes W&B where a key is set, else TensorBoard where it is installed."""
    has = {name: find_spec(name) is not None for name in ("wandb", "tensorboard")}
    if kind == "auto":
        if has["wandb"] and os.environ.get("WANDB_API_KEY"):
            kind, reason = "wandb", "WANDB_API_KEY is set"
        elif has["tensorboard"]:
            kind, reason = "tensorboard", "no WANDB_API_KEY, and TensorBoard is installed"
        else:
            kind, reason = "none", "neither a WANDB_API_KEY nor TensorBoard is there; history.jsonl holds the metrics"
        run.choose("train.tracker", kind, reason)
    folder = run.path / "logs"
    try:
        if kind == "tensorboard" and has["tensorboard"]:
            return _Tolerant(_TensorBoard(folder / "tensorboard", resume_step), run.say)
        if kind == "wandb" and has["wandb"]:
            return _Tolerant(
                _Wandb(folder, f"colabkit-{run.pipeline}", f"{run.pipeline}-{run.name}", settings), run.say
            )
        reason = f"{kind} is not installed here (pip install {kind})"
    except Exception as error:  # a refused key or a dead network must not cost the training
        reason = f"{kind} does not start: {type(error).__name__}: {error}".splitlines()[0]
    if kind != "none":
        run.choose("train.tracker", "none", reason)
    return Tracker()
