"""Batch normalisation over the windows of all processes, so that a batch means the same however it is shared out.

Axes: B batch, D channel, G frame.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn


def over_all_ranks(model: nn.Module) -> nn.Module:
    """Return the model with its batch norms taking their statistics from every process; parameters and names stay.

    torch's own does so on GPUs alone; on CPUs ours does.
    """
    if torch.cuda.is_available():
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        if type(module) is nn.BatchNorm1d:
            module.__class__ = CpuSyncBatchNorm1d
    return model


class CpuSyncBatchNorm1d(nn.BatchNorm1d):
    """nn.BatchNorm1d of (B, D, G), in training normalised by the mean and variance over all processes."""

    def forward(self, x_BDG: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(x_BDG)
        size = torch.tensor([x_BDG.shape[0] * x_BDG.shape[2]], dtype=x_BDG.dtype)
        totals = _Sum.apply(torch.cat([x_BDG.sum((0, 2)), size]))
        mean_D, count = totals[:-1] / totals[-1], totals[-1].detach()
        centred_BDG = x_BDG - mean_D[:, None]
        variance_D = _Sum.apply(centred_BDG.square().sum((0, 2))) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean_D, self.momentum)
            self.running_var.lerp_(variance_D * (count / (count - 1)), self.momentum)
        scale_D = self.weight * torch.rsqrt(variance_D + self.eps)
        return centred_BDG * scale_D[:, None] + self.bias[:, None]


class _Sum(torch.autograd.Function):
    """The sum over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(context, value: torch.Tensor) -> torch.Tensor:
        value = value.clone()
        dist.all_reduce(value)
        return value

    @staticmethod
    def backward(context, gradient: torch.Tensor) -> torch.Tensor:
        gradient = gradient.clone()
        dist.all_reduce(gradient)
        return gradient
