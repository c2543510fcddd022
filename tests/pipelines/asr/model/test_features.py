"""Features against those of transformers, frames against the models' own, and samples that are no sound."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from colabkit.core.errors import BrokenSampleError
from colabkit.pipelines.asr.model.features import MelFeatures, WaveFeatures, WhisperFeatures, open_features

STRIDES = list(zip((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2), strict=True))


def noise(num_samples, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(num_samples)).astype(np.float32)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("num_samples", [800, 16_000, 12_345, 40_001, 160_333])
def test_mel_features_are_those_of_transformers(stride, num_samples):
    from transformers import SeamlessM4TFeatureExtractor

    theirs = SeamlessM4TFeatureExtractor(stride=stride)(
        noise(num_samples), sampling_rate=16_000, return_tensors="np", pad_to_multiple_of=1
    )
    features = MelFeatures(stride=stride)
    ours = features(noise(num_samples))
    np.testing.assert_allclose(ours, theirs["input_features"][0], atol=2e-3)
    assert len(ours) == features.num_frames(num_samples) and ours.dtype == np.float32


def test_silence_and_full_scale_stay_finite():
    for wave in (np.zeros(8_000), np.ones(8_000), np.tile([1.0, -1.0], 4_000)):
        for features in (MelFeatures(), WaveFeatures(STRIDES, normalised=True)):
            assert np.isfinite(features(wave)).all()


def test_waves_are_normalised_as_transformers_does():
    from transformers import Wav2Vec2FeatureExtractor

    wave = noise(9_000) + 0.3
    theirs = Wav2Vec2FeatureExtractor(do_normalize=True)(wave, sampling_rate=16_000, return_tensors="np").input_values[
        0
    ]
    np.testing.assert_allclose(WaveFeatures(STRIDES, normalised=True)(wave), theirs, atol=1e-5)
    assert (WaveFeatures(STRIDES, normalised=False)(wave) == wave).all()


def test_frames_of_waves_are_the_models_own(saved_bases):
    from transformers import Wav2Vec2Model

    model = Wav2Vec2Model.from_pretrained(saved_bases("wav2vec2"))
    features = open_features(str(saved_bases("wav2vec2")), model.config)
    assert features.step_samples == 320 and features.least_samples == 400
    for num_samples in (400, 401, 719, 720, 721, 5_000, 16_000, 33_333):
        assert features.num_frames(num_samples) == int(
            model._get_feat_extract_output_lengths(torch.tensor(num_samples))
        )
    assert features.num_frames(399) == 0 and len(features(noise(50))) == 400


def test_collated_samples_are_padded_and_masked():
    features = MelFeatures(stride=2)
    short, long = features(noise(8_000)), features(noise(24_000))
    batch = features.collate([short, long])
    assert batch["input_features"].shape == (2, len(long), 160)
    assert batch["attention_mask"].sum(1).tolist() == [len(short), len(long)]
    assert (batch["input_features"][0, : len(short)].numpy() == short).all() and not batch["input_features"][
        0, len(short) :
    ].any()


def test_batches_of_very_short_samples_are_long_enough_to_hide_parts_of():
    features = WaveFeatures(STRIDES, normalised=True)
    batch = features.collate([features(noise(400))])
    assert features.num_frames(batch["input_values"].shape[1]) > 10 and int(batch["attention_mask"].sum()) == 400
    assert MelFeatures().collate([MelFeatures()(noise(600))])["input_features"].shape[1] > 10


def test_what_is_saved_is_read_by_transformers(tmp_path):
    from transformers import AutoFeatureExtractor

    MelFeatures(stride=3).save(tmp_path)
    theirs = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert type(theirs).__name__ == "SeamlessM4TFeatureExtractor" and theirs.stride == 3
    WaveFeatures(STRIDES, normalised=True, masked=False).save(tmp_path)
    theirs = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert (
        type(theirs).__name__ == "Wav2Vec2FeatureExtractor" and theirs.do_normalize and not theirs.return_attention_mask
    )


def test_whisper_hears_thirty_seconds(saved_bases):
    from transformers import WhisperConfig

    features = open_features(str(saved_bases("whisper")), WhisperConfig.from_pretrained(saved_bases("whisper")))
    assert isinstance(features, WhisperFeatures)
    assert features.collate([features(noise(16_000)), features(noise(480_000))])["input_features"].shape == (
        2,
        80,
        3000,
    )
    with pytest.raises(BrokenSampleError, match=r"31\.0 s"):
        features(noise(31 * 16_000))
    whole = features.whole(noise(45 * 16_000))
    assert whole["input_features"].shape[-1] >= 4_500 and whole["attention_mask"].sum() == 4_500


@pytest.mark.parametrize(
    "wave", [np.zeros((2, 800)), np.zeros(0), np.array([0.0, np.nan] * 400), np.array([np.inf] * 800)]
)
def test_what_is_no_sound_is_a_broken_sample(wave):
    for features in (MelFeatures(), WaveFeatures(STRIDES, normalised=True)):
        with pytest.raises(BrokenSampleError):
            features(wave)
