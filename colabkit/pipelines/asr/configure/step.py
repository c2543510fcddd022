"""The configuration of a run: profiles of this machine, the listed speech and the model, and what follows from them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from colabkit.core import files
from colabkit.core.accelerators import count_gpus, find_accelerators
from colabkit.core.errors import StateError
from colabkit.io.samples.listing import Listing
from colabkit.pipelines.asr.config import Config, DataConfig
from colabkit.pipelines.asr.configure.manager import CACHE_GB, ASRConfigManager, most_at_once
from colabkit.pipelines.asr.configure.profiles import DatasetProfile, profile_model, summarise
from colabkit.pipelines.asr.configure.training_config import TrainingConfig
from colabkit.runs.run import Run
from colabkit.training.processes import ranks
from colabkit.training.sizing import devices
from colabkit.training.sizing.chosen import Sizing
from colabkit.training.sizing.devices import Device

TRAINING_CONFIG = "training_config.json"
_SEED = 0xA5


def configure_run(
    config: Config, listing: Listing, vocabulary_size: int, run: Run, num_processes: int
) -> tuple[TrainingConfig, ASRConfigManager]:
    """Choose how the run trains on this machine; `config` holds the sections data, model, sizing and train.

    Where one process trains on a GPU, a few real steps confirm what was predicted. Raises: as
    ASRConfigManager.configure.
    """
    import torch

    from colabkit.pipelines.asr.workload import lighter, workload

    manager = ASRConfigManager(
        safety_margin=config.sizing.safety_margin, device=device_to_train_on(num_processes), teller=run
    )
    manager.profile_hardware()
    manager.dataset = profile_listing(listing, config.sizing.sample_size, config.data.seed)
    work = workload(config, vocabulary_size=vocabulary_size)
    with torch.device("meta"):
        manager.model = profile_model(work.build(None, False), name=work.name, optimizer=config.train.optimizer)
    train = config.train
    chosen = manager.configure(
        work,
        effective_batch=train.effective_batch,
        effective_seconds=train.effective_seconds,
        num_processes=num_processes,
        at_once=config.sizing.at_once,
        checkpointing=config.sizing.checkpointing,
        precision=config.sizing.precision,
        optimizer=train.optimizer,
        workers=config.sizing.workers,
        longest_seconds=config.data.longest_seconds,
        confirm_in=run.path.parents[1] if config.sizing.probe else None,
        lighter=lambda: lighter(Config(model=config.model)),
        learning_rate=train.learning_rate,
        weight_decay=train.weight_decay,
        max_grad_norm=train.clip_norm,
        warmup_fraction=train.warmup_fraction,
        num_train_epochs=train.epochs,
        max_steps=train.steps or -1,
        seed=train.seed,
    )
    return chosen, manager


def configured(
    config: Config, listing: Listing, vocabulary_size: int, run: Run, folder: Path, num_processes: int
) -> tuple[TrainingConfig, Sizing]:
    """Return the earlier configuration in `folder` where it was made for this machine, else one made for it now."""
    device = device_to_train_on(num_processes)
    manager = ASRConfigManager(safety_margin=config.sizing.safety_margin, teller=run)
    try:
        chosen = manager.load_config(folder / TRAINING_CONFIG)
        made_for = manager.sizing.device
        most = most_at_once(manager.sizing.effective_batch, num_processes, config.sizing.at_once)
        if (
            made_for.name,
            made_for.total_bytes,
            manager.sizing.safety_margin,
            manager.sizing.most,
            chosen.num_processes,
        ) == (device.name, device.total_bytes, config.sizing.safety_margin, most, num_processes):
            return chosen, manager.sizing
        run.say(
            f"  the configuration was made for {chosen.num_processes} x {made_for.describe()}: it is made anew for "
            f"{num_processes} x {device.describe()}"
        )
    except StateError as error:
        run.say(f"  {error.what}: it is made anew")
    chosen, manager = configure_run(config, listing, vocabulary_size, run, num_processes)
    return chosen, manager.sizing


def capacity_of(folder: Path) -> Callable[[float], int]:
    """Return how many samples of a length go through at once in training, by the configuration in `folder`."""
    manager = ASRConfigManager()
    manager.load_config(folder / TRAINING_CONFIG)
    return manager.sizing.capacity


def processes_to_train(wanted: int) -> int:
    """Return how many processes will train: as asked for, one a GPU, or those that torchrun started."""
    return int(os.environ["WORLD_SIZE"]) if ranks.launched() else wanted or max(1, count_gpus(os.environ))


def device_to_train_on(num_processes: int) -> Device:
    """Return the device of a process; where several will train, each on its own GPU, CUDA is not started here."""
    if num_processes > 1 and not ranks.launched() and (found := find_accelerators(os.environ)):
        return devices.of_accelerator(found[0])
    return devices.here()


def profile_listing(listing: Listing, sample_size: int, seed: int) -> DatasetProfile:
    """Profile the training speech of a listing: a random sample of durations, and the longest.

    Hours and size are known.
    """
    split = listing["train"]
    chosen = np.random.default_rng([seed, _SEED]).permutation(len(split))[:sample_size]
    seconds = np.append(split.seconds[chosen], split.seconds.max())  # memory is sized by the longest
    return summarise(
        seconds.tolist(),
        num_samples=len(split),
        how=f"{len(chosen)} at random of {len(split)}, and the longest",
        hours=split.hours,
        mean_bytes=split.stored_bytes / len(split),
        rate_hz=None,
    )


def choose_cache(config: DataConfig, listing: Listing, run: Run) -> float:
    """Choose how much read audio is kept on this machine's disk, in GiB.

    All of a small remote data set is kept where there is room.
    """
    if config.cache_gib is not None:
        return config.cache_gib
    stores = {id(sample.store): sample.store for split in listing.splits.values() for sample in split.samples}
    if all(store.is_folder for store in stores.values()):
        return 0.0
    size_gb = sum(split.stored_bytes for split in listing.splits.values()) / 1e9
    free_gb = files.free_bytes(run.scratch) / 1e9
    if size_gb < CACHE_GB and free_gb > 2 * size_gb:
        return run.choose(
            "data.cache_gib",
            round(size_gb * 1e9 / devices.GIB, 2) + 0.1,
            f"{size_gb:.2f} GB of audio come over the network, and {free_gb:.0f} GB of disk are free",
        )
    return run.choose(
        "data.cache_gib", 0.0, f"{size_gb:.2f} GB of audio, {free_gb:.0f} GB of free disk: read anew in each epoch"
    )
