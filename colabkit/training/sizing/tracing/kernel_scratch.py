"""Scratch of convolution kernels, used inside and given back before they return: tensors in another layout."""

from __future__ import annotations

from typing import Any

import torch

from colabkit.training.sizing.tracing.accounting import rounded

FORWARD = torch.ops.aten.convolution.default
BACKWARD = torch.ops.aten.convolution_backward.default
BLOCK_CHANNELS = 16


def scratch_bytes(operator: Any, args: tuple, result: Any, *, on_gpu: bool) -> int:
    """Return the bytes beside arguments and results that the operator holds at worst; 0 for what is no convolution.

    GPU: fast kernels want channels last; cuDNN brings input, weights and output into that layout in its workspace. CPU:
    oneDNN does alike, and what torch's profiler records of it is what is given here.
    """
    if operator is FORWARD:
        data, weight, transposed, out = args[0], _bytes(args[1]), args[6], _in_blocks(result)
        once = _copied(data) + _bytes(data) + weight + out
        if on_gpu:
            return once
        return _copied(data) + 2 * out if transposed else max(once - _bytes(result), _copied(data) + out)
    if operator is BACKWARD:
        grad_out, data, weight, transposed, wanted = args[0], args[1], _bytes(args[2]), args[7], args[10]
        copied = _copied(grad_out) + _copied(data)
        once = copied + _in_blocks(grad_out) + _bytes(data) + weight
        if on_gpu or transposed or not wanted[0]:
            return once
        return max(once + _in_blocks(grad_out), copied + 2 * _bytes(data))
    return 0


def _copied(tensor: torch.Tensor) -> int:
    """Return the bytes of the copy that a tensor with other strides needs first."""
    return 0 if tensor.is_contiguous() else _bytes(tensor)


def _in_blocks(tensor: torch.Tensor) -> int:
    """Return the bytes of a tensor (B, C, ...) whose channels are filled up to whole blocks."""
    return _bytes(tensor) * -(-tensor.shape[1] // BLOCK_CHANNELS) * BLOCK_CHANNELS // tensor.shape[1]


def _bytes(tensor: torch.Tensor) -> int:
    return rounded(tensor.numel() * tensor.element_size())
