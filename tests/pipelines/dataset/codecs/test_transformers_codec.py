"""Codecs of transformers: each wave of a batch gets the codes that the documented call gives it alone."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

from colabkit.core.errors import DataError
from colabkit.io.models.transformers_models import broken_companions_masked
from colabkit.pipelines.dataset.codecs import transformers_codec
from tests.pipelines.dataset.codecs.small_models import KINDS, WAVE_ONLY, alone, batch_of, speech
from tests.told import Told


def has_torchaudio() -> bool:
    with broken_companions_masked():
        return importlib.util.find_spec("torchaudio") is not None


@pytest.mark.parametrize("frames", (1, 2, 7, 8, 25, 90))
@pytest.mark.parametrize("kind", KINDS)
def test_codes_in_a_batch_are_those_of_the_documented_call_alone(kind, frames, opened_exactly, folders):
    if kind not in WAVE_ONLY and not has_torchaudio():
        pytest.skip("transformers' feature extractors of NeuCodec and X-codec2 need torchaudio")
    codec = opened_exactly(kind)
    waves = batch_of(codec, frames)
    for wave, codes in zip(waves, codec.encode_batch(waves), strict=True):
        assert codes.dtype == np.uint16
        np.testing.assert_array_equal(codes, alone(kind, folders(kind), wave))


@pytest.mark.parametrize("kind", KINDS)
def test_a_wave_has_the_same_codes_in_every_company(kind, opened_exactly):
    codec = opened_exactly(kind)
    waves = batch_of(codec, 40)
    together = codec.encode_batch(waves)
    assert {tuple(codes.shape) for codes in together} == {(codec.num_codebooks, 40)}
    assert len(np.unique(np.concatenate(together, 1))) > 20, "codes that hardly vary prove nothing"
    for wave, codes in zip(waves, together, strict=True):
        np.testing.assert_array_equal(codec.encode_batch([wave])[0], codes)


@pytest.mark.parametrize("kind", KINDS)
def test_decoded_waves_are_those_of_the_model_and_of_the_right_length(kind, opened):
    codec = opened(kind)
    codes = codec.encode_batch(batch_of(codec, 30)[:2]) + codec.encode_batch(batch_of(codec, 12)[:1])
    waves = codec.decode_batch(codes)
    for array, wave in zip(codes, waves, strict=True):
        assert wave.dtype == np.float32 and wave.ndim == 1 and np.isfinite(wave).all()
        expected = array.shape[1] / codec.frame_rate_hz * codec.rate_hz_out
        assert abs(len(wave) - expected) < 0.1 * codec.rate_hz_out / codec.frame_rate_hz
        np.testing.assert_allclose(codec.decode_batch([array])[0], wave, atol=1e-4 * max(1.0, np.abs(wave).max()))


def test_an_empty_batch_is_an_empty_answer(opened):
    assert opened("dac").encode_batch([]) == [] and opened("dac").decode_batch([]) == []


def test_when_memory_runs_out_the_batch_is_halved_and_the_limit_remembered(opened, monkeypatch):
    told = Told()
    codec = opened("mimi", teller=told)
    waves = [speech(24_000, 24_000, seed=i) for i in range(8)]
    expected = codec.encode_batch(waves)
    encode, sizes = codec.family.encode, []

    def short_of_memory(model, batch, device):
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return encode(model, batch, device)

    monkeypatch.setattr(codec.family, "encode", short_of_memory)
    for codes, right in zip(codec.encode_batch(waves), expected, strict=True):
        np.testing.assert_array_equal(codes, right)
    assert sizes == [8, 4, 2, 2, 2, 2] and codec.most_seconds() == 2.0 and len(told.said) == 2
    sizes.clear()
    codec.encode_batch(waves)
    assert sizes == [2, 2, 2, 2]


def test_one_segment_that_does_not_fit_says_so(opened, monkeypatch):
    codec = opened("dac", teller=Told())
    monkeypatch.setattr(
        codec.family, "encode", lambda *a: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory"))
    )
    with pytest.raises(DataError, match="too long") as caught:
        codec.encode_batch([speech(24_000)])
    assert "memory" in str(caught.value) and "shorter segments" in caught.value.fix


def test_another_error_is_not_taken_for_a_lack_of_memory(opened, monkeypatch):
    codec = opened("dac")
    monkeypatch.setattr(codec.family, "encode", lambda *a: (_ for _ in ()).throw(RuntimeError("shape mismatch")))
    with pytest.raises(RuntimeError, match="shape mismatch"):
        codec.encode_batch([speech(24_000)])


def test_a_wave_beyond_what_the_model_counts_is_refused_before_work(opened, monkeypatch):
    codec = opened("mimi")
    monkeypatch.setattr(codec.family, "most_samples", 24_000)
    with pytest.raises(DataError, match="too long") as caught:
        codec.encode_batch([speech(24_001, 24_000)])
    assert "1 s" in str(caught.value)


def test_how_much_at_once_is_chosen_with_its_reason(opened):
    told = Told()
    codec = opened("mimi", teller=told)
    assert codec.most_seconds() == 8.0 == codec.most_seconds()
    assert [(name, value) for name, value, _ in told.choices] == [("codec.seconds_at_once", 8.0)]
    assert "CPU" in told.choices[0][2]


def test_tf32_is_set_for_the_work_only(monkeypatch):
    seen = torch.backends.cudnn.allow_tf32
    with transformers_codec._tf32(torch.device("cuda"), not seen):
        assert torch.backends.cudnn.allow_tf32 is not seen
    assert torch.backends.cudnn.allow_tf32 is seen


def test_half_precision_gives_codes_of_the_same_shape(opened):
    wave = speech(24_000, 24_000)
    assert opened("dac", precision="bf16").encode_batch([wave])[0].shape == opened("dac").encode_batch([wave])[0].shape
