"""The processes that work at one step together: what they agree on, and how they meet (torchrun, accelerate).

    ranks = join()                            # alone, unless torchrun or accelerate started this process among others
    if ranks.any(run.stop_requested): ...     # the same answer in all of them
    state = ranks.from_first(load)            # made by the first, known to all
    found = ranks.share(items, work)          # each does its part, all have all

Every question must be asked by all of them in the same order. They are asked over TCP between CPUs (gloo), so that no
GPU waits.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

# Who waits for an answer waits for another's work, such as a validation: only a connection that breaks ends it.
_PATIENCE = timedelta(days=30)
# How a rank's part of a training step went, from good to bad.
FINE, TIGHT, OUT_OF_MEMORY = range(3)
_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR")


class Ranks:
    """One of `world` processes, number `rank`; `local_world` of them share this machine."""

    def __init__(self, rank: int = 0, world: int = 1, local_world: int = 1, group: Any = None):
        self.rank, self.world, self.local_world, self._group = rank, world, local_world, group

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def any(self, flag: Any) -> bool:
        """Tell whether the flag is up in at least one process."""
        return bool(self.worst(int(bool(flag))))

    def any_each(self, flags: Sequence[Any]) -> list[bool]:
        """Tell for each of the flags whether it is up in at least one process; all give as many."""
        if self.world == 1:
            return [bool(flag) for flag in flags]
        return [bool(flag) for flag in self._largest([int(bool(flag)) for flag in flags])]

    def worst(self, code: int) -> int:
        """Return the largest of the numbers that the processes give."""
        return code if self.world == 1 else self._largest([code])[0]

    def _largest(self, numbers: list[int]) -> list[int]:
        import torch

        largest = torch.tensor(numbers, dtype=torch.int64)
        torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX, group=self._group)
        return largest.tolist()

    def all(self, flag: Any) -> bool:
        """Tell whether the flag is up in every process."""
        return not self.any(not flag)

    def from_first(self, make: Callable[[], Any]) -> Any:
        """Return what `make()` returns in the first process; the others do not call it."""
        if self.world == 1:
            return make()
        import torch

        carried = [make() if self.is_first else None]
        torch.distributed.broadcast_object_list(carried, src=0, group=self._group)
        return carried[0]

    def gather(self, value: Any) -> list[Any]:
        """Return the value of every process, in order of rank."""
        if self.world == 1:
            return [value]
        import torch

        values: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(values, value, group=self._group)
        return values

    def share(self, items: Sequence[Any], work: Callable[[Sequence[Any]], Sequence[Any]]) -> list[Any]:
        """Return work(items), one result an item, each process doing every world-th item."""
        parts = self.gather(list(work(items[self.rank :: self.world])))
        return [parts[place % self.world][place // self.world] for place in range(len(items))]


_joined: Ranks | None = None


def launched() -> bool:
    """Say whether torchrun or accelerate started this process as one of several."""
    world = os.environ.get("WORLD_SIZE", "")
    return all(os.environ.get(name) for name in _VARIABLES) and world.isdigit() and int(world) > 1


def join() -> Ranks:
    """Meet the other processes of this job, at the first call; without others nothing is imported or started."""
    global _joined
    if _joined is None:
        _joined = _meet() if launched() else Ranks()
    return _joined


def _meet() -> Ranks:
    import torch
    from accelerate import PartialState

    with ended_by_signals():
        state = PartialState(cpu=not torch.cuda.is_available())
        group = torch.distributed.new_group(backend="gloo", timeout=_PATIENCE)
    return Ranks(state.process_index, state.num_processes, int(os.environ.get("LOCAL_WORLD_SIZE", "1")), group)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGINT end this process where it waits for others: no handler is called before they answer."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def part() -> None:
    """Leave the others, at the end of this process's work; not called where it failed, as the others may be gone."""
    global _joined
    if _joined is not None and _joined.world > 1:
        import torch

        torch.distributed.destroy_process_group()
    _joined = None


def lost_another(error: BaseException) -> bool:
    """Tell whether an error only says that another process is gone."""
    torch = sys.modules.get("torch")
    if torch is None or isinstance(error, torch.OutOfMemoryError) or not isinstance(error, RuntimeError):
        return False
    networked = tuple(getattr(torch.distributed, name) for name in ("DistError",) if hasattr(torch.distributed, name))
    text = str(error)
    return isinstance(error, networked) or any(
        word in text for word in ("gloo", "NCCL", "Connection closed", "Connection reset")
    )
