"""Where a training step computes: the device's name, and the CPU threads it may use beside those that make its batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from colabkit.core.runtime import detect


def device_name(device: Any) -> str:
    """Return what tells devices apart that hold different numbers of samples."""
    import torch
    if device.type != "cuda":
        return device.type
    return f"{torch.cuda.get_device_name(device)}, {torch.cuda.get_device_properties(device).total_memory / 2**30:.0f} GiB"


def choose_threads(device: Any, local_world: int, choose: Callable[[str, Any, str], Any],
                   name: str = "train.cpu_threads") -> None:
    """Leave one core to the threads that make the batches: two that fight for a core slow each other down fourfold."""
    import torch
    cores = detect().num_cpus // local_world
    if device.type == "cpu":
        torch.set_num_threads(choose(name, max(1, cores - 1), f"of {cores} CPU cores one makes the batches"))
