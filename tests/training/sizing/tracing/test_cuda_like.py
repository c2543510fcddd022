"""What fake CPU tensors take when they take what CUDA's operators do; real tensors are left alone."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from colabkit.training.sizing.tracing.accounting import Meter
from colabkit.training.sizing.tracing.cuda_like import like_cuda, worst_case_shapes

MIB = 2**20


@pytest.fixture
def meter():
    with torch.random.fork_rng(devices=[]), worst_case_shapes(), like_cuda(), FakeTensorMode():
        meter = Meter()
        with meter:
            yield meter


def autocast():
    return torch.autocast("cpu", dtype=torch.bfloat16)


def grows(meter, make):
    before = meter.live_bytes
    made = make()
    return meter.live_bytes - before, made


def test_dropout_keeps_a_mask_of_bytes(meter):
    x = torch.zeros(MIB, requires_grad=True)
    grown, out = grows(meter, lambda: F.dropout(x, 0.1))
    assert grown == 4 * MIB + MIB
    assert grows(meter, lambda: F.dropout(x, 0.1, training=False))[0] == 0
    out.sum().backward()
    assert x.grad.shape == x.shape


def test_attention_makes_no_matrix_of_scores(meter):
    query = torch.zeros(2, 8, 1024, 64, dtype=torch.bfloat16, requires_grad=True)
    grown, out = grows(meter, lambda: F.scaled_dot_product_attention(query, query, query, dropout_p=0.1))
    sums = 2 * 8 * 1024 * 4
    assert grown == query.nbytes + sums and out.shape == query.shape
    meter.reset_peak()
    before = meter.live_bytes
    out.backward(torch.empty_like(out))
    # beside the output's gradient: those of query, key, value, the sums of the query's in float32 and of rows, and one
    # sum of two
    assert meter.peak_bytes - before <= 7 * query.nbytes + sums
    assert query.grad.shape == query.shape


def test_a_mask_of_bytes_becomes_one_of_numbers_padded_to_eight(meter):
    query = torch.zeros(2, 8, 100, 64, dtype=torch.bfloat16, requires_grad=True)
    mask = torch.ones(2, 1, 100, 100, dtype=torch.bool)
    without, first = grows(meter, lambda: F.scaled_dot_product_attention(query, query, query))
    grown, second = grows(meter, lambda: F.scaled_dot_product_attention(query, query, query, attn_mask=mask))
    assert grown - without == 41_984  # 2 x 100 x 104 x 2 bytes = 41600 in blocks of 512


@pytest.mark.parametrize(
    ("function", "dtype"),
    [
        (lambda x: F.layer_norm(x, (64,)), torch.float32),
        (lambda x: F.group_norm(x, 4), torch.float32),
        (lambda x: x.softmax(-1), torch.float32),
        (lambda x: x.log_softmax(-1), torch.float32),
        (lambda x: x.sum(), torch.float32),
        (lambda x: x**2, torch.float32),
        (lambda x: x.exp(), torch.float32),
        (lambda x: x.norm(), torch.float32),
        (lambda x: F.mse_loss(x, x), torch.float32),
        (lambda x: F.gelu(x), torch.bfloat16),
        (lambda x: x + x, torch.bfloat16),
        (lambda x: F.linear(x, torch.zeros(8, 64)), torch.bfloat16),
    ],
)
def test_autocast_moves_to_float32_what_it_does_on_cuda(meter, function, dtype):
    x = torch.zeros(16, 64, dtype=torch.bfloat16)
    with autocast():
        assert function(x).dtype == dtype
    if dtype == torch.float32:
        assert function(x).dtype == torch.bfloat16  # not outside of it


def test_layer_norm_under_autocast_keeps_its_input_in_float32(meter):
    x = torch.zeros(1024, 1024, dtype=torch.bfloat16, requires_grad=True)
    with autocast():
        grown, out = grows(meter, lambda: F.layer_norm(x, (1024,)))
    assert grown == 4 * MIB + 4 * MIB + 2 * 4096  # input, output, mean and deviation


@pytest.mark.parametrize("labels", [torch.ones(4, 10, dtype=torch.long), torch.ones(40, dtype=torch.long)])
def test_ctc_keeps_alpha_and_makes_beta(meter, labels):
    log_probs = torch.zeros(100, 4, 32, requires_grad=True)
    labels = torch.ones(labels.shape, dtype=torch.long)
    alpha = -(-4 * 100 * 21 * 4 // 512) * 512
    grown, loss = grows(meter, lambda: F.ctc_loss(log_probs, labels, torch.full((4,), 100), torch.full((4,), 10)))
    assert alpha <= grown <= alpha + 4 * 512
    meter.reset_peak()
    before = meter.live_bytes
    loss.backward()
    assert meter.peak_bytes - before >= alpha + log_probs.nbytes
    assert log_probs.grad.shape == log_probs.shape


def test_a_choice_by_data_takes_all(meter):
    x = torch.zeros(3, 4, requires_grad=True)
    picked = x.masked_select(torch.ones(3, 1, dtype=torch.bool))
    picked.sum().backward()
    assert picked.shape == (12,) and x.grad.shape == (3, 4)


@pytest.mark.parametrize(("layer", "gates"), [(nn.GRU, 3), (nn.LSTM, 4)])
def test_recurrent_layers_keep_the_gates_of_all_frames(meter, layer, gates):
    network = layer(32, 64, num_layers=2, bidirectional=True, batch_first=True)
    x = torch.zeros(4, 500, 32, requires_grad=True)
    grown, (out, _) = grows(meter, lambda: network(x))
    assert out.shape == (4, 500, 128)
    assert grown >= 4 * 500 * 64 * 4 * gates * 4
    out.sum().backward()
    assert all(weight.grad.shape == weight.shape for weight in network.parameters())
    with autocast():
        assert network(x)[0].dtype == torch.bfloat16


def test_real_tensors_go_on_as_before():
    torch.manual_seed(0)
    x, rows = torch.randn(4, 8), torch.tensor([True, False, True, True])
    query = torch.randn(1, 2, 5, 8)
    log_probs = torch.randn(20, 2, 6).log_softmax(-1)
    network = nn.GRU(8, 4)

    def results():
        torch.manual_seed(1)
        with autocast():
            low = F.layer_norm(x.bfloat16(), (8,)), x.bfloat16().softmax(-1)
        return (
            F.dropout(x, 0.5),
            F.scaled_dot_product_attention(query, query, query),
            x.masked_select(rows[:, None]),
            F.ctc_loss(log_probs, torch.ones(2, 3, dtype=torch.long), (20, 20), (3, 3)),
            network(x[:, None])[0],
            *low,
        )

    before = results()
    with like_cuda(), worst_case_shapes():
        within = results()
    after = results()
    for a, b, c in zip(before, within, after, strict=True):
        assert a.dtype == b.dtype == c.dtype
        assert torch.equal(a, b) and torch.equal(a, c)
