"""Batch norms over all processes: what torch's do with the whole batch in one."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn

from colabkit.pipelines.diarization.model.batch_norm import RanksBatchNorm1d, over_all_ranks
from colabkit.pipelines.diarization.model.losses import DiarizationLoss
from colabkit.training.processes.ranks import Ranks


@pytest.fixture(scope="module")
def group(tmp_path_factory):
    """A group of one process; that two agree is tested where two train."""
    store = dist.FileStore(str(tmp_path_factory.mktemp("store") / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def norms(model):
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm1d)]


def test_one_process_gets_what_torch_gives(group):
    torch.manual_seed(0)
    theirs = nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.Conv1d(4, 4, 1), nn.BatchNorm1d(4))
    nn.init.uniform_(theirs[1].weight, 0.5, 2.0)
    ours = copy.deepcopy(theirs)
    over_all_ranks(ours, Ranks(), torch.device("cpu"))
    assert [type(module) for module in norms(ours)] == [RanksBatchNorm1d] * 2
    for _ in range(3):
        wave = 5 + 3 * torch.randn(6, 3, 20)
        results = []
        for model in (ours, theirs):
            model.zero_grad()
            given = wave.clone().requires_grad_()
            out = model(given)
            out.pow(3).sum().backward()
            results.append([out.detach(), given.grad, *(p.grad for p in model.parameters())])
        for mine, expected in zip(*results, strict=True):
            torch.testing.assert_close(mine, expected, rtol=1e-3, atol=1e-3)
    for (name, mine), (_, expected) in zip(ours.named_buffers(), theirs.named_buffers(), strict=True):
        torch.testing.assert_close(mine, expected, msg=name)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    torch.testing.assert_close(ours.eval()(wave), theirs.eval()(wave), rtol=1e-4, atol=1e-4)


def test_all_batch_norms_of_the_network_are_found(group, make_model):
    model = make_model(num_blocks=2)
    names = list(model.state_dict())
    meeting = over_all_ranks(model, Ranks(), torch.device("cpu"))
    assert meeting.num_values == 2 * 16 + 1
    assert len(norms(model)) == 4 and all(type(module) is RanksBatchNorm1d for module in norms(model))
    assert list(model.state_dict()) == names
    loss = DiarizationLoss(model.powerset, 4, 8, 0.2)
    assert norms(loss) == [], "it has none: only the network is converted"


def test_statistics_are_in_float32_under_autocast(group):
    """In bfloat16 a sum over 8000 values would stand still long before its end."""
    torch.manual_seed(0)
    theirs, ours = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    over_all_ranks(nn.Sequential(ours), Ranks(), torch.device("cpu"))
    wave, weights = (4 + torch.randn(8, 3, 1000)).bfloat16(), torch.randn(8, 3, 1000).bfloat16()
    results = []
    for model, given in ((ours, wave.clone().requires_grad_()), (theirs, wave.float().requires_grad_())):
        with torch.autocast("cpu", torch.bfloat16, enabled=given.dtype == torch.bfloat16):
            out = model(given)
        assert out.dtype == given.dtype
        (out * weights).float().sum().backward()
        results.append(
            (out.float().detach(), given.grad.float(), model.weight.grad, model.running_mean, model.running_var)
        )
    for mine, expected in zip(*results, strict=True):
        assert float((mine - expected).norm() / expected.norm()) < 1e-2
    torch.testing.assert_close(ours.running_mean, theirs.running_mean, rtol=1e-5, atol=1e-6)
    assert ours.weight.grad.dtype == torch.float32
