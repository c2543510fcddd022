"""Numbers of any kind become the same wave; what would be wrong by a factor, or not finite, is refused."""

from __future__ import annotations

import numpy as np
import pytest

from colabkit.core.errors import DataError
from colabkit.pipelines.dataset.segments.pcm import series_shape, to_wave

WAVE = (np.sin(np.arange(4_000) / 9) * 0.5).astype(np.float32)
PCM16 = np.round(WAVE * 32_768).astype(np.int16)


@pytest.mark.parametrize(
    "array",
    [
        WAVE,
        WAVE.astype(np.float64),
        WAVE.astype(np.float16),
        WAVE.astype(">f4"),
        PCM16,
        PCM16.astype(">i2"),
        PCM16.astype(np.int32) << 16,
        WAVE[None],
        WAVE[:, None],
        PCM16[None, :, None],
    ],
)
def test_all_kinds_are_one_wave(array):
    wave, num_channels = to_wave(array, "t")
    assert wave.dtype == np.float32 and wave.shape == WAVE.shape and num_channels == 1
    assert np.abs(wave - WAVE).max() <= (3e-4 if array.dtype == np.float16 else 2e-5)


def test_float32_is_not_copied():
    assert np.shares_memory(to_wave(WAVE, "t")[0], WAVE)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_channels_are_averaged_and_told(axis, dtype):
    scaled = PCM16 if dtype == np.int16 else WAVE
    wave, num_channels = to_wave(np.stack([scaled, np.zeros_like(scaled)], axis), "t")
    assert num_channels == 2 and np.allclose(wave, WAVE / 2, atol=2e-5)


def test_a_slight_overshoot_is_cut_off():
    wave, _ = to_wave(np.array([0.5, 1.2, -1.3], np.float32), "t")
    assert wave.tolist() == [0.5, 1.0, -1.0]


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.array([0.1, np.nan]), "NaN"),
        (np.array([np.inf, 0.1]), "NaN or infinite"),
        (np.array([0.1, -np.inf], np.float16), "NaN"),
        (PCM16.astype(np.float32), "range"),
        (PCM16.astype(np.int32), "range"),
        (PCM16.astype(np.int64), "type"),
        (np.zeros(9, np.uint8), "type"),
        (np.zeros(9, complex), "type"),
        (np.array(["a"]), "type"),
        (np.zeros(0, np.float32), "no samples"),
        (np.zeros((0, 2)), "no samples"),
        (np.zeros((100, 90), np.float32), "shape"),
        (np.zeros((4, 5, 6), np.float32), "shape"),
        (np.zeros((2, 2), np.float32), "shape"),
    ],
)
def test_what_cannot_be_a_wave_is_told(array, said):
    with pytest.raises(DataError, match=said) as caught:
        to_wave(array, "here.npz")
    assert caught.value.fix and "here.npz" in str(caught.value)


def test_silence_of_any_kind_is_silence():
    for dtype in (np.float32, np.int16, np.int32):
        assert not to_wave(np.zeros(100, dtype), "t")[0].any()


def test_shapes_are_understood_without_the_samples():
    assert series_shape((9,), "t") == ((9,), None) and series_shape((1, 900), "t") == ((900,), None)
    assert series_shape((900, 2), "t") == ((900, 2), 1) and series_shape((2, 900), "t") == ((2, 900), 0)
    assert series_shape((1,), "t") == ((1,), None) and series_shape((), "t") == ((1,), None)
