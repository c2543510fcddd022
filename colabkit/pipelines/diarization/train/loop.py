"""The training loop: simulated and real windows in, a diarizer out; killed anywhere, it continues bit for bit."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict

import torch
from accelerate import Accelerator
from safetensors.torch import save as to_safetensors

from colabkit.core import files
from colabkit.core.errors import DataError, StateError, UsageError
from colabkit.pipelines.diarization import RATE_HZ
from colabkit.pipelines.diarization.config import ModelConfig, TrainConfig
from colabkit.pipelines.diarization.model.batch_norm import over_all_ranks
from colabkit.pipelines.diarization.model.losses import DiarizationLoss
from colabkit.pipelines.diarization.model.network import FastDiarizationModel
from colabkit.pipelines.diarization.train.batches import Batch, TrainingBatches
from colabkit.runs.run import Run
from colabkit.training.checkpoints.checkpoints import checkpoints_of, random_state, restore, set_random_state
from colabkit.training.processes.gradients import broadcast_parameters, reduce_gradients
from colabkit.training.processes.ranks import Ranks, join
from colabkit.training.random_state import seed_of
from colabkit.training.sizing.devices import choose_threads, device_name
from colabkit.training.sizing.guard import Guard
from colabkit.training.sizing.watch import MemoryWatch
from colabkit.training.tracking import Tracker, open_tracker

PLAN_EVERY_STEPS = 20  # how often a time budget is turned into steps anew
RESERVE = 0.02  # share of a time budget kept for the last validation and checkpoint


def build_model(config: ModelConfig) -> FastDiarizationModel:
    """Build the network of a config, with random weights or a pretrained encoder's."""
    return FastDiarizationModel(
        config.num_speakers,
        config.hidden_size,
        config.encoder_type,
        num_blocks=config.num_blocks,
        num_attention_layers=config.num_attention_layers,
        embedding_size=config.embedding_size,
        dropout=config.dropout,
        encoder_name=config.encoder_name,
        freeze_encoder=config.freeze_encoder,
        recurrent=config.recurrent,
    )


def train(
    config: TrainConfig,
    model_config: ModelConfig,
    batches: TrainingBatches,
    validate: Callable[[FastDiarizationModel], dict[str, float]],
    num_training_speakers: int,
    run: Run,
    *,
    windows_at_once: int | None = None,
) -> dict | None:
    """Train; write model.safetensors (averaged weights: the best ones, or the last), model.json and history.jsonl.

    `validate` scores held-out conversations; its "der" decides which weights are best, where `config.result` asks for
    the best. `windows_at_once` are expected to fit into a process's memory; none: its whole part of a batch. Continues
    from the newest whole generation in `run.output/checkpoints`. Of several processes each takes its part of every
    batch; the first one reads and writes, and returns the metrics. Raises: Stopped on SIGTERM, after a checkpoint.
    """
    # 1. Everything that has state.
    ranks = join()
    if config.effective_batch < ranks.world:
        raise UsageError(
            "A batch has fewer windows than there are processes",
            got=config.effective_batch,
            expected=f"at least {ranks.world}",
            fix=f"--set train.processes={config.effective_batch}",
        )
    accelerator = Accelerator(
        mixed_precision=choose_precision(config, ranks, run), cpu=ranks.world > 1 and not torch.cuda.is_available()
    )
    choose_threads(accelerator.device, ranks.local_world, run.choose)
    batches.rank, batches.world = ranks.rank, ranks.world
    torch.manual_seed(config.seed)
    model = build_model(model_config).to(accelerator.device)
    loss_of = DiarizationLoss(
        model.powerset, num_training_speakers, model_config.embedding_size, config.embedding_weight
    ).to(accelerator.device)
    averaged = copy.deepcopy(model)
    agree = over_all_ranks(model, ranks, accelerator.device).agree if ranks.world > 1 else None
    for module in (model, loss_of):
        broadcast_parameters(module, ranks)
    trained = [p for p in (*model.parameters(), *loss_of.parameters()) if p.requires_grad]
    optimizer = accelerator.prepare(
        torch.optim.AdamW(trained, lr=config.learning_rate, weight_decay=config.weight_decay)
    )
    loss_sums = torch.zeros(2, device=accelerator.device)  # frame loss and speaker loss since the last validation
    first_plan = config.steps if config.minutes is None else max(config.steps, 2 * PLAN_EVERY_STEPS)
    done = {
        "step": 0,
        "num_steps": first_plan,
        "progress": 0.0,
        "spent_seconds": 0.0,
        "best_der": math.inf,
        "best_step": 0,
        "history": [],
    }
    parts = {"model": model, "loss": loss_of, "averaged": averaged, "optimizer": optimizer.optimizer}
    if accelerator.scaler is not None:
        parts["scaler"] = accelerator.scaler
    checkpoints = checkpoints_of(run)
    watch = MemoryWatch(run)
    at_once = windows_at_once or math.ceil(config.effective_batch / ranks.world)
    guard = Guard(
        lambda seconds: at_once,
        ranks=ranks,
        teller=run,
        watch=watch,
        buffers_of=[model],
        agree=agree,
        name="limit",
        device=device_name(accelerator.device),
    )

    def save(**how) -> None:
        if config.minutes is not None:
            done["spent_seconds"] = clock.seconds()
        if ranks.is_first:
            checkpoints.save(
                done["step"],
                {
                    **{name: part.state_dict() for name, part in parts.items()},
                    "done": done | {"history": list(done["history"])},
                    "loss_sums": loss_sums,
                    "guard": guard.state(),
                    "random": random_state(),
                    "streams": batches.state(done["step"]),
                    "settings": asdict(config),
                },
                **how,
            )

    # 2. Where an earlier process stood, or the beginning.
    found = ranks.from_first(checkpoints.load_latest)
    if found:
        restore(parts, found[1])
        set_random_state(found[1]["random"])
        done = found[1]["done"]
        loss_sums.copy_(found[1]["loss_sums"])
        batches.load_state(found[1]["streams"])
        guard.load_state(found[1].get("guard", {}))
        run.say(f"  continues at step {done['step']} of {done['num_steps']}")
    clock = Clock(done["spent_seconds"])
    tracker = Tracker()
    if ranks.is_first:
        tracker = open_tracker(config.tracker, run, resume_step=done["step"], settings=asdict(config))

    # 3. Step by step.
    with (
        closing(batches.from_step(done["step"])) as feed,
        closing(tracker),
        run.progress(done["num_steps"], "train", done=done["step"]) as progress,
    ):
        while done["step"] < done["num_steps"]:
            batch = next(feed)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, done)
            if ranks.world > 1:  # no two of them drop out the same, and a checkpoint need not know how many they were
                torch.manual_seed(seed_of(config.seed, done["step"], ranks.rank))
            losses = accumulate_gradients(model, loss_of, batch, guard, accelerator)
            reduce_gradients(trained, ranks)
            accelerator.clip_grad_norm_(trained, config.clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            average_weights(averaged, model, config.ema_decay, done["step"])
            loss_sums += losses
            done["progress"] += (1 - done["progress"]) / (done["num_steps"] - done["step"])
            done["step"] += 1
            if config.minutes is not None and done["step"] % PLAN_EVERY_STEPS == 0:
                done["spent_seconds"] = ranks.from_first(clock.seconds)
                done["num_steps"] = progress.total = plan_steps(config, done)
            progress.update(loss=losses[0], best_der=done["best_der"])

            is_last = done["step"] == done["num_steps"]
            if done["step"] % config.validate_every_steps == 0 or is_last:
                row = history_row(done, loss_sums, optimizer.param_groups[0]["lr"])
                scores = validate(averaged)
                row |= ranks.from_first(lambda scores=scores: scores)
                loss_sums.zero_()
                done["history"].append(row)
                tracker.log(done["step"], row | {"memory_used": watch.used_fraction()})
                if config.result == "last" or row["der"] <= done["best_der"]:
                    done |= {"best_der": row["der"], "best_step": done["step"]}
                    save(best=True)
            progress.update(0, best_der=done["best_der"])
            stopping = ranks.any(run.stop_requested)
            ending = run.wants_checkpoint()
            if done["step"] % config.checkpoint_every_steps == 0 or is_last or stopping or ending:
                save(wait=is_last or stopping or ending)
            if stopping and not is_last:
                raise run.stopped()

    # 4. The best averaged weights, or the last, are the result.
    if not ranks.is_first:
        return None
    checkpoints.wait()
    if config.minutes is not None:
        run.choose("train.steps", done["step"], f"{config.minutes} min of wall clock allowed so many")
    best = checkpoints.load_best()
    if best is None:
        raise StateError(
            "The best weights are damaged on the disk",
            where=checkpoints.folder,
            expected="a whole generation saved as best",
            fix="--redo train trains anew",
        )
    files.write_atomic(run.output / "model.safetensors", to_safetensors(best[1]["averaged"]))
    files.write_json(run.output / "model.json", asdict(model_config))
    files.write_atomic(run.output / "history.jsonl", "".join(json.dumps(row) + "\n" for row in done["history"]))
    return {
        "validation_der": done["best_der"],
        "best_step": done["best_step"],
        "train_steps": done["step"],
        "parameters": averaged.count_parameters(),
    }


def accumulate_gradients(
    model: torch.nn.Module, loss_of: DiarizationLoss, batch: Batch, guard: Guard, accelerator: Accelerator
) -> torch.Tensor:
    """Do forward and backward of this process's part of a batch, in parts that fit.

    Returns the losses of the whole batch. Every part's loss is divided by the counts of the whole batch over all ranks,
    so the parts' gradients add up to the batch's; those of other ranks are not in them yet. When memory runs out, all
    ranks do the same windows again.
    """
    counts = accelerator.reduce(loss_of.counts(batch).to(accelerator.device), "sum")
    losses = torch.zeros(2, device=accelerator.device)

    def work(windows: list[int]) -> None:
        part = batch.part(windows[0], windows[-1] + 1).to(accelerator.device)  # all of one length: they stay in order
        with accelerator.autocast():
            logits_BFC, embeddings_BFE = model(part.wave)
        loss, pieces = loss_of(logits_BFC, embeddings_BFE, part, counts)
        accelerator.backward(loss)
        losses.add_(torch.stack(pieces))

    def reset() -> None:
        model.zero_grad(set_to_none=True)
        loss_of.zero_grad(set_to_none=True)
        losses.zero_()

    guard.step([batch.wave.shape[1] / RATE_HZ] * len(batch.wave), work, reset)
    return accelerator.reduce(losses, "sum")


@torch.no_grad()
def average_weights(averaged: torch.nn.Module, model: torch.nn.Module, decay: float, step: int) -> None:
    """Move the exponential moving average on; early steps count more, so that the start is soon forgotten."""
    share = 1 - min(decay, (step + 1) / (step + 10))
    torch._foreach_lerp_(list(averaged.parameters()), list(model.parameters()), share)
    for ours, theirs in zip(averaged.buffers(), model.buffers(), strict=True):
        ours.copy_(theirs)


def learning_rate(config: TrainConfig, done: dict) -> float:
    """Rise linearly for `warmup_steps`, and fall to zero as half a cosine over the whole of training."""
    warmup = min(1.0, (done["step"] + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    return config.learning_rate * warmup * 0.5 * (1 + math.cos(math.pi * done["progress"]))


def history_row(done: dict, loss_sums: torch.Tensor, rate: float) -> dict[str, float]:
    """Return the means since the last validation."""
    since = done["step"] - (done["history"][-1]["step"] if done["history"] else 0)
    frame_loss, speaker_loss = (loss_sums / since).tolist()
    if not math.isfinite(frame_loss + speaker_loss):
        raise DataError(
            "Training diverged",
            got=f"a loss of {frame_loss + speaker_loss} at step {done['step']}",
            expected="a finite loss",
            where="train",
            fix="--set train.learning_rate to half of what it is, with --redo train",
        )
    return {"step": done["step"], "frame_loss": frame_loss, "speaker_loss": speaker_loss, "learning_rate": rate}


def plan_steps(config: TrainConfig, done: dict) -> int:
    """Return how many steps the time budget allows at the speed so far; never fewer than are done."""
    left = config.minutes * 60 * (1 - RESERVE) - done["spent_seconds"]
    return max(done["step"], done["step"] + int(left / (done["spent_seconds"] / done["step"])))


class Clock:
    """Seconds spent in all processes of a run, given those of the earlier ones."""

    def __init__(self, spent_seconds: float):
        self._began = time.monotonic() - spent_seconds

    def seconds(self) -> float:
        return time.monotonic() - self._began


def choose_precision(config: TrainConfig, ranks: Ranks, run: Run) -> str:
    """Choose what the accelerator is fast and safe at."""
    if config.mixed_precision != "auto":
        return config.mixed_precision
    if not torch.cuda.is_available():
        return run.choose("train.mixed_precision", "no", "there is no GPU")
    name = torch.cuda.get_device_name()
    if ranks.all(torch.cuda.get_device_capability() >= (8, 0)):
        return run.choose("train.mixed_precision", "bf16", f"{name} computes in bfloat16, which needs no loss scaling")
    name = name if ranks.world == 1 else "one of the GPUs"
    return run.choose("train.mixed_precision", "fp16", f"{name} has no bfloat16; float16 with loss scaling")
