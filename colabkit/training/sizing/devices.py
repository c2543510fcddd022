"""Devices that a model trains on: those that people have, from a catalogue, and the one that is here.

find("T4").usable_bytes          # of a GPU one does not have
here()                           # the GPU of this process, or its CPU
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from colabkit.core.accelerators import Accelerator
from colabkit.core.errors import UsageError
from colabkit.core.runtime import detect

MIB, GIB = 2**20, 2**30
_OTHERS_BYTES = GIB // 2  # less than that beside ours may be this process's own context


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One device, as far as sizes and precisions go.

    `total_bytes`: what nvidia-smi shows. `usable_bytes`: what a process can have of it at most, its context included;
    for a device that is here less what others hold (`others_bytes`). `context_bytes`: what the driver and its libraries
    take of that.
    """

    name: str
    kind: Literal["cuda", "cpu"] = "cuda"
    total_bytes: int
    usable_bytes: int
    context_bytes: int = 0
    others_bytes: int = 0
    supports_bf16: bool = False
    has_fp16_tensor_cores: bool = False
    capability: str = ""  # "7.5"; "" for a CPU
    driver: str = ""  # known of a device that is here

    def describe(self) -> str:
        """Return the device in a few words, with what another process holds of it."""
        taken = f", {self.others_bytes / GIB:.1f} GiB of it held by others" if self.others_bytes else ""
        return f"{self.name} with {self.total_bytes / GIB:.1f} GiB{taken}"

    __str__ = describe


# The CUDA context with the kernels of torch, cuBLAS and cuDNN that a step loads, in GiB by compute capability:
# estimates.
CONTEXT_GIB = {"7.0": 0.45, "7.5": 0.35, "8.0": 0.50, "8.6": 0.45, "8.9": 0.45, "9.0": 0.60}
NEWER_CONTEXT_GIB = 0.60
LEAST_USABLE_SHARE = 0.94  # of what nvidia-smi shows, on GPUs that are not in the catalogue
PROCESS_BYTES = GIB  # of RAM: the interpreter, torch, and audio that waits to be trained on


def _gpu(name: str, mebibytes: int, usable_gib: float, capability: str) -> Device:
    major = int(capability.partition(".")[0])
    return Device(
        name=name,
        total_bytes=mebibytes * MIB,
        usable_bytes=int(usable_gib * GIB),
        context_bytes=_context(capability),
        supports_bf16=major >= 8,
        has_fp16_tensor_cores=major >= 7,
        capability=capability,
    )


def _context(capability: str) -> int:
    return int(CONTEXT_GIB.get(capability, NEWER_CONTEXT_GIB) * GIB)


# MiB: "memory.total" of nvidia-smi. Usable: the least "total capacity" of public out-of-memory messages of torch 2,
# where drivers and ECC differ (T4 14.56 to 14.76, A100 39.38 to 39.56 and 79.14 to 79.25, H200 139.72 to 139.81).
CATALOGUE = {
    device.name: device
    for device in (
        _gpu("T4", 15360, 14.56, "7.5"),
        _gpu("V100-16", 16384, 15.77, "7.0"),
        _gpu("V100-32", 32768, 31.73, "7.0"),
        _gpu("L4", 23034, 22.03, "8.9"),
        _gpu("A10", 23028, 22.05, "8.6"),
        _gpu("A100-40", 40960, 39.38, "8.0"),
        _gpu("A100-80", 81920, 79.14, "8.0"),
        _gpu("H100", 81559, 79.10, "9.0"),
        _gpu("H200", 143771, 139.72, "9.0"),
        _gpu("RTX3090", 24576, 23.56, "8.6"),
        _gpu("RTX4090", 24564, 23.52, "8.9"),
    )
}
_MEANT = {
    "V100": "V100-16",
    "A100": "A100-40",
    "A10G": "A10",
    "3090": "RTX3090",
    "4090": "RTX4090",
    "TESLAT4": "T4",
    "A10040GB": "A100-40",
    "A10080GB": "A100-80",
    "H10080GB": "H100",
    "V10016GB": "V100-16",
    "V10032GB": "V100-32",
}


def find(name: str) -> Device:
    """Return a device of the catalogue; case, spaces, makers' names do not count.

    Raises: UsageError with the nearest name.
    """
    plain = _plain(name)
    known = {_plain(known_name): known_name for known_name in CATALOGUE} | _MEANT
    if plain in known:
        return CATALOGUE[known[plain]]
    near = difflib.get_close_matches(plain, known, n=1, cutoff=0.4)
    raise UsageError(
        "No such GPU in the catalogue",
        got=name,
        expected="one of " + ", ".join(CATALOGUE),
        fix=f"did you mean {known[near[0]]}?" if near else "choose the one with the nearest memory below yours",
    )


def _plain(name: str) -> str:
    text = re.sub(r"NVIDIA|GEFORCE|TESLA|SXM\d?|PCIE|HBM\d\w?|[^A-Z0-9]", "", str(name).upper())
    return text.removeprefix("RTX")


def here() -> Device:
    """Return the device that this process would train on: its first GPU, else the CPU with the RAM it may use.

    Asks CUDA for the free memory, which starts it; what other processes hold of the GPU is not counted as usable.
    """
    import torch

    if torch.cuda.is_available():
        index = torch.cuda.current_device()
        free, total = torch.cuda.mem_get_info(index)
        return _of_cuda(torch.cuda.get_device_properties(index), free, total, torch.cuda.memory_reserved(index))
    runtime = detect()
    # What is free at the moment would make other batches, and so other roundings, of the same run started again.
    ram = int((runtime.memory_gib or 8.0) * GIB)
    return Device(
        name=f"CPU ({runtime.num_cpus} cores)",
        kind="cpu",
        total_bytes=ram,
        usable_bytes=ram,
        context_bytes=PROCESS_BYTES,
    )


def of_accelerator(accelerator: Accelerator) -> Device:
    """Describe a GPU by what nvidia-smi says, without starting CUDA: as the catalogue has it if it is known there."""
    total = int(accelerator.memory_gib * GIB)
    alike = [
        d
        for d in CATALOGUE.values()
        if d.capability == accelerator.compute_capability and abs(d.total_bytes - total) < GIB
    ]
    share = alike[0].usable_bytes / alike[0].total_bytes if alike else LEAST_USABLE_SHARE
    major = int(accelerator.compute_capability.partition(".")[0] or 0)
    return Device(
        name=accelerator.name,
        total_bytes=total,
        usable_bytes=int(share * total),
        context_bytes=_context(accelerator.compute_capability),
        supports_bf16=accelerator.supports_bf16,
        has_fp16_tensor_cores=major >= 7,
        capability=accelerator.compute_capability,
        driver=driver_version(),
    )


def _of_cuda(properties: Any, free_bytes: int, total_bytes: int, reserved_bytes: int) -> Device:
    """Describe a GPU by what CUDA says; what lies there beside our tensors and a context belongs to others."""
    capability = f"{properties.major}.{properties.minor}"
    context = _context(capability)
    others = total_bytes - free_bytes - reserved_bytes - context
    others = others if others > _OTHERS_BYTES else 0
    return Device(
        name=properties.name,
        total_bytes=total_bytes,
        usable_bytes=total_bytes - others,
        context_bytes=context,
        others_bytes=others,
        supports_bf16=properties.major >= 8,
        has_fp16_tensor_cores=properties.major >= 7,
        capability=capability,
        driver=driver_version(),
    )


def driver_version() -> str:
    """Return the version of the GPU's driver, "" where it cannot be told."""
    try:
        with open("/proc/driver/nvidia/version", encoding="ascii", errors="replace") as opened:
            found = re.search(r"\b(\d{3}\.[\d.]+)\b", opened.readline())
            return found.group(1) if found else ""
    except OSError:
        return ""


def device_name(device: Any) -> str:
    """Return what tells devices apart that hold different numbers of samples."""
    import torch

    if device.type != "cuda":
        return device.type
    return (
        f"{torch.cuda.get_device_name(device)}, {torch.cuda.get_device_properties(device).total_memory / 2**30:.0f} GiB"
    )


def choose_threads(
    device: Any, local_world: int, choose: Callable[[str, Any, str], Any], name: str = "train.cpu_threads"
) -> None:
    """Leave one core to the threads that make the batches: two that fight for a core slow each other down fourfold."""
    import torch

    cores = detect().num_cpus // local_world
    if device.type == "cpu":
        torch.set_num_threads(choose(name, max(1, cores - 1), f"of {cores} CPU cores one makes the batches"))
