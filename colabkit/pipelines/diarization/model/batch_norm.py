"""Batch normalisation over the windows of all processes, so that a batch means the same however it is shared out.

torch's own SyncBatchNorm works on GPUs alone, and leaves all others waiting when memory runs out in one process.

Axes: B batch, D channel, G frame, R rank.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from colabkit.training.processes.meeting import Meeting
from colabkit.training.processes.ranks import Ranks


def over_all_ranks(model: nn.Module, ranks: Ranks, device: torch.device) -> Meeting:
    """Let a model's batch norms take their statistics from every process, and return where they meet.

    Parameters and names stay. The guard of the training step agrees through the meeting.
    """
    norms = [module for module in model.modules() if type(module) is nn.BatchNorm1d]
    meeting = Meeting(ranks, num_values=max((2 * norm.num_features + 1 for norm in norms), default=0), device=device)
    for norm in norms:
        norm.__class__, norm.meeting = RanksBatchNorm1d, meeting
    return meeting


class RanksBatchNorm1d(nn.BatchNorm1d):
    """nn.BatchNorm1d of (B, D, G), in training normalised by the mean and variance over all processes.

    Statistics are in float32, whatever the precision of the input, as in torch's.
    """

    meeting: Meeting

    def forward(self, x_BDG: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(x_BDG)
        out_BDG, mean_D, variance_D, count = _Normalise.apply(x_BDG, self.weight, self.bias, self.eps, self.meeting)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean_D, self.momentum)
            self.running_var.lerp_(variance_D * (count / (count - 1)), self.momentum)
        return out_BDG


class _Normalise(torch.autograd.Function):
    """One exchange forward, one backward; keeps the input and two numbers a channel, as torch's does."""

    @staticmethod
    def forward(
        context: Any, x_BDG: torch.Tensor, weight_D: torch.Tensor, bias_D: torch.Tensor, eps: float, meeting: Meeting
    ) -> tuple[torch.Tensor, ...]:
        wide_BDG = x_BDG.float()
        size = x_BDG.shape[0] * x_BDG.shape[2]
        variance_D, mean_D = torch.var_mean(wide_BDG, (0, 2), correction=0)
        told = meeting.gather(torch.cat([mean_D, variance_D, mean_D.new_full((1,), size)]))
        mean_RD, variance_RD, count_R1 = told.split([len(mean_D), len(mean_D), 1], dim=1)
        count = count_R1.sum()
        mean_D = (count_R1 * mean_RD).sum(0) / count
        variance_D = (count_R1 * (variance_RD + (mean_RD - mean_D).square())).sum(0) / count  # Chan et al. 1979
        scale_D = torch.rsqrt(variance_D + eps)
        context.save_for_backward(x_BDG, weight_D, mean_D, scale_D, count)
        context.meeting = meeting
        out_BDG = (wide_BDG - mean_D[:, None]) * (scale_D * weight_D)[:, None] + bias_D[:, None]
        context.mark_non_differentiable(mean_D, variance_D, count)
        return out_BDG.to(x_BDG.dtype), mean_D, variance_D, count

    @staticmethod
    def backward(context: Any, gradient_BDG: torch.Tensor, *_: object) -> tuple[torch.Tensor | None, ...]:
        x_BDG, weight_D, mean_D, scale_D, count = context.saved_tensors
        gradient_BDG = gradient_BDG.float()
        normal_BDG = (x_BDG.float() - mean_D[:, None]) * scale_D[:, None]
        bias_gradient_D, weight_gradient_D = gradient_BDG.sum((0, 2)), (gradient_BDG * normal_BDG).sum((0, 2))
        sums_D, products_D = context.meeting.gather(torch.cat([bias_gradient_D, weight_gradient_D])).sum(0).chunk(2)
        centred_BDG = gradient_BDG - (sums_D / count)[:, None] - normal_BDG * (products_D / count)[:, None]
        return (
            (centred_BDG * (scale_D * weight_D)[:, None]).to(x_BDG.dtype),
            weight_gradient_D,
            bias_gradient_D,
            None,
            None,
        )
