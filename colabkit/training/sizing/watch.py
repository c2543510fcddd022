"""Watch over the memory while a model trains: a warning at 90%, a clean-up at 95%, and word of others on the device.

    watch = MemoryWatch(run)
    watch.look()                 # once a step; the guard does
    watch.used_fraction()        # of the latest look, for a tracker

On a GPU it is the device's memory, whoever uses it; without one the RAM that this process may have.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from colabkit.core.runtime import NO_LIMIT_BYTES, cgroup_values
from colabkit.core.teller import Teller
from colabkit.training.sizing.out_of_memory import clean_up

WARN_FRACTION, CLEAN_FRACTION = 0.90, 0.95
CALM_FRACTION = 0.85  # once below it, the next rise is told anew
CLEAN_EVERY_SECONDS = 60.0  # a clean-up that does not last is not repeated sooner, and later each time
OTHERS_BYTES = 2 * 2**30  # beside what torch holds: less may be the driver's, its libraries' and their buffers
GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The memory of a device at one moment.

    `reserved_bytes`: what this process's allocator holds, in use or not; `peak_bytes`: the most it ever held.
    `num_retries`: how often it had to give everything back and ask again.
    """

    total_bytes: int
    free_bytes: int
    reserved_bytes: int = 0
    peak_bytes: int = 0
    num_retries: int = 0
    is_shared_by_design: bool = False  # as RAM is: that others use it is no news

    @property
    def used_fraction(self) -> float:
        return 1 - self.free_bytes / self.total_bytes if self.total_bytes else 0.0

    @property
    def others_bytes(self) -> int:
        return max(0, self.total_bytes - self.free_bytes - self.reserved_bytes)


def read_gpu() -> Reading:
    """Read the current CUDA device."""
    import torch

    free, total = torch.cuda.mem_get_info()
    return Reading(
        total_bytes=total,
        free_bytes=free,
        reserved_bytes=torch.cuda.memory_reserved(),
        peak_bytes=torch.cuda.max_memory_reserved(),
        num_retries=gpu_retries(),
    )


def gpu_retries() -> int:
    """Return how often the allocator of the current CUDA device had to start over."""
    import torch

    return torch.cuda.memory_stats_as_nested_dict().get("num_alloc_retries", 0)  # empty before the first allocation


def read_ram(root: str = "/") -> Reading:
    """Read the RAM: the machine's, or what is left of a container's if that is less.

    Files that are only cached count as free.
    """
    known = _fields(Path(root, "proc/meminfo"))
    total, free = known.get("MemTotal", 0) * 1024, known.get("MemAvailable", 0) * 1024
    for limit_name, used_name, idle_name in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        values = [cgroup_values(root, "memory", name) for name in (limit_name, used_name, "memory.stat")]
        for limit, used, stat in zip(*values, strict=False):
            if limit.isdigit() and used.isdigit() and int(limit) < NO_LIMIT_BYTES:
                idle = dict(line.split() for line in stat.splitlines()).get(idle_name, "0")
                left = max(0, int(limit) - max(0, int(used) - int(idle)))
                if not total or left < free:
                    total, free = int(limit), left
    status = _fields(Path(root, "proc/self/status"))
    return Reading(
        total_bytes=total,
        free_bytes=free,
        reserved_bytes=status.get("VmRSS", 0) * 1024,
        peak_bytes=status.get("VmHWM", 0) * 1024,
        is_shared_by_design=True,
    )


def _fields(path: Path) -> dict[str, int]:
    """Return the numbers of a file of lines "name: number unit"."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}  # no Linux: nothing is known
    return {words[0].rstrip(":"): int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}


class MemoryWatch:
    """Looks how full memory is, tells it once a rise, cleans up when it is nearly full; `events` counts what happened.

    `read` makes a Reading; by default of the GPU that torch uses, else of the RAM. `context_bytes` is what the driver
    takes.
    """

    def __init__(
        self,
        teller: Teller,
        *,
        read: Callable[[], Reading] | None = None,
        context_bytes: int = GIB // 2,
        clean: Callable[[], object] = clean_up,
        clock: Callable[[], float] = time.monotonic,
    ):
        import torch

        self.read: Callable[[], Reading] = read or (read_gpu if torch.cuda.is_available() else read_ram)
        self._retries = {read_gpu: gpu_retries, read_ram: lambda: 0}.get(self.read, lambda: self.read().num_retries)
        self.events: Counter[str] = Counter()
        self._teller, self._clean, self._clock = teller, clean, clock
        self._context_bytes = context_bytes
        self._warned = self._told_of_others = False
        self._clean_after, self._pause_seconds = -float("inf"), CLEAN_EVERY_SECONDS
        self._latest: Reading | None = None

    def used_fraction(self) -> float:
        """Return how full the memory was at the latest look."""
        return (self._latest or self.look()).used_fraction

    def retries(self) -> int:
        """Return how often the allocator had to give everything back and ask again."""
        return self._retries()

    def describe(self) -> str:
        """Return how full the memory is now, in words."""
        now = self.read()
        taken = now.others_bytes - self._context_bytes
        others = (
            f", {taken / GIB:.1f} GiB of it used by others"
            if not now.is_shared_by_design and taken > OTHERS_BYTES
            else ""
        )
        return f"{(now.total_bytes - now.free_bytes) / GIB:.1f} of {now.total_bytes / GIB:.1f} GiB in use{others}"

    def look(self) -> Reading:
        """Look now; warns, and cleans up where it is time to."""
        now = self._latest = self.read()
        used = now.used_fraction
        if used < CALM_FRACTION:
            self._warned = False
        elif used >= WARN_FRACTION and not self._warned:
            self._warned = True
            self.events["warnings"] += 1
            self._teller.say(f"  WARNING memory is {used:.0%} full: {self.describe()}")
        if used >= CLEAN_FRACTION and self._clock() >= self._clean_after:
            now = self._latest = self._clean_up(used)
        self._look_for_others(now)
        return now

    def _clean_up(self, used: float) -> Reading:
        self._clean()
        now = self.read()
        self.events["clean_ups"] += 1
        self._teller.choose(
            "memory.clean_up",
            f"{used:.0%} to {now.used_fraction:.0%}",
            "memory was nearly full; what no tensor uses was given back",
        )
        self._clean_after = self._clock() + self._pause_seconds
        self._pause_seconds *= 2
        return now

    def _look_for_others(self, now: Reading) -> None:
        taken = now.others_bytes - self._context_bytes
        if now.is_shared_by_design or taken <= OTHERS_BYTES:
            self._told_of_others = False
        elif not self._told_of_others:
            self._told_of_others = True
            self.events["others"] += 1
            self._teller.say(
                f"  WARNING others use {taken / GIB:.1f} of the {now.total_bytes / GIB:.1f} GiB of this "
                "GPU (nvidia-smi tells who); where memory runs out for it, fewer samples go through at once"
            )
