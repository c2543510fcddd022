"""From hardware, data set and model to a training configuration, every choice with its reason.

config, manager = create_optimal_config(dataset["train"], model)
trainer = Trainer(model=model, args=config.to_training_arguments("out"), ...)
manager.save_config(config, "training_config.json")
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from colabkit.core import files
from colabkit.core.errors import StateError, UsageError
from colabkit.core.table import Table
from colabkit.core.teller import Teller
from colabkit.pipelines.asr.configure import profiles
from colabkit.pipelines.asr.configure.profiles import DatasetProfile, HardwareProfile, ModelProfile
from colabkit.pipelines.asr.configure.training_config import TrainingConfig
from colabkit.training.sizing.choose import size
from colabkit.training.sizing.chosen import Sizing
from colabkit.training.sizing.devices import Device
from colabkit.training.sizing.real_step import confirm_here
from colabkit.training.sizing.workload import Workload

FORMAT = 1
STREAM_GB, STREAM_HOURS = 50.0, 100.0  # more than that is not copied to a disk first
CACHE_GB = 10.0  # less than that is kept on the disk once it was read
CHUNK_SECONDS = 30.0
WORKER_RAM_GIB = 2.0  # for each process that loads audio
MOST_WORKERS = 8
SMALLEST_MARGIN, LARGEST_MARGIN = 0.70, 0.95


class ASRConfigManager:
    """Profiles hardware, data set and model, and makes a TrainingConfig of them.

    `device` stands for the one to train on, as in find("L4"), where that is not this machine's. `teller` is told each
    choice with its reason.
    """

    def __init__(self, *, safety_margin: float = 0.85, device: Device | None = None, teller: Teller = Teller()):
        if not isinstance(safety_margin, (int, float)) or not SMALLEST_MARGIN <= safety_margin <= LARGEST_MARGIN:
            raise UsageError(
                "Cannot use this safety margin",
                got=safety_margin,
                expected=f"{SMALLEST_MARGIN:.2f} (careful) to {LARGEST_MARGIN:.2f} (bold)",
                where="safety_margin",
                fix="safety_margin=0.85 leaves what the driver, fragments and surprises need",
            )
        self.safety_margin, self.teller, self._device = float(safety_margin), teller, device
        self.hardware: HardwareProfile | None = None
        self.dataset: DatasetProfile | None = None
        self.model: ModelProfile | None = None
        self.sizing: Sizing | None = None

    def profile_hardware(self) -> HardwareProfile:
        """Look at the GPU (or CPU), its free memory and the RAM of this machine."""
        self.hardware, self._device = profiles.profile_hardware(self.safety_margin, self._device)
        return self.hardware

    def profile_dataset(self, dataset: Any, sample_size: int = 200, **more: Any) -> DatasetProfile:
        """Measure a random sample of a data set; see profiles.profile_dataset."""
        self.dataset = profiles.profile_dataset(dataset, sample_size=sample_size, **more)
        return self.dataset

    def profile_model(self, model: Any, *, name: str = "", optimizer: str = "adamw") -> ModelProfile:
        """Count a torch module: parameters, those trained, and memory of weights, gradients and optimizer states."""
        self.model = profiles.profile_model(model, name=name, optimizer=optimizer)
        return self.model

    def configure(
        self,
        workload: Workload,
        *,
        effective_batch: int | None = 32,
        effective_seconds: float | None = None,
        num_processes: int = 1,
        at_once: int | None = None,
        checkpointing: str = "auto",
        precision: str = "auto",
        optimizer: str = "adamw",
        workers: int | None = None,
        longest_seconds: float = CHUNK_SECONDS,
        confirm_in: str | os.PathLike | None = None,
        lighter: Callable[[], Mapping[str, Workload]] | None = None,
        **values: Any,
    ) -> TrainingConfig:
        """Choose everything for a workload from the profiles made before.

        An optimizer step has `effective_batch` samples, or, where that is None, `effective_seconds` of padded audio.
        Where this process has a GPU and `confirm_in` names a folder, a few real steps confirm what was predicted, and
        the folder remembers it for the next run on such a GPU. `lighter()` gives variants of the workload to compare
        with where it does not fit.

        Raises: DataError when the model does not fit even one sample at once, saying what would help; UsageError for
        values that do not fit together.
        """
        if effective_batch is not None and (effective_batch < 1 or effective_batch % num_processes):
            raise UsageError(
                "The processes cannot share this batch",
                got=f"effective_batch={effective_batch}",
                expected=f"a multiple of {num_processes} processes",
                where="effective_batch",
                fix=f"effective_batch={max(1, round(effective_batch / num_processes)) * num_processes}",
            )
        hardware, data = self.hardware or self.profile_hardware(), self.dataset
        if data is None:
            raise UsageError(
                "There is nothing to size batches by",
                expected="a data set that was profiled",
                fix="call profile_dataset(dataset) before configure(...)",
            )
        reasons: dict[str, str] = {}

        def decide(name: str, value: Any, reason: str) -> Any:
            reasons[name] = reason
            return self.teller.choose(name, value, reason)

        lengths = [min(seconds, longest_seconds) for seconds in data.seconds]
        self.sizing = size(
            workload,
            device=self._device,
            lengths=lengths,
            effective_batch=effective_batch,
            effective_seconds=effective_seconds,
            safety_margin=self.safety_margin,
            checkpointing=checkpointing,
            precision=precision,
            optimizer=optimizer,
            world=num_processes,
            most=most_at_once(effective_batch, num_processes, at_once),
            lighter=lighter,
            choose=lambda name, value, reason: value,
        )
        if confirm_in is not None:
            self.sizing = confirm_here(self.sizing, workload, confirm_in, choose=decide, say=self.teller.say)
        regime, longest = self.sizing.regime, max(lengths)
        reasons_of_sizing = {name: reason for name, _, reason in self.sizing.choices}
        batch, accumulation, capacity = *self.sizing.even_batch(longest), self.sizing.capacity(longest)
        share = batch * accumulation
        config = TrainingConfig(
            effective_batch_size=share * num_processes,
            effective_seconds=effective_seconds,
            longest_seconds=longest,
            num_processes=num_processes,
            optimizer=optimizer,
            safety_margin=self.safety_margin,
            reasons=reasons,
            **values,
        )
        each = f" on each of {num_processes} processes" if num_processes > 1 else ""
        config.per_device_train_batch_size = decide(
            "per_device_train_batch_size",
            batch,
            f"{capacity} samples of {longest:.1f} s fit at once, "
            f"and {batch} times {accumulation} make {share} exactly{each}",
        )
        decide(
            "gradient_accumulation_steps",
            config.gradient_accumulation_steps,
            f"{share} samples of an optimizer step"
            + (" and process" if num_processes > 1 else "")
            + f", {batch} at once",
        )
        config.bf16 = decide("bf16", regime.precision == "bf16", reasons_of_sizing.get("precision", "it is set"))
        config.fp16 = decide("fp16", regime.precision == "fp16", reasons_of_sizing.get("precision", "it is set"))
        config.gradient_checkpointing = decide(
            "gradient_checkpointing", regime.checkpointing, reasons_of_sizing.get("checkpointing", "it is set")
        )
        config.streaming, config.cache_dataset = _where_data_lies(data, decide)
        config.chunk_audio = decide(
            "chunk_audio",
            data.max_seconds > longest_seconds,
            f"the longest measured has {data.max_seconds:.1f} s, the limit is {longest_seconds:g} s",
        )
        config.chunk_seconds = longest_seconds
        config.dataloader_num_workers = _workers(hardware, workers, decide)
        config.predicted_gib = round(self.sizing.bytes(batch, longest) / profiles.GIB, 3)
        config.limit_gib = round(self.sizing.limit_bytes / profiles.GIB, 3)
        return config

    def save_config(self, config: TrainingConfig, path: str | os.PathLike) -> Path:
        """Write a configuration with the profiles it was made from as JSON."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        made_from = {
            name: profile.lasting()
            for name in ("hardware", "dataset", "model")
            if (profile := getattr(self, name)) is not None
        }
        files.write_json(
            path,
            {
                "format": FORMAT,
                "config": config.to_dict(),
                "made_from": made_from,
                **({"sizing": self.sizing.to_dict()} if self.sizing else {}),
            },
        )
        return path

    def load_config(self, path: str | os.PathLike) -> TrainingConfig:
        """Read a configuration that `save_config` wrote, with its profiles.

        Raises: StateError for a file that is none.
        """
        path = Path(path)
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored["format"] != FORMAT:
                raise _unusable(path, f"format {stored['format']}")
            known = {field.name for field in fields(TrainingConfig)}
            if unknown := sorted(set(stored["config"]) - known):
                raise _unusable(path, f"the unknown field {unknown[0]}")
            config = TrainingConfig(**stored["config"])
            kinds = {"hardware": HardwareProfile, "dataset": DatasetProfile, "model": ModelProfile}
            for name, data in stored["made_from"].items():
                setattr(self, name, kinds[name].from_dict(data))
            self.sizing = Sizing.from_dict(stored["sizing"]) if "sizing" in stored else None
        except FileNotFoundError as error:
            raise StateError(
                "There is no such configuration",
                got=str(path),
                expected="a file written by save_config",
                fix="correct the path, or make one with create_optimal_config(...)",
            ) from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise _unusable(path, f"{type(error).__name__}: {error}") from error
        return config

    def table(self) -> Table:
        """Return all that was profiled, one under the other."""
        found = [profile for profile in (self.hardware, self.dataset, self.model) if profile is not None]
        return Table(["what", "value"], [row for profile in found for row in profile.rows()])


def create_optimal_config(
    dataset: Any,
    model: Any,
    model_name: str = "",
    *,
    safety_margin: float = 0.85,
    target_batch_size: int = 32,
    sample_size: int = 200,
    device: Device | None = None,
    say: Callable[[str], object] = print,
    **overrides: Any,
) -> tuple[TrainingConfig, ASRConfigManager]:
    """Return a TrainingConfig for fine-tuning `model` on `dataset` on this machine, and the manager that made it.

    `dataset` is a split of a Hugging Face data set (loaded or streamed), a list of dicts, or durations in seconds.
    `model` is a wav2vec 2.0, HuBERT, w2v-BERT or Whisper model of transformers, or the Hub id of a known one; it is
    neither moved nor changed. `overrides` are arguments of ASRConfigManager.configure (optimizer, checkpointing,
    precision, workers, ...) and fields of TrainingConfig, which are then not chosen.

    Raises: UsageError, DataError: settings out of range; no audio, no transcripts; a model that does not fit at all.
    """
    from colabkit.pipelines.asr.config import Config, ModelConfig
    from colabkit.pipelines.asr.workload import lighter, workload_of

    manager = ASRConfigManager(safety_margin=safety_margin, device=device, teller=Teller(say))
    for former in _FORMERLY.keys() & overrides.keys():
        say(f"  hint: {former} is called {_FORMERLY[former]} now; it is taken as that")
    fixed, asked = _sorted_overrides({_FORMERLY.get(name, name): value for name, value in overrides.items()})
    if isinstance(dataset, str):
        raise UsageError(
            "Cannot profile a data set by its name",
            got=dataset,
            expected="the data set itself",
            where="dataset",
            fix="dataset = datasets.load_dataset(...); create_optimal_config(dataset['train'], model)",
        )
    workload, network = workload_of(model, name=model_name)
    manager.profile_hardware()
    manager.profile_dataset(dataset, sample_size=sample_size)
    manager.profile_model(network, name=model_name or workload.name, optimizer=asked.get("optimizer", "adamw"))
    say(str(manager.table()))
    named = Config(model=ModelConfig(name=model)) if isinstance(model, str) else None
    config = manager.configure(
        workload, effective_batch=target_batch_size, lighter=named and (lambda: lighter(named)), **asked
    )
    for name, value in fixed.items():
        setattr(config, name, value)
        config.reasons[name] = "it is set"
    return config, manager


_ASKED = ("num_processes", "at_once", "checkpointing", "precision", "optimizer", "workers", "longest_seconds")
_FORMERLY = {"batch_samples": "at_once"}


def _sorted_overrides(overrides: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part what is set afterwards from what the choices depend on. Raises: UsageError for names that are neither."""
    known = {f.name for f in fields(TrainingConfig)} - {"reasons", "predicted_gib", "limit_gib", "safety_margin"}
    unknown = sorted(set(overrides) - known - set(_ASKED))
    if unknown:
        near = difflib.get_close_matches(unknown[0], [*known, *_ASKED], n=1)
        raise UsageError(
            "There is no such setting",
            got=unknown[0],
            expected=f"one of {', '.join(sorted({*known, *_ASKED}))}",
            fix=f"did you mean {near[0]}?" if near else "leave it out",
        )
    asked = {name: value for name, value in overrides.items() if name in _ASKED}
    return {name: value for name, value in overrides.items() if name not in _ASKED}, asked


def most_at_once(effective_batch: int | None, num_processes: int, wanted: int | None) -> int | None:
    """Return how many samples at once make sense at most: never more than an optimizer step takes in this process."""
    # Of an effective batch in seconds the sizing knows how many samples of a length it has.
    share = None if effective_batch is None else effective_batch // num_processes
    return min((most for most in (share, wanted) if most is not None), default=None)


def _where_data_lies(data: DatasetProfile, decide: Callable) -> tuple[bool, bool]:
    """Choose streaming above 50 GB or 100 h (or where the size is unknown), and caching below 10 GB."""
    if data.size_gb is None or data.total_hours is None:
        return (
            decide("streaming", True, "how large the data set is cannot be known: it is a stream"),
            decide("cache_dataset", False, "its size is not known"),
        )
    told = f"{data.size_gb:.2f} GB, {data.total_hours:.1f} h"
    large = data.size_gb > STREAM_GB or data.total_hours > STREAM_HOURS
    return (
        decide(
            "streaming", large, f"{told}: {'more' if large else 'not more'} than {STREAM_GB:g} GB or {STREAM_HOURS:g} h"
        ),
        decide(
            "cache_dataset",
            data.size_gb < CACHE_GB,
            f"{told}: {'less' if data.size_gb < CACHE_GB else 'not less'} than {CACHE_GB:g} GB",
        ),
    )


def _workers(hardware: HardwareProfile, wanted: int | None, decide: Callable) -> int:
    """Choose loading workers: one core stays for training, and each needs RAM."""
    if wanted is not None:
        return decide("dataloader_num_workers", wanted, "it is set")
    by_ram = int(hardware.ram_total_gib / 2 // WORKER_RAM_GIB)  # what is free at a moment would choose anew each time
    workers = max(0, min(hardware.num_cpus - 1, by_ram, MOST_WORKERS))
    return decide(
        "dataloader_num_workers",
        workers,
        f"{hardware.num_cpus} CPU cores of which one trains, and half of {hardware.ram_total_gib:.1f} GiB of RAM at "
        f"{WORKER_RAM_GIB:g} GiB each",
    )


def _unusable(path: Path, what: str) -> StateError:
    return StateError(
        "This is no configuration that can be used",
        got=what,
        where=path,
        expected="a whole file of save_config",
        fix="delete the file and make it anew with create_optimal_config(...) and save_config",
    )
