"""Waves of unlike length in one batch: what a convolution fills in behind the end of each is what it fills in alone."""

from __future__ import annotations

import pytest
import torch

from colabkit.pipelines.dataset.codecs.ragged import _filled, ended_alike


class Causal(torch.nn.Module):
    """A convolution that pads its input by itself, as those of EnCodec and Mimi do."""

    def __init__(self, stride: int, pad_mode: str):
        super().__init__()
        self.conv, self.pad_mode = torch.nn.Conv1d(3, 3, 2 * stride, stride), pad_mode

    def forward(self, x):
        stride = self.conv.stride[0]
        return self.conv(torch.nn.functional.pad(x, (stride, -x.shape[-1] % stride), self.pad_mode))


@pytest.mark.parametrize("mode", ("constant", "replicate", "reflect"))
def test_every_wave_ends_as_it_does_alone(mode):
    torch.manual_seed(0)
    encoder = torch.nn.Sequential(
        Causal(4, mode), torch.nn.ELU(), Causal(1, mode), Causal(5, mode), Causal(2, mode)
    ).double()
    lengths = [400, 361, 390, 399, 381]
    waves = [torch.randn(3, length, dtype=torch.float64) for length in lengths]
    batch = torch.stack([torch.nn.functional.pad(wave, (0, 400 - wave.shape[1])) for wave in waves])
    with torch.inference_mode():
        with ended_alike(encoder, lengths):
            together = encoder(batch)
        padded = encoder(batch)
        assert together.shape[-1] == 10
        for wave, found, plain in zip(waves, together, padded, strict=True):
            alone = encoder(wave[None])[0]
            torch.testing.assert_close(found, alone, rtol=0, atol=1e-12)
            if wave.shape[1] == 361 and mode != "constant":
                assert (plain - alone).abs().max() > 1e-3
    assert not any(module._forward_pre_hooks for module in encoder.modules())


def test_hooks_are_taken_off_after_an_error():
    encoder = torch.nn.Sequential(Causal(4, "constant"))
    with pytest.raises(RuntimeError, match="in between"), ended_alike(encoder, [5, 8]):
        assert encoder[0]._forward_pre_hooks
        raise RuntimeError("in between")
    assert not encoder[0]._forward_pre_hooks


def test_what_is_behind_an_end():
    x = torch.arange(1.0, 9.0)[None, None].repeat(2, 1, 1)
    assert _filled(x, [8, 6], 4, "constant")[1, 0].tolist() == [1, 2, 3, 4, 5, 6, 0, 0]
    assert _filled(x, [8, 6], 4, "replicate")[1, 0].tolist() == [1, 2, 3, 4, 5, 6, 6, 6]
    assert _filled(x, [8, 6], 4, "reflect")[1, 0].tolist() == [1, 2, 3, 4, 5, 6, 5, 4]
    assert _filled(x, [7, 6], 4, "reflect")[0, 0].tolist() == [1, 2, 3, 4, 5, 6, 7, 6]
