"""Audio encoded at once: measured on a GPU, a fixed amount on a CPU, less once memory ran out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

GIB = 2**30
PROBE_SECONDS = 4.0
SHARE = 0.6  # of the free memory: longer segments take more of it a second than the probe did
MOST_SECONDS = 640.0  # more at once makes no GPU faster, and a stop costs what was in flight
_REMEMBERED: dict[tuple, tuple[float, str]] = {}  # (device, codec) -> seconds and their reason, for this process


def seconds_at_once(
    codec: str, device: Any, encode_seconds: Callable[[float, int], None], on_cpu: float
) -> tuple[float, str]:
    """Return how much audio one batch may hold on this device, and why; a single wave may always be longer.

    `encode_seconds(seconds, num)` encodes `num` waves of that length. Measured once a process and codec; on a CPU it is
    `on_cpu`.
    """
    key = (str(device), codec)
    if key not in _REMEMBERED:
        _REMEMBERED[key] = (
            _measured(device, encode_seconds)
            if device.type == "cuda"
            else (on_cpu, f"on a CPU more than {on_cpu:.0f} s at once fall out of its caches")
        )
    return _REMEMBERED[key]


def forget() -> None:
    """Measure again when asked next."""
    _REMEMBERED.clear()


def _measured(device: Any, encode_seconds: Callable[[float, int], None]) -> tuple[float, str]:
    """Encode one wave and four on a GPU: what the other three held is the price of a second."""
    import torch

    held = []
    for num in (1, 4):
        encode_seconds(PROBE_SECONDS, num)  # kernels are loaded and workspaces made: not counted
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        encode_seconds(PROBE_SECONDS, num)
        torch.cuda.synchronize(device)
        held.append(torch.cuda.max_memory_reserved(device))
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(device)
    return of_memory(held[0], held[1], free)


def of_memory(held_by_one: int, held_by_four: int, free: int) -> tuple[float, str]:
    """Return the seconds that fit the share of free memory, at least one probe's, and the reason in words."""
    a_second = max((held_by_four - held_by_one) / (3 * PROBE_SECONDS), 2.0**20)
    fitting = SHARE * free / a_second
    seconds = max(PROBE_SECONDS, min(MOST_SECONDS, fitting))
    reason = f"{a_second / 2**20:.0f} MiB for a second of audio as measured, {free / GIB:.1f} GiB free"
    return round(seconds, 1), reason + (
        f"; no more than {MOST_SECONDS:.0f} s at once" if fitting > MOST_SECONDS else ""
    )
