"""What convolutions use inside, against torch's own record of allocations on a CPU."""

import pytest
import torch
from torch import nn

from colabkit.training.sizing.tracing.accounting import Meter
from colabkit.training.sizing.tracing.kernel_scratch import BACKWARD, FORWARD, scratch_bytes
from tests.training.sizing.real_steps import peak_of_events

PAD_BYTES = 252 * 1024  # that oneDNN takes for convolutions in groups beside, on CPUs of 2023 and later (2 threads)


@pytest.fixture(autouse=True)
def two_threads():
    """What oneDNN takes depends on how many there are, and a test before may have left another number."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


class Watching(Meter):
    """Notes what a convolution is said to take beside its arguments, results included."""

    def _done(self, operator, args, result):
        if operator in (FORWARD, BACKWARD):
            made = [part for part in (result if isinstance(result, tuple) else [result]) if part is not None]
            self.told = sum(part.nbytes for part in made) + scratch_bytes(operator, args, result, on_gpu=False)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv1d(64, 64, 3, 2), (2, 64, 8000)),
        (nn.Conv1d(1, 64, 15, 4, 7), (2, 1, 11840)),
        (nn.ConvTranspose1d(32, 16, 16, 8, 4), (2, 32, 1480)),
        (nn.Conv1d(64, 64, 41, 4, 20, groups=4), (2, 64, 2960)),
    ],
    ids=["plain", "one channel", "transposed", "in groups"],
)
def test_agrees_with_what_the_profiler_records(layer, shape):
    x = torch.randn(shape, requires_grad=True)
    forward = peak_of_events(lambda: layer(x))
    out = layer(x)
    grad = torch.ones_like(out)
    backward = peak_of_events(lambda: out.backward(grad))
    with Watching() as meter:
        out = layer(x)
        with_pad = meter.told + PAD_BYTES if layer.groups > 1 else meter.told
        assert forward in (pytest.approx(meter.told, rel=0.05), pytest.approx(with_pad, rel=0.01))
        out.backward(grad)
        assert meter.told == pytest.approx(backward, rel=0.2)


def test_an_input_of_other_strides_is_copied_first():
    layer = nn.Conv1d(64, 64, 3)
    plain = torch.randn(2, 64, 1000)
    turned = torch.randn(2, 1000, 64).transpose(1, 2)
    told = [
        scratch_bytes(FORWARD, (x, layer.weight, None, [1], [0], [1], False), layer(x), on_gpu=True)
        for x in (plain, turned)
    ]
    assert told[1] - told[0] == plain.nbytes
    assert told[0] >= plain.nbytes + layer(plain).nbytes


def test_other_operators_take_nothing():
    x = torch.zeros(4, 4)
    assert scratch_bytes(torch.ops.aten.mm.default, (x, x), x @ x, on_gpu=True) == 0
