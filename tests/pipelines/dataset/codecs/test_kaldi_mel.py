"""Mel features: equal to torchaudio's where it imports, close to transformers' everywhere, the same in every batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from colabkit.pipelines.dataset.codecs import kaldi_mel
from tests.pipelines.dataset.codecs.small_models import speech
from tests.pipelines.dataset.codecs.test_transformers_codec import has_torchaudio


@pytest.mark.parametrize("num_samples", (640, 3_200, 32_000))
def test_features_are_those_of_torchaudio_to_the_bit(num_samples):
    if not has_torchaudio():
        pytest.skip("no torchaudio that imports")
    from torchaudio.compliance.kaldi import fbank

    waves = torch.from_numpy(np.stack([speech(num_samples, seed=i) for i in range(5)]))
    for wave, ours in zip(waves, kaldi_mel.normalised_log_mels(waves), strict=True):
        theirs = fbank(
            wave[None] * 2**15,
            num_mel_bins=80,
            window_type="povey",
            sample_frequency=16_000,
            low_freq=20,
            high_freq=8_000,
        )
        torch.testing.assert_close(ours, (theirs - theirs.mean(0)) / torch.sqrt(theirs.var(0) + 1e-7), rtol=0, atol=0)


@pytest.mark.parametrize("num_samples", (640, 3_200, 48_000))
def test_features_are_close_to_those_computed_in_float64(num_samples):
    from transformers import SeamlessM4TFeatureExtractor

    wave = speech(num_samples, seed=3)
    theirs = SeamlessM4TFeatureExtractor()(wave, sampling_rate=16_000, return_tensors="pt").input_features[0]
    ours = kaldi_mel.normalised_log_mels(torch.from_numpy(wave)[None])[0]
    assert len(ours) == kaldi_mel.num_mel_frames(num_samples)
    torch.testing.assert_close(ours.reshape(theirs.shape), theirs, rtol=0, atol=2e-2)
    assert (ours.reshape(theirs.shape) - theirs).abs().median() < 1e-4


@pytest.mark.parametrize("num_samples", (640, 3_200, 48_000))
def test_features_are_those_of_kaldi(num_samples):
    knf = pytest.importorskip("kaldi_native_fbank")
    options = knf.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.window_type = "povey"
    options.mel_opts.num_bins, options.mel_opts.high_freq = kaldi_mel.NUM_MELS, 8_000
    kaldi = knf.OnlineFbank(options)
    wave = speech(num_samples, seed=4)
    kaldi.accept_waveform(kaldi_mel.RATE_HZ, (wave * 2**15).tolist())
    kaldi.input_finished()
    theirs = np.stack([kaldi.get_frame(number) for number in range(kaldi.num_frames_ready)])
    theirs = (theirs - theirs.mean(0)) / np.sqrt(theirs.var(0, ddof=1) + 1e-7)
    ours = kaldi_mel.normalised_log_mels(torch.from_numpy(wave)[None])[0].numpy()
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, atol=2e-2)
    assert np.median(np.abs(ours - theirs)) < 1e-4


def test_a_wave_has_the_same_features_in_every_batch():
    waves = torch.from_numpy(np.stack([speech(9_600, seed=i) for i in range(6)]))
    together = kaldi_mel.normalised_log_mels(waves)
    for wave, features in zip(waves, together, strict=True):
        assert torch.equal(kaldi_mel.normalised_log_mels(wave[None])[0], features)


def test_silence_is_zero_and_short_waves_have_no_frame():
    assert not kaldi_mel.normalised_log_mels(torch.zeros(1, 3_200)).any()
    assert [kaldi_mel.num_mel_frames(n) for n in (0, 399, 400, 559, 560)] == [0, 0, 1, 1, 2]


def test_half_precision_elsewhere_leaves_the_features_alone():
    waves = torch.from_numpy(np.stack([speech(9_600, seed=i) for i in range(2)]))
    with torch.autocast("cpu", torch.bfloat16):
        features = kaldi_mel.normalised_log_mels(waves)
    assert torch.equal(features, kaldi_mel.normalised_log_mels(waves))
