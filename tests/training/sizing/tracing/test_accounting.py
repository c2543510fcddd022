"""What the meter counts: real tensors and fake ones, forward and backward, with a budget and without."""

import gc

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

from colabkit.training.sizing.tracing.accounting import Meter, rounded


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 256), nn.GELU(), nn.Linear(256, 8))


def test_counts_what_is_made_and_dropped_once_for_all_views():
    with Meter() as meter:
        x = torch.zeros(1000)  # 4000 bytes: 4096
        views = [x[10:], x.view(10, 100), x.detach(), x.t()]
        assert meter.live_bytes == 4096
        y = x + 1
        assert meter.live_bytes == 2 * 4096
        x += 1  # in place: nothing new
        assert meter.live_bytes == 2 * 4096
        del x, y
        assert meter.live_bytes == 4096
        del views
        assert (meter.live_bytes, meter.peak_bytes) == (0, 2 * 4096)
        meter.reset_peak()
        assert meter.peak_bytes == 0


def test_what_was_there_before_counts_only_when_held():
    x = torch.zeros(1000)
    with Meter() as meter:
        view = x.view(-1)
        x.add_(1)
        assert meter.live_bytes == 0
        meter.hold([x, view])
        assert meter.live_bytes == 4096
    del x
    assert meter.live_bytes == 4096
    del view
    assert meter.live_bytes == 0


@pytest.mark.parametrize(("asked", "given"), [(0, 0), (1, 512), (512, 512), (513, 1024)])
def test_rounds_as_cuda_does(asked, given):
    assert rounded(asked) == given


def test_a_resized_storage_counts_as_it_is():
    with Meter() as meter:
        x = torch.zeros(100)
        x.resize_(1000)
        assert meter.live_bytes == 4096
        del x
        assert meter.live_bytes == 0


def train(model, optimizer, x, *, checkpointed=False):
    hidden = checkpoint(model, x, use_reentrant=False) if checkpointed else model(x)
    hidden.square().mean().backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_training_step_leaves_what_stays(checkpointed):
    model = network()
    optimizer = torch.optim.AdamW(model.parameters())
    meter = Meter()
    meter.hold(model.parameters())
    weights = meter.live_bytes
    assert weights == sum(rounded(p.nbytes) for p in model.parameters())
    with meter:
        train(model, optimizer, torch.randn(32, 64), checkpointed=checkpointed)
        after_one = meter.live_bytes
        peaks = []
        for _ in range(3):
            meter.reset_peak()
            train(model, optimizer, torch.randn(32, 64), checkpointed=checkpointed)
            peaks.append(meter.peak_bytes)
            assert meter.live_bytes == after_one
    assert peaks[0] == peaks[1] == peaks[2]
    states = sum(rounded(v.nbytes) for s in optimizer.state.values() for v in s.values())
    assert after_one == weights + states


def test_fake_and_real_tensors_count_the_same():
    def step(meter):
        model = network()
        optimizer = torch.optim.AdamW(model.parameters())
        meter.hold(model.parameters())
        with meter:
            for _ in range(2):
                train(model, optimizer, torch.randn(32, 64))
        return meter.peak_bytes

    with FakeTensorMode():
        fake = step(Meter())
    assert fake == step(Meter())


def test_going_over_the_budget_in_forward():
    model, x = network(), torch.randn(512, 64)
    meter = Meter(budget_bytes=2**20)
    with meter:
        with pytest.raises(torch.OutOfMemoryError, match=r"CUDA out of memory\. Tried to allocate 0\.50 MiB"):
            model(x)
        gc.collect()
        assert meter.live_bytes == 0 and meter.peak_bytes <= meter.budget_bytes
        model(x[:64]).sum().backward()  # what fits goes on
    assert meter.num_refused == 1


def test_going_over_the_budget_in_backward_reaches_its_caller():
    model, x = network(), torch.randn(512, 64)
    with Meter() as meter:
        loss = model(x).square().mean()
        forward = meter.peak_bytes
        del loss
    meter = Meter(budget_bytes=forward)
    with meter:
        loss = model(x).square().mean()
        with pytest.raises(torch.OutOfMemoryError):
            loss.backward()
        del loss
        model.zero_grad(set_to_none=True)
        gc.collect()
        assert meter.live_bytes == 0
        for _ in range(20):  # refused again and again, nothing stays behind
            with pytest.raises(torch.OutOfMemoryError):
                model(x).square().mean().backward()
            model.zero_grad(set_to_none=True)
    gc.collect()
    assert meter.live_bytes == 0 and meter.num_refused == 21


def test_going_over_in_a_layer_that_is_computed_again():
    model, x = network(), torch.randn(512, 64)
    meter = Meter(budget_bytes=2**20 + 2**19 + 2**14)
    with meter:
        loss = checkpoint(model, x, use_reentrant=False).square().mean()
        with pytest.raises(torch.OutOfMemoryError):
            loss.backward()
        del loss
        model.zero_grad(set_to_none=True)
    gc.collect()
    assert meter.live_bytes == 0


def test_events_balance_and_tell_the_peak():
    model = network()
    meter = Meter(keep_events=True)
    with meter:
        model(torch.randn(32, 64)).sum().backward()
        model.zero_grad(set_to_none=True)
    live = peak = 0
    for _, size in meter.events:
        live += size
        peak = max(peak, live)
    assert (live, peak) == (meter.live_bytes, meter.peak_bytes) and live == 0


def test_sparse_gradients_count():
    table = nn.Embedding(1000, 16, sparse=True)
    with Meter() as meter:
        table(torch.arange(10)).sum().backward()
        assert meter.live_bytes >= 10 * 16 * 4
        table.zero_grad(set_to_none=True)
    assert meter.live_bytes == 0
