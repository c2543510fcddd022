"""Memory watched from any Trainer of transformers: a warning at 90%, a clean-up at 95%, and the curve in TensorBoard.

trainer = Trainer(model=model, args=arguments, callbacks=[AdaptiveMemoryCallback()], ...)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from colabkit.core.teller import Teller
from colabkit.core.versions.differences import summary_writer
from colabkit.io.models.transformers_models import broken_companions_masked
from colabkit.training.sizing.watch import MemoryWatch

with broken_companions_masked():
    from transformers.trainer_callback import TrainerCallback

if TYPE_CHECKING:
    from transformers.trainer_callback import TrainerControl, TrainerState
    from transformers.training_args import TrainingArguments

Log = Callable[[int, dict[str, float]], object]  # step, values


class AdaptiveMemoryCallback(TrainerCallback):
    """Looks at the memory after every step, through `watch`.

    Every `log_every_steps` steps the share in use goes to `log`. Without `log`, it goes to TensorBoard where the
    Trainer reports to it, to memory/ in the Trainer's logging folder. The share is added to what the Trainer itself
    logs, too: `memory_used` in `trainer.state.log_history`. `events` counts warnings and clean-ups.
    """

    def __init__(
        self,
        *,
        watch: MemoryWatch | None = None,
        log: Log | None = None,
        log_every_steps: int = 10,
        say: Callable[[str], object] = print,
    ):
        self.watch = watch or MemoryWatch(Teller(say))
        self.log_every_steps, self._log, self._writer = log_every_steps, log, None

    @property
    def events(self) -> Counter[str]:
        return self.watch.events

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        if self._log is None and "tensorboard" in (args.report_to or ()) and state.is_world_process_zero:
            folder = getattr(args, "logging_dir", None) or Path(args.output_dir) / "runs"
            # A folder of its own: the Trainer's writer may be closed or purged at any time.
            self._writer = summary_writer()(str(Path(folder) / "memory"))
        self.watch.look()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        self.watch.look()
        if state.global_step % self.log_every_steps == 0:
            values = {"memory_used": self.watch.used_fraction()}
            if self._log is not None:
                self._log(state.global_step, values)
            elif self._writer is not None:
                self._writer.add_scalar("memory_used", values["memory_used"], state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs,
    ) -> None:
        for values in (logs, state.log_history[-1] if state.log_history else None):
            if values is not None:
                values.setdefault("memory_used", self.watch.used_fraction())

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
