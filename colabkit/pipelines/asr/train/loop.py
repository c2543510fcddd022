"""Training with transformers' Trainer: exact batches, memory that may run out, and resuming at the very next sample.

The Trainer does optimizer, schedule, precision and callbacks. Ours are: what a batch is (all samples of one optimizer
step that fall to this process), forward and backward (the guard's, in parts that fit), sums over processes,
checkpoints, validation.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from colabkit.core import files
from colabkit.core.errors import DataError, StateError
from colabkit.io.models.transformers_models import broken_companions_masked, quietly
from colabkit.pipelines.asr.config import TrainConfig
from colabkit.pipelines.asr.configure.training_config import TrainingConfig
from colabkit.pipelines.asr.evaluate.metrics import score
from colabkit.pipelines.asr.model.examples import Example, Speech, losses
from colabkit.pipelines.asr.model.hear import hear
from colabkit.pipelines.asr.model.recognizer import Recognizer
from colabkit.pipelines.asr.train.batches import TrainingBatches
from colabkit.pipelines.asr.transcribe import note_trained_seconds
from colabkit.runs.run import Run
from colabkit.training.checkpoints.checkpoints import checkpoints_of, random_state, restore, set_random_state
from colabkit.training.processes.gradients import broadcast_parameters, reduce_gradients
from colabkit.training.processes.ranks import Ranks, join
from colabkit.training.random_state import seed_of, set_seeds
from colabkit.training.sizing.choose import require_shareable
from colabkit.training.sizing.chosen import Sizing
from colabkit.training.sizing.devices import choose_threads, device_name
from colabkit.training.sizing.guard import Guard
from colabkit.training.sizing.watch import MemoryWatch
from colabkit.training.sizing.workload import Regime
from colabkit.training.stream.stream import Loaded
from colabkit.training.tracking import Tracker, open_tracker

with broken_companions_masked():
    from transformers.trainer import Trainer
    from transformers.trainer_callback import PrinterCallback, TrainerCallback

if TYPE_CHECKING:
    from transformers.trainer_callback import TrainerControl, TrainerState
    from transformers.training_args import TrainingArguments

MODEL = "model"  # the folder of the result
LOG_EVERY_STEPS = 10  # to the tracker
NEVER = 1e9  # instead of infinity, which JSON has not
# What of TrainingArguments is ours to say; everything else is taken as it is given.
OURS = {
    "gradient_accumulation_steps": 1,
    "save_strategy": "no",
    "eval_strategy": "no",
    "logging_strategy": "no",
    "report_to": [],
    "disable_tqdm": True,
    "remove_unused_columns": False,
    "load_best_model_at_end": False,
    "push_to_hub": False,
    "auto_find_batch_size": False,
    "skip_memory_metrics": True,
    "logging_nan_inf_filter": False,
}


def train(
    config: TrainConfig,
    recognizer: Recognizer,
    training: Speech,
    validation: Speech,
    sizing: Sizing,
    run: Run,
    *,
    arguments: TrainingArguments | None = None,
    workers: int = 2,
    callbacks: Sequence[TrainerCallback] = (),
    advice: Callable[[float], Sequence[str]] | None = None,
) -> dict[str, Any] | None:
    """Train; write the best weights as a folder of transformers to `run.output`/model, and history.jsonl.

    `sizing.capacity(seconds)` says how many samples go through at once, `sizing.pass_seconds` what a pass costs beside
    them; `arguments` are TrainingArguments: those of a configuration, or made of `config` and the precision of `sizing`
    where not given. Continues from the newest whole generation in `run.output/checkpoints`. Of several processes each
    takes its part of every step; the first one reads and writes, and returns the metrics.
    Raises: Stopped on SIGTERM, after a checkpoint; DataError when one sample alone does not fit, or training diverges.
    """
    # 1. Everything that has state.
    ranks = join()
    longest = float(np.max(training.seconds))
    require_shareable(ranks.world, longest, config.effective_batch, config.effective_seconds)
    batches = TrainingBatches(
        training,
        recognizer,
        effective_batch=config.effective_batch,
        seed=config.seed,
        effective_seconds=config.effective_seconds,
        problem=run.problem,
        rank=ranks.rank,
        world=ranks.world,
    )
    num_steps = config.steps or max(1, math.ceil(config.epochs * len(batches)))
    arguments = _ours(arguments or training_arguments(config, sizing.regime, run.output / "trainer"), num_steps, ranks)
    if recognizer.is_ctc:  # Whisper hears windows of 30 s, whatever is in them
        run.say(f"  {batches.describe(sizing.capacity, sizing.pass_seconds)}")
    set_seeds(config.seed)
    with quietly():
        trainer = StepTrainer(recognizer, arguments, batches, ranks, config, callbacks)
    device = trainer.args.device
    choose_threads(device, ranks.local_world, run.choose)
    broadcast_parameters(recognizer.model, ranks)
    watch = MemoryWatch(run)
    trainer.guard = Guard(
        sizing.capacity,
        ranks=ranks,
        teller=run,
        watch=watch,
        advice=advice,
        pass_seconds=sizing.pass_seconds,
        buffers_of=[recognizer.model],
        device=device_name(device),
    )
    work = _Training(config, trainer, recognizer, batches, validation, ranks, run, watch, num_steps, workers)
    trainer.add_callback(work)
    trainer.restore = work.restore

    # 2. Step by step, from where an earlier process stood.
    found = ranks.from_first(work.checkpoints.load_latest)
    if found is None or found[1]["done"]["step"] < num_steps:
        work.found = found
        step = found[1]["done"]["step"] if found else 0
        with closing(work), run.progress(num_steps, "train", done=step) as work.progress:
            work.tracker = (
                open_tracker(config.tracker, run, resume_step=step, settings=asdict(config))
                if ranks.is_first
                else Tracker()
            )
            trainer.train()
    else:
        work.done = found[1]["done"]

    # 3. The best weights are the result.
    return work.finish() if ranks.is_first else None


def arguments_of(chosen: TrainingConfig, output: Path, **overrides) -> TrainingArguments:
    """Return TrainingArguments of a configuration, for this machine."""
    return chosen.to_training_arguments(
        str(output), **{"use_cpu": not torch.cuda.is_available(), "report_to": [], "disable_tqdm": True} | overrides
    )


def training_arguments(config: TrainConfig, regime: Regime, output: Path, **overrides) -> TrainingArguments:
    """Return TrainingArguments of the settings alone, with the precision and checkpointing of `regime`."""
    made = TrainingConfig(
        effective_batch_size=config.effective_batch or 1,
        gradient_accumulation_steps=config.effective_batch or 1,
        fp16=regime.precision == "fp16",
        bf16=regime.precision == "bf16",
        gradient_checkpointing=regime.checkpointing,
        optimizer=config.optimizer,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        max_grad_norm=config.clip_norm,
        warmup_fraction=config.warmup_fraction,
        num_train_epochs=config.epochs,
        seed=config.seed,
    )
    return arguments_of(made, output, **overrides)


def _ours(arguments: TrainingArguments, num_steps: int, ranks: Ranks) -> TrainingArguments:
    """Set what of the arguments is ours: one batch is one step, and nothing is saved, shown or evaluated twice."""
    for name, value in {**OURS, "max_steps": num_steps}.items():
        kind = type(getattr(arguments, name, None))
        setattr(arguments, name, kind(value) if name.endswith("_strategy") else value)
    return arguments


class StepTrainer(Trainer):
    """The Trainer of transformers, for which one batch is all samples of an optimizer step that fall to this process.

    `guard` does forward and backward; gradients are summed over processes afterwards, not by DistributedDataParallel:
    what that sends during backward cannot be taken back when one process runs out of memory, and it holds a copy of all
    gradients.
    """

    guard: Guard
    restore: Callable[[], None] | None = None

    def __init__(
        self,
        recognizer: Recognizer,
        arguments: TrainingArguments,
        batches: TrainingBatches,
        ranks: Ranks,
        config: TrainConfig,
        callbacks: Sequence[TrainerCallback] = (),
    ):
        self.recognizer, self.batches, self.ranks, self.config = recognizer, batches, ranks, config
        self.feed: Iterator[Loaded] | None = None
        self.broken: list[tuple[int, str]] = []  # of all processes, in the step at hand
        self.at_hand: tuple[Loaded, torch.Tensor] | None = None  # its samples, and this process's part of the loss
        super().__init__(model=recognizer.model, args=arguments, callbacks=list(callbacks))
        self.remove_callback(PrinterCallback)

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        # Precision and device as ever, and no DistributedDataParallel around the model.
        self.accelerator.prepare_model = partial(self.accelerator.prepare_model, evaluation_mode=True)

    def get_train_dataloader(self) -> _Feed:
        return _Feed(self)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Loaded], num_batches: int, device: torch.device
    ) -> tuple[list[Loaded], None]:
        batch = next(epoch_iterator, None)
        return ([] if batch is None else [batch]), None

    def floating_point_ops(self, inputs: Loaded) -> int:
        return 0

    def _prepare_for_training(self, *args, **more):
        prepared = super()._prepare_for_training(*args, **more)
        if self.restore is not None:
            self.restore()
        return prepared

    def training_step(self, model: nn.Module, inputs: Loaded, num_items_in_batch: None = None) -> torch.Tensor:
        """Do forward and backward of a step's samples, in parts that fit.

        Returns this process's part of the loss by token. Each part's loss is divided by the number of target tokens of
        the whole step over all processes, so the parts' gradients add up to those of the whole.
        """
        model.train()
        set_seeds(seed_of(self.config.seed, self.state.global_step, self.ranks.rank))
        examples: list[Example] = inputs.values
        told = self.ranks.gather((sum(len(e.labels) for e in examples), inputs.broken))
        num_tokens, self.broken = sum(count for count, _ in told), [pair for _, broken in told for pair in broken]
        loss = torch.zeros((), device=self.args.device)

        def work(numbers: list[int]) -> None:
            part = losses(self.recognizer, [examples[i] for i in numbers]).sum() / num_tokens
            self.accelerator.backward(part)
            loss.add_(part.detach())

        def reset() -> None:
            model.zero_grad(set_to_none=True)
            loss.zero_()

        self.guard.step([e.seconds for e in examples], work, reset)
        reduce_gradients(model.parameters(), self.ranks)
        if not num_tokens:  # all samples of the step are broken
            for parameter in model.parameters():
                parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
        self.at_hand = inputs, loss
        return loss


class _Feed:
    """What the Trainer takes for its data loader: the steps from where the stream stands.

    It has no length: all is one epoch.
    """

    def __init__(self, trainer: StepTrainer):
        self.trainer = trainer

    def __iter__(self) -> Iterator[Loaded]:
        return self.trainer.feed


class _Training(TrainerCallback):
    """What happens around the steps: where to begin, what is kept, when to validate, when to stop."""

    def __init__(
        self,
        config: TrainConfig,
        trainer: StepTrainer,
        recognizer: Recognizer,
        batches: TrainingBatches,
        validation: Speech,
        ranks: Ranks,
        run: Run,
        watch: MemoryWatch,
        num_steps: int,
        workers: int,
    ):
        self.config, self.trainer, self.recognizer = config, trainer, recognizer
        self.batches, self.validation = batches, validation
        self.ranks, self.run, self.watch, self.num_steps, self.workers = ranks, run, watch, num_steps, workers
        self.checkpoints = checkpoints_of(run)
        self.found: tuple[int, dict[str, Any]] | None = None
        self.progress, self.tracker, self.feed = None, Tracker(), None
        self.loss_sum = torch.zeros((), device=trainer.args.device)  # of this process, since the last validation
        self.done = {"step": 0, "best_wer": NEVER, "best_loss": NEVER, "best_step": 0, "history": [], "loss_sum": 0.0}
        chosen = np.random.default_rng(config.seed).permutation(len(validation.seconds))[: config.validation_samples]
        self.validation_numbers = np.sort(chosen).tolist()

    def close(self) -> None:
        if self.feed is not None:
            self.feed.close()
        self.tracker.close()

    def parts(self) -> dict[str, Any]:
        """Return everything with a state_dict."""
        trainer = self.trainer
        parts = {
            "model": self.recognizer.model,
            "optimizer": trainer.optimizer.optimizer,
            "scheduler": trainer.lr_scheduler,
        }
        return parts | ({"scaler": trainer.accelerator.scaler} if trainer.accelerator.scaler is not None else {})

    def restore(self) -> None:
        """Continue where the checkpoint stands; called when the Trainer has made optimizer and schedule."""
        if self.found:
            state, self.found = self.found[1], None
            restore(self.parts(), state)
            set_random_state(state["random"])
            self.done = state["done"]
            self.loss_sum.fill_(self.done["loss_sum"] if self.ranks.is_first else 0.0)
            self.batches.load_state(state["stream"])
            self.trainer.guard.load_state(state["guard"])
            self.trainer.state.global_step = self.done["step"]
            self.trainer.state.log_history = list(self.done["history"])
            self.run.say(f"  continues at step {self.done['step']} of {self.num_steps}")
        self.feed = self.trainer.feed = self.batches.load(workers=self.workers, stop=self.num_steps)

    def save(self, **how) -> None:
        self.done["loss_sum"] = sum(self.ranks.gather(float(self.loss_sum)))
        if self.ranks.is_first:
            self.checkpoints.save(
                self.done["step"],
                {
                    **{name: part.state_dict() for name, part in self.parts().items()},
                    "done": self.done | {"history": list(self.done["history"])},
                    "stream": self.batches.state(),
                    "guard": self.trainer.guard.state(),
                    "random": random_state(),
                    "settings": asdict(self.config),
                },
                **how,
            )

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs
    ) -> None:
        self.rate = self.trainer.lr_scheduler.get_last_lr()[0]  # this step's: the schedule moves on after it

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs) -> None:
        """Count the step, and do what is due after it."""
        (loaded, loss), self.trainer.at_hand = self.trainer.at_hand, None
        self.batches.acknowledge(loaded, self.trainer.broken)
        self.loss_sum += loss
        self.done["step"] = step = state.global_step
        state.epoch = step / len(self.batches)
        self.progress.update(loss=loss, best_wer=min(1.0, self.done["best_wer"]))
        if step % LOG_EVERY_STEPS == 0:
            self.tracker.log(
                step, {"loss": float(loss), "learning_rate": self.rate, "memory_used": self.watch.used_fraction()}
            )
        is_last = step == self.num_steps or control.should_training_stop
        if step % self.config.validate_every_steps == 0 or is_last:
            self.validate(args, state, control)
        stopping = self.ranks.any(self.run.stop_requested)
        ending = self.ranks.any(self.run.wants_checkpoint())
        if step % self.config.checkpoint_every_steps == 0 or is_last or stopping or ending:
            self.save(wait=is_last or stopping or ending)
        if stopping and not is_last:
            raise self.run.stopped()

    def validate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl) -> None:
        """Score held-out samples, each process its part; the best weights so far are kept."""
        row = self.history_row() | self.scores()
        self.loss_sum.zero_()
        self.done["history"].append(row)
        state.log_history = list(self.done["history"])
        self.tracker.log(row["step"], {name: value for name, value in row.items() if name != "step"})
        self.trainer.callback_handler.on_evaluate(
            args, state, control, {f"eval_{name}": value for name, value in row.items()}
        )
        if (row["wer"], row["validation_loss"]) <= (self.done["best_wer"], self.done["best_loss"]):
            self.done |= {"best_wer": row["wer"], "best_loss": row["validation_loss"], "best_step": row["step"]}
            self.save(best=True)
        self.progress.update(0, best_wer=self.done["best_wer"])

    def scores(self) -> dict[str, float]:
        """Return WER, CER and loss by token on the validation samples."""

        def work(numbers: Sequence[int]) -> list:
            return hear(
                self.recognizer,
                self.validation,
                numbers,
                capacity=self.trainer.guard.limit,
                workers=self.workers,
                problem=self.run.problem,
                with_loss=True,
            )

        heard = [
            (self.validation.texts[number], one)
            for number, one in zip(
                self.validation_numbers, self.ranks.share(self.validation_numbers, work), strict=True
            )
            if one is not None
        ]
        if not heard:
            raise DataError(
                "No validation sample can be read",
                got=f"{len(self.validation_numbers)} broken ones",
                expected="at least one whole one",
                where=self.validation.name,
                fix="the report says why each is broken",
            )
        found = score([text for text, _ in heard], [one.text for _, one in heard], num_resamples=1)
        loss = float(np.mean([one.loss for _, one in heard]))
        return {"wer": found.wer, "cer": found.cer, "validation_loss": loss if math.isfinite(loss) else NEVER}

    def history_row(self) -> dict[str, float]:
        """Return the means since the last validation. Raises: DataError when training diverged."""
        since = self.done["step"] - (self.done["history"][-1]["step"] if self.done["history"] else 0)
        loss = sum(self.ranks.gather(float(self.loss_sum))) / since
        if not math.isfinite(loss):
            raise DataError(
                "Training diverged",
                got=f"a loss of {loss} at step {self.done['step']}",
                expected="a finite loss",
                where="train",
                fix="--set train.learning_rate to half of what it is, with --redo train",
            )
        step = self.done["step"]
        return {"step": step, "epoch": step / len(self.batches), "loss": loss, "learning_rate": self.rate}

    def finish(self) -> dict[str, float]:
        """Write the best weights and the history."""
        self.checkpoints.wait()
        best = self.checkpoints.load_best()
        if best is None:
            raise StateError(
                "The best weights are damaged on the disk",
                where=self.checkpoints.folder,
                expected="a whole generation saved as best",
                fix="--redo train trains anew",
            )
        model = self.recognizer.model
        model.load_state_dict(best[1]["model"])
        model.eval()
        if hasattr(model.config, "use_cache"):
            model.config.use_cache = True  # the Trainer turned it off; to write it is wanted
        self.recognizer.save(self.run.output / MODEL)
        note_trained_seconds(self.run.output / MODEL, self.batches.seconds.max())
        files.write_atomic(
            self.run.output / "history.jsonl", "".join(json.dumps(row) + "\n" for row in self.done["history"])
        )
        return {
            "validation_wer": self.done["best_wer"],
            "best_step": self.done["best_step"],
            "train_steps": self.done["step"],
            "parameters": sum(p.numel() for p in model.parameters()),
            "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        }
