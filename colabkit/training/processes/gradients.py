"""Gradients summed over ranks after backward, so that backward itself waits for nobody.

    broadcast_parameters(model, ranks)                    # once
    reduce_gradients(model.parameters(), ranks)           # every step, when all ranks are through

What DistributedDataParallel does during backward cannot be undone when one rank runs out of memory; this is not begun
before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from colabkit.training.processes.ranks import Ranks

GRADIENT_BUCKET_BYTES = 64 << 20  # what is summed in one go; two of them are in flight at most


def broadcast_parameters(module: Any, ranks: Ranks) -> None:
    """Give all ranks the parameters and buffers of the first one's module."""
    if ranks.world == 1:
        return
    import torch

    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            torch.distributed.broadcast(tensor.detach(), src=0)


def reduce_gradients(parameters: Iterable[Any], ranks: Ranks) -> None:
    """Replace every gradient by its sum over all ranks, the same bits on each.

    A parameter without a gradient on some ranks counts as zeros there; without one on all it stays so. The parameters
    and their order must be the same everywhere. Beside the gradients it takes twice GRADIENT_BUCKET_BYTES at most.
    """
    if ranks.world == 1:
        return
    import torch

    parameters = [p for p in parameters if p.requires_grad]
    present = ranks.any_each([p.grad is not None for p in parameters])
    waiting = None
    with torch.no_grad():
        for gradients in _buckets([_gradient(p) for p, is_there in zip(parameters, present, strict=True) if is_there]):
            begun = _begin(gradients)
            if waiting:
                _finish(*waiting)
            waiting = begun
        if waiting:
            _finish(*waiting)


def _gradient(parameter: Any) -> Any:
    import torch

    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    elif parameter.grad.is_sparse:
        parameter.grad = parameter.grad.to_dense()
    return parameter.grad


def _buckets(gradients: list[Any]) -> Iterator[list[Any]]:
    """Yield runs of gradients of one kind that are not too large together."""
    bucket: list[Any] = []
    num_bytes = 0
    for gradient in gradients:
        size = gradient.numel() * gradient.element_size()
        if bucket and (num_bytes + size > GRADIENT_BUCKET_BYTES or _kind(gradient) != _kind(bucket[0])):
            yield bucket
            bucket, num_bytes = [], 0
        bucket.append(gradient)
        num_bytes += size
    if bucket:
        yield bucket


def _kind(tensor: Any) -> tuple[Any, Any]:
    return tensor.dtype, tensor.device


def _begin(gradients: list[Any]) -> tuple[Any, Any, list[Any]]:
    """Start summing; returns what to wait for, the flat sum and where it goes."""
    import torch

    alone = len(gradients) == 1 and gradients[0].is_contiguous()
    flat = gradients[0].view(-1) if alone else torch.cat([gradient.reshape(-1) for gradient in gradients])
    return torch.distributed.all_reduce(flat, async_op=True), flat, [] if alone else gradients


def _finish(work: Any, flat: Any, gradients: list[Any]) -> None:
    import torch

    work.wait()
    if gradients:
        parts = flat.split([gradient.numel() for gradient in gradients])
        torch._foreach_copy_(
            gradients, [part.view_as(gradient) for part, gradient in zip(parts, gradients, strict=True)]
        )
