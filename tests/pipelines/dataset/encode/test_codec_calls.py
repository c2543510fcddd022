"""What a codec cannot do is told from what a device cannot do any more."""

from __future__ import annotations

import numpy as np
import pytest

from colabkit.core.errors import StateError
from colabkit.pipelines.dataset.encode.codec_calls import Encoder
from tests.pipelines.dataset.encode.small_codec import SmallCodec, codes_for, make_wave

WAVES = [make_wave(i, 3200) for i in range(8)]


def test_a_wave_that_breaks_the_codec_does_not_break_the_others():
    def before(waves):
        if any(wave is WAVES[3] for wave in waves):
            raise ValueError("too strange\nfor words")

    results = Encoder(SmallCodec(before=before)).encode(WAVES, 10)
    assert results[3] == "the codec fails on it: ValueError: too strange"
    for i in (0, 1, 2, 4, 5, 6, 7):
        assert np.array_equal(results[i], codes_for(WAVES[i]))


def test_a_device_that_fails_on_everything_ends_the_run():
    broken = []

    def before(waves):
        if broken:
            raise RuntimeError("CUDA error: device-side assert triggered")

    encoder = Encoder(SmallCodec(before=before))
    encoder.encode(WAVES, 10)
    broken.append(True)
    with pytest.raises(StateError, match="codec fails on everything"):
        encoder.encode(WAVES, 10)


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("CUDA out of memory. Tried to allocate"), RuntimeError("MPS backend out of memory")],
)
def test_batches_are_halved_until_they_fit_and_it_is_remembered(error):
    sizes, said = [], []

    def before(waves):
        sizes.append(len(waves))
        if len(waves) > 2:
            raise error

    encoder = Encoder(SmallCodec(before=before), say=said.append)
    results = encoder.encode(WAVES, 10)
    assert all(np.array_equal(codes, codes_for(wave)) for codes, wave in zip(results, WAVES, strict=True))
    sizes.clear()
    encoder.encode(WAVES, 10)
    assert max(sizes) <= 2 and len(said) == 2


def test_codes_of_another_shape_are_not_taken():
    class Wrong(SmallCodec):
        def encode_batch(self, waves):
            return [codes[:, :-1] for codes in super().encode_batch(waves)]

    assert "codes of shape (2, 9) instead of (2, 10)" in Encoder(Wrong()).encode(WAVES[:1], 10)[0]
