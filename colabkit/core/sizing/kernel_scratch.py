"""What kernels of convolutions use inside of themselves and give back before they return: tensors in the layout that suits them."""

from __future__ import annotations

from typing import Any

import torch

from colabkit.core.sizing.accounting import rounded

FORWARD = torch.ops.aten.convolution.default
BACKWARD = torch.ops.aten.convolution_backward.default


def scratch_bytes(operator: Any, args: tuple, result: Any, *, on_gpu: bool) -> int:
    """Return the bytes beside arguments and results that the operator holds at its worst moment; 0 for what is no convolution.

    GPU: fast kernels want channels last; cuDNN brings input, weights and output into that layout in its workspace. CPU: oneDNN
    does alike, and what torch's profiler records of it is what is given here.
    """
    if operator is FORWARD:
        data, weight, transposed, out = _bytes(args[0]), _bytes(args[1]), args[6], _bytes(result)
        if on_gpu:
            return data + weight + out
        return 2 * out if transposed else max(data + weight, out)
    if operator is BACKWARD:
        grad_out, data, weight, transposed, wanted = _bytes(args[0]), _bytes(args[1]), _bytes(args[2]), args[7], args[10]
        once = data + grad_out + weight
        return once if on_gpu or transposed or not wanted[0] else once + grad_out
    return 0


def _bytes(tensor: torch.Tensor) -> int:
    return rounded(tensor.numel() * tensor.element_size())
