"""Count the bytes of tensors as operators make and drop them, on real CPU tensors as on fake ones.

    with Meter(budget_bytes=2**30) as meter:
        meter.hold(model.parameters())
        loss(model(batch)).backward()
    meter.peak_bytes

With a budget the meter is an emulated accelerator: the operator that goes over it raises torch.OutOfMemoryError, in
forward or in backward, as CUDA does. Storages count once, however many views they have, rounded up to 512 bytes as
CUDA's allocator does.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode

BLOCK_BYTES = 512  # c10/cuda/CUDACachingAllocator.cpp: kMinBlockSize

# torch.tensor(data) shows itself by these alone
FRESH = {torch.ops.aten.lift_fresh.default, torch.ops.aten.lift.default}
DEVICE = torch.ops.prim.device.default
Event = tuple[int, int]  # (number of the storage, bytes; negative when freed)


def rounded(num_bytes: int) -> int:
    """Return the bytes that CUDA's allocator gives for a request."""
    return -(-num_bytes // BLOCK_BYTES) * BLOCK_BYTES


class Meter(TorchDispatchMode):
    """Counts what operators allocate while it is entered, and what `hold` was given.

    Tensors that existed before and were not held do not count, nor do views of them. What an operator uses inside of
    itself and gives back before it returns is not seen. It may be entered any number of times, not by two threads at
    once.
    """

    def __init__(self, budget_bytes: int | None = None, *, keep_events: bool = False):
        super().__init__()
        self.budget_bytes = budget_bytes
        self.live_bytes = 0
        self.peak_bytes = 0
        self.num_refused = 0
        self.events: list[Event] | None = [] if keep_events else None
        self._sizes: dict[int, int] = {}  # storage's address -> bytes
        self._numbers: dict[int, int] = {}
        self._made = 0

    def hold(self, tensors: Iterable[torch.Tensor]) -> None:
        """Count tensors that exist already: weights, optimizer states, the batch. Never refused."""
        for tensor in tensors:
            self._count(tensor, ())
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def reset_peak(self) -> None:
        self.peak_bytes = self.live_bytes

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if operator is DEVICE and isinstance(args[0], FakeTensor):  # asked more often than all else together
            return args[0].fake_device
        result = operator(*args, **(kwargs or {}))
        self._done(operator, args, result)
        inputs = () if operator in FRESH else (args, kwargs)
        asked = sum(self._count(tensor, inputs) for tensor in tensors_of(result))
        if asked:
            self._check(asked)
        return result

    def _done(self, operator: Any, args: tuple, result: Any) -> None:
        """What a meter that wants to know more does after an operator, before its result is counted."""

    def _count(self, tensor: torch.Tensor, inputs: tuple) -> int:
        """Return the bytes that the tensor's storage adds."""
        if tensor.layout is not torch.strided:
            return sum(self._count(part, inputs) for part in _parts_of_sparse(tensor))
        storage = tensor.untyped_storage()
        key = storage._cdata
        before = self._sizes.get(key)
        size = rounded(storage.nbytes())
        if before == size or (
            before is None
            and any(
                other.layout is torch.strided and other.untyped_storage()._cdata == key for other in tensors_of(inputs)
            )
        ):
            return 0
        if before is None:
            weakref.finalize(storage, self._drop, key).atexit = False
            self._numbers[key] = self._made
            self._made += 1
        else:  # resized in place
            self._note(key, -before)
        self._sizes[key] = size
        self._note(key, size)
        self.live_bytes += size - (before or 0)
        return size - (before or 0)

    def _drop(self, key: int) -> None:
        size = self._sizes.pop(key)
        self.live_bytes -= size
        self._note(key, -size)
        del self._numbers[key]

    def _note(self, key: int, size: int) -> None:
        if self.events is not None and size:
            self.events.append((self._numbers[key], size))

    def _check(self, asked: int) -> None:
        if self.budget_bytes is not None and self.live_bytes > self.budget_bytes:
            self.num_refused += 1
            raise torch.OutOfMemoryError(
                f"CUDA out of memory. Tried to allocate {asked / 2**20:.2f} MiB. The emulated GPU has a total capacity "
                f"of {self.budget_bytes / 2**20:.2f} MiB of which "
                f"{max(0, self.budget_bytes - self.live_bytes + asked) / 2**20:.2f} MiB is free (emulated)."
            )
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)


def tensors_of(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in tuples, lists, mappings and dataclasses."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_of(item)
    elif isinstance(value, Mapping):
        yield from tensors_of([*value.values()])
    elif is_dataclass(value) and not isinstance(value, type):
        yield from tensors_of([getattr(value, field.name) for field in fields(value)])


def _parts_of_sparse(tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
    if tensor.layout is torch.sparse_coo:
        return tensor._indices(), tensor._values()
    raise NotImplementedError(f"memory of a tensor of layout {tensor.layout} is not accounted for")
