"""Waves of unlike length in one batch, each with the last frame it has alone.

A convolution that strides fills up the last, broken frame of its input: with zeros, or with what lies before the end.
In a batch the end of a shorter wave lies inside the tensor, so what is to be filled in is put there before every such
convolution. Nothing else of a causal encoder looks to the right. Axes: B wave, C channel, T time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

LEAST_FRAMES = 8  # of fewer, a layer's padding may be wider than what it pads: such waves are encoded by exact length


@contextmanager
def ended_alike(modules: Sequence[Any], lengths: Sequence[int]) -> Iterator[None]:
    """Make a causal encoder end each wave of a zero-padded batch where it ends.

    `modules`: all that a wave passes, in that order; convolutions among them have `conv` and `pad_mode`, as those of
    EnCodec and Mimi. All waves have as many frames, at least LEAST_FRAMES of them.
    """
    convolutions = [module for module in modules if _strides(module)]
    if len(set(lengths)) < 2:
        yield
        return
    ends = {"now": list(lengths)}

    def fill(module: Any, inputs: tuple) -> tuple:
        stride = module.conv.stride[0]
        filled = _filled(inputs[0], ends["now"], stride, module.pad_mode)
        ends["now"] = [-(-end // stride) for end in ends["now"]]
        return (filled, *inputs[1:])

    hooks = [module.register_forward_pre_hook(fill) for module in convolutions]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _strides(module: Any) -> bool:
    return hasattr(module, "pad_mode") and hasattr(module, "conv") and module.conv.stride[0] > 1


def _filled(x_BCT: Any, ends: Sequence[int], stride: int, mode: str) -> Any:
    """Return the batch up to a whole number of strides, with what follows each end as its padding mode has it."""
    import torch

    width = -(-max(ends) // stride) * stride
    start = min(ends)
    x_BCT = torch.nn.functional.pad(x_BCT, (0, width - x_BCT.shape[-1]))
    position_1T = torch.arange(start, width, device=x_BCT.device)[None]
    end_B1 = torch.tensor(ends, device=x_BCT.device)[:, None]
    last_B1 = end_B1 - 1
    if mode == "reflect":
        after = (2 * last_B1 - position_1T).clamp_min(0)
    else:
        after = last_B1.expand(-1, position_1T.shape[1])
    source_BT = torch.where(position_1T < end_B1, position_1T, after)
    tail_BCT = x_BCT.gather(2, source_BT[:, None].expand(-1, x_BCT.shape[1], -1))
    if mode not in ("reflect", "replicate"):  # "constant" and "zero"
        tail_BCT = tail_BCT * (position_1T < end_B1)[:, None]
    return torch.cat([x_BCT[..., :start], tail_BCT], -1)
