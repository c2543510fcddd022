"""How others find a batch size, by the steps they take: run(num_samples, seconds) raises torch.OutOfMemoryError.

NeMo's OOMptimizer and Lightning's batch size finder are written down here from public descriptions; the other two are
called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

Run = Callable[[int, float], object]
Epoch = Callable[[int], object]  # trains an epoch at a batch size, or raises torch.OutOfMemoryError


@dataclass
class Counted:
    """Counts steps, and those that ran out of memory."""

    run: Callable[..., object]
    steps: int = 0
    refused: int = 0

    def __call__(self, *args) -> bool:
        self.steps += 1
        try:
            self.run(*args)
        except torch.OutOfMemoryError:
            self.refused += 1
            return False
        return True


def oomptimizer(run: Run, lengths: Sequence[float], *, gap: float = 0.05, start: int = 32) -> tuple[list[int], Counted]:
    """Return a batch size for each length by doubling, then bisection to 5%.

    The longest comes first; each starts at twice the last.
    """
    step, sizes = Counted(run), {}
    for seconds in sorted(lengths, reverse=True):
        fits, refused, now = 0, None, start
        while refused is None or (refused - fits) / refused > gap and refused - fits > 1:
            if step(now, seconds):
                fits = now
                now = 2 * now if refused is None else (fits + refused) // 2
            else:
                refused = now
                now = (fits + refused) // 2
            if now == 0:
                raise torch.OutOfMemoryError("not even one sample fits")
        sizes[seconds], start = fits, 2 * fits
    return [sizes[seconds] for seconds in lengths], step


def accelerate_finder(epoch: Epoch, start: int) -> tuple[int, Counted]:
    """Return what accelerate.utils.find_executable_batch_size ends with."""
    from accelerate.utils import find_executable_batch_size

    return _by_decorator(epoch, lambda function: find_executable_batch_size(function, starting_batch_size=start))


def trainer_finder(epoch: Epoch, start: int) -> tuple[int, Counted]:
    """Return what the Trainer's auto_find_batch_size ends with: it hands its training loop to this function."""
    from transformers.trainer_utils import find_executable_batch_size

    return _by_decorator(epoch, lambda function: find_executable_batch_size(function, start, True))


def _by_decorator(epoch: Epoch, decorate: Callable) -> tuple[int, Counted]:
    counted = Counted(epoch)

    def training(batch_size: int) -> int:
        counted.steps += 1
        epoch(batch_size)
        return batch_size

    return decorate(training)(), counted


def lightning_finder(first_batches: Callable[[int], object], epoch: Epoch) -> tuple[int, Counted]:
    """Return Lightning's size by mode="power" from 2, halved on until an epoch goes through.

    A trial is three steps, and the size is halved once memory runs out: the finder itself looks at no other batches.
    """
    trial, size = Counted(first_batches), 2
    while trial(size):
        size *= 2
    size //= 2
    whole = Counted(epoch)
    while size > 1 and not whole(size):
        size //= 2
    trial.steps += whole.steps
    trial.refused += whole.refused
    return size, trial
