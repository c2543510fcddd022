"""Profiles of the hardware, the data set and the model, of which a configuration is made; each shows as a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

import numpy as np

from colabkit.core.errors import BrokenSampleError, DataError
from colabkit.core.runtime import detect
from colabkit.core.table import Table
from colabkit.pipelines.asr import RATE_HZ
from colabkit.pipelines.asr.configure import durations
from colabkit.training.sizing.devices import Device, here

GIB = 2**30
PERCENTS = (5, 25, 50, 75, 90, 95, 99)
PCM_BYTES = 2  # of one sample of audio, where the size of what is stored is not known


class _Profile:
    """What the three profiles share: to and from plain data, and a table of what they say."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def lasting(self) -> dict[str, Any]:
        """Return what is the same a minute later: what a configuration is stored with."""
        return self.to_dict()

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        known = {f.name for f in fields(cls)}
        return cls(
            **{
                name: tuple(value) if isinstance(value, list) else value
                for name, value in data.items()
                if name in known
            }
        )

    def rows(self) -> list[list[Any]]:
        raise NotImplementedError

    def table(self) -> Table:
        return Table([type(self).__name__, ""], self.rows())

    def __str__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


@dataclass(frozen=True, kw_only=True)
class HardwareProfile(_Profile):
    """The device that trains, and the machine around it. Memory in GiB; `gpu_name` is "" without a GPU."""

    gpu_name: str
    num_gpus: int
    cuda_version: str
    driver_version: str
    compute_capability: str
    supports_bf16: bool
    gpu_total_gib: float
    gpu_available_gib: float  # less what other processes hold
    num_cpus: int
    ram_total_gib: float
    safety_margin: float
    ram_available_gib: float | None = None  # at the moment; not known of a profile that was stored

    @property
    def usable_gib(self) -> float:
        """Return what training may use: the available memory of the device times the safety margin."""
        return self.safety_margin * (self.gpu_available_gib if self.gpu_name else self.ram_total_gib)

    def lasting(self) -> dict[str, Any]:
        """Return all but the RAM that is free at the moment."""
        return {name: value for name, value in self.to_dict().items() if name != "ram_available_gib"}

    def rows(self) -> list[list[Any]]:
        gpu = (
            f"{self.gpu_name} x {self.num_gpus}, compute capability {self.compute_capability}"
            if self.gpu_name
            else "none"
        )
        rows = [["GPU", gpu]]
        if self.gpu_name:
            rows += [
                ["CUDA, driver", f"{self.cuda_version}, {self.driver_version}"],
                ["GPU memory", f"{self.gpu_total_gib:.1f} GiB, {self.gpu_available_gib:.1f} GiB of it free"],
            ]
        return [
            *rows,
            ["CPU cores", self.num_cpus],
            [
                "RAM",
                f"{self.ram_total_gib:.1f} GiB"
                + ("" if self.ram_available_gib is None else f", {self.ram_available_gib:.1f} GiB of it free"),
            ],
            [
                "usable for training",
                f"{self.usable_gib:.1f} GiB: {self.safety_margin:.0%} of "
                + ("the GPU's free memory" if self.gpu_name else "the RAM"),
            ],
        ]


def profile_hardware(safety_margin: float, device: Device | None = None) -> tuple[HardwareProfile, Device]:
    """Look at this machine; `device` stands for the one to train on where that is not this machine's."""
    device, runtime = device or here(), detect()
    is_gpu = device.kind == "cuda"
    cuda, driver, num_gpus = _cuda() if is_gpu else ("", "", 0)
    ram_total = runtime.memory_gib
    return HardwareProfile(
        gpu_name=device.name if is_gpu else "",
        num_gpus=num_gpus,
        cuda_version=cuda,
        driver_version=driver,
        compute_capability=device.capability if is_gpu else "",
        supports_bf16=device.supports_bf16,
        gpu_total_gib=round(device.total_bytes / GIB, 2) if is_gpu else 0.0,
        gpu_available_gib=round(device.usable_bytes / GIB, 2) if is_gpu else 0.0,
        num_cpus=runtime.num_cpus,
        ram_total_gib=round(ram_total, 2),
        ram_available_gib=round(min(ram_total, ram_available_bytes() / GIB), 2),
        safety_margin=safety_margin,
    ), device


def ram_available_bytes() -> float:
    """Return the RAM that new work can have, by the system's own estimate."""
    try:
        with open("/proc/meminfo", encoding="ascii") as info:
            return next(1024.0 * int(line.split()[1]) for line in info if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return detect().memory_gib * GIB


def _cuda() -> tuple[str, str, int]:
    import torch

    if not torch.cuda.is_available():  # a device of the catalogue, not this machine's
        return "", "", 1
    from colabkit.training.sizing.devices import driver_version

    return torch.version.cuda or torch.version.hip or "", driver_version(), torch.cuda.device_count()


@dataclass(frozen=True, kw_only=True)
class DatasetProfile(_Profile):
    """How long the samples of a data set are, from a random sample of them.

    `num_samples` is None where a stream does not say.
    """

    num_samples: int | None
    num_sampled: int
    num_broken: int
    how: str
    mean_seconds: float
    min_seconds: float
    max_seconds: float
    percentiles: dict[str, float]
    total_hours: float | None
    size_gb: float | None
    rate_hz: int | None
    seconds: tuple[float, ...] = field(repr=False)  # those that were measured

    def rows(self) -> list[list[Any]]:
        count = "unknown (a stream)" if self.num_samples is None else self.num_samples
        spread = ", ".join(f"{name} {value:.1f}" for name, value in self.percentiles.items())
        rows = [
            ["samples", count],
            ["measured", self.how + (f", {self.num_broken} broken" if self.num_broken else "")],
            ["seconds", f"mean {self.mean_seconds:.2f}, {self.min_seconds:.2f} to {self.max_seconds:.2f}"],
            ["percentiles, seconds", spread],
        ]
        rows += [] if self.total_hours is None else [["hours", f"{self.total_hours:.2f}"]]
        rows += [] if self.size_gb is None else [["size", f"{self.size_gb:.2f} GB"]]
        return rows + ([] if self.rate_hz is None else [["sampling rate", f"{self.rate_hz} Hz"]])


def profile_dataset(
    dataset: Any,
    *,
    sample_size: int = 200,
    seed: int = 0,
    needs_text: bool = True,
    problem: Callable[[str, str], None] | None = None,
) -> DatasetProfile:
    """Measure a random sample of a data set: a Hugging Face one, a stream, a list of dicts, or of durations in seconds.

    Raises: DataError for one without samples, audio or transcripts, or with nothing that can be read.
    """
    items, num_samples, how = durations.draw(dataset, sample_size, seed)
    seconds, sizes, broken = [], [], 0
    for number, item in enumerate(items):
        if needs_text:
            durations.require_text(item)
        try:
            seconds.append(durations.seconds_of(item))
        except BrokenSampleError as error:
            broken += 1
            if problem is not None:
                problem(f"sample {number} of the random ones", str(error).splitlines()[0])
            continue
        sizes.append(durations.bytes_of(item))
    if not seconds:
        raise DataError(
            "Not one of the samples can be read",
            got=f"{broken} broken of {len(items)}",
            where="dataset",
            expected="audio that decodes",
            fix="look at a few of its files; soundfile must be able to open them",
        )
    stored = float(np.mean([size for size in sizes if size])) if any(sizes) else None
    good = next(item for item in items if not isinstance(item, (int, float)) or item)
    rate = None if isinstance(good, (int, float, np.integer, np.floating)) else durations.rate_of(good)
    return summarise(seconds, num_samples=num_samples, num_broken=broken, how=how, mean_bytes=stored, rate_hz=rate)


def summarise(
    seconds: Sequence[float],
    *,
    num_samples: int | None,
    how: str,
    num_broken: int = 0,
    mean_bytes: float | None = None,
    rate_hz: int | None = None,
    hours: float | None = None,
) -> DatasetProfile:
    """Make the profile of measured durations; `hours` where the whole is known, else what the sample suggests."""
    lengths = np.asarray(seconds, np.float64)
    hours = float(lengths.mean()) * num_samples / 3600 if hours is None and num_samples is not None else hours
    size = None
    if num_samples is not None:
        size = num_samples * (mean_bytes or float(lengths.mean()) * (rate_hz or RATE_HZ) * PCM_BYTES) / 1e9
    return DatasetProfile(
        num_samples=num_samples,
        num_sampled=len(lengths),
        num_broken=num_broken,
        how=how,
        mean_seconds=round(float(lengths.mean()), 3),
        min_seconds=round(float(lengths.min()), 3),
        max_seconds=round(float(lengths.max()), 3),
        percentiles={f"{p}%": round(float(np.percentile(lengths, p)), 3) for p in PERCENTS},
        total_hours=None if hours is None else round(hours, 4),
        size_gb=None if size is None else round(size, 4),
        rate_hz=rate_hz,
        seconds=tuple(round(float(s), 3) for s in np.sort(lengths)),
    )


@dataclass(frozen=True, kw_only=True)
class ModelProfile(_Profile):
    """How large a model is. Memory in GiB of weights in fp32, their gradients, and the optimizer's states."""

    name: str
    model_type: str
    parameters: int
    trainable: int
    hidden_size: int
    num_layers: int
    weights_gib: float
    gradients_gib: float
    optimizer_gib: float
    optimizer: str = "adamw"

    @property
    def total_gib(self) -> float:
        return self.weights_gib + self.gradients_gib + self.optimizer_gib

    def rows(self) -> list[list[Any]]:
        return [
            ["model", f"{self.name} ({self.model_type})"],
            ["parameters", f"{self.parameters / 1e6:.1f} M, {self.trainable / 1e6:.1f} M of them trained"],
            ["layers", f"{self.num_layers} of width {self.hidden_size}"],
            [
                "memory",
                f"weights {self.weights_gib:.2f} + gradients {self.gradients_gib:.2f} + {self.optimizer} "
                f"{self.optimizer_gib:.2f} = {self.total_gib:.2f} GiB",
            ],
        ]


def profile_model(model: Any, *, name: str = "", optimizer: str = "adamw") -> ModelProfile:
    """Count a torch module; its `config`, where it has one, says how wide and deep it is."""
    from colabkit.training.sizing.tracing.optimizer_memory import bytes_a_weight

    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    if not sizes:
        raise DataError(
            "This model has no parameters",
            got=type(model).__name__,
            expected="a torch module with weights",
            where="model",
            fix="pass the model itself, as from AutoModelForCTC.from_pretrained(...)",
        )
    config = getattr(model, "config", None)
    total, trained = sum(n for n, _ in sizes), sum(n for n, is_trained in sizes if is_trained)

    def of_config(*names: str) -> int:
        return next((int(getattr(config, n)) for n in names if getattr(config, n, None)), 0)

    return ModelProfile(
        name=name or getattr(config, "_name_or_path", "") or type(model).__name__,
        model_type=getattr(config, "model_type", type(model).__name__),
        parameters=total,
        trainable=trained,
        hidden_size=of_config("hidden_size", "d_model"),
        num_layers=of_config("num_hidden_layers", "encoder_layers"),
        weights_gib=round(4 * total / GIB, 3),
        gradients_gib=round(4 * trained / GIB, 3),
        optimizer_gib=round(bytes_a_weight(optimizer) * trained / GIB, 3),
        optimizer=optimizer,
    )
