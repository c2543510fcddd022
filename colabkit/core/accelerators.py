"""The accelerators that are here, asked without importing torch and without starting CUDA."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType

from colabkit.core.versions.differences import installed_version

_NVIDIA_SMI_SECONDS = 10.0
_GIB = 2**30
_MPS = "Apple MPS"


@dataclass(frozen=True, kw_only=True, slots=True)
class Accelerator:
    """One device a model can run on."""

    name: str
    memory_gib: float
    compute_capability: str  # "7.5"; "" where the idea does not apply
    supports_bf16: bool  # in hardware, not emulated


def find_accelerators(env: Mapping[str, str]) -> tuple[Accelerator, ...]:
    """List the devices this process may use, honouring CUDA_VISIBLE_DEVICES in `env`; never imports torch.

    MIG slices are listed with their whole GPU's memory until torch has started CUDA and knows better.
    """
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    # Asking torch for names starts CUDA in this process, and then its workers cannot fork: only if it runs.
    if cuda is not None and cuda.is_initialized():
        return _accelerators_of_torch(torch)
    found = _accelerators_of_nvidia_smi(env)
    if not found and cuda is not None and cuda.is_available():  # ROCm, or a container without nvidia-smi
        return _accelerators_of_torch(torch)
    mps = getattr(getattr(torch, "backends", None), "mps", None)
    if not found and mps is not None and mps.is_available():
        return (Accelerator(name=_MPS, memory_gib=0.0, compute_capability="", supports_bf16=False),)
    return found


def count_gpus(env: Mapping[str, str]) -> int:
    """Count the GPUs that one training can spread over, a process each; never imports torch or starts CUDA."""
    if installed_version("torch").endswith("+cpu"):
        return 0
    if "MIG-" in env.get("CUDA_VISIBLE_DEVICES", ""):
        return 1  # slices of a GPU cannot work together
    return sum(device.name != _MPS for device in find_accelerators(env))


def _accelerators_of_torch(torch: ModuleType) -> tuple[Accelerator, ...]:
    devices = (torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count()))
    return tuple(
        Accelerator(
            name=device.name,
            memory_gib=round(device.total_memory / _GIB, 1),
            compute_capability=f"{device.major}.{device.minor}",
            supports_bf16=bool(getattr(torch.version, "hip", None)) or device.major >= 8,
        )
        for device in devices
    )


def _accelerators_of_nvidia_smi(env: Mapping[str, str]) -> tuple[Accelerator, ...]:
    program = shutil.which("nvidia-smi", path=env.get("PATH", ""))
    visible = env.get("CUDA_VISIBLE_DEVICES")
    if program is None or (visible is not None and visible.strip() in ("", "-1")):
        return ()
    rows: list[list[str]] = []
    for capability in (",compute_cap", ""):  # old drivers do not know the last field
        query = f"--query-gpu=index,uuid,name,memory.total{capability}"
        try:
            done = subprocess.run(
                [program, query, "--format=csv,noheader,nounits"],
                capture_output=True,
                text=True,
                errors="replace",
                stdin=subprocess.DEVNULL,
                timeout=_NVIDIA_SMI_SECONDS,
            )
        except (OSError, subprocess.TimeoutExpired):
            return ()
        if done.returncode == 0:
            rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines()]
            rows = [row + [""] * (5 - len(row)) for row in rows if len(row) >= 4 and row[0].isdigit()]
            break
    if visible is not None:
        rows = _visible_rows(rows, [item.strip() for item in visible.split(",")])
    return tuple(_accelerator_of_row(row) for row in rows)


def _visible_rows(rows: list[list[str]], wanted: list[str]) -> list[list[str]]:
    chosen = []
    for item in wanted:
        by_uuid = item.startswith("GPU-")
        match = [row for row in rows if row[0] == item or (by_uuid and row[1].startswith(item))]
        if not match and not item.startswith("MIG-"):
            break  # CUDA stops at the first name it does not know
        chosen += match or rows[:1]
    return chosen


def _accelerator_of_row(row: list[str]) -> Accelerator:
    _, _, name, mebibytes, capability = row[:5]
    major = capability.partition(".")[0]
    memory_gib = round(int(mebibytes) / 1024, 1) if mebibytes.isdigit() else 0.0  # "[N/A]" on shared memory
    return Accelerator(
        name=name,
        memory_gib=memory_gib,
        compute_capability=capability if major.isdigit() else "",
        supports_bf16=major.isdigit() and int(major) >= 8,
    )
