"""Families of codecs: rates, sizes and codebooks of each, which waves go together, and the features that they hear."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch

from colabkit.core.errors import DataError, UsageError
from colabkit.pipelines.dataset.codecs import families
from colabkit.pipelines.dataset.codecs.by_name import open_codec
from tests.pipelines.dataset.codecs.small_models import KINDS, WAVE_ONLY, batch_of, speech
from tests.told import Told


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_tells_its_rates_and_sizes(kind, opened):
    codec = opened(kind)
    told = (codec.rate_hz_in, codec.rate_hz_out, codec.frame_rate_hz, codec.num_codebooks, codec.codebook_size)
    assert (
        told
        == {
            "neucodec": (16_000, 24_000, 50.0, 1, 65_536),
            "xcodec2": (16_000, 16_000, 50.0, 1, 65_536),
            "mimi": (24_000, 24_000, 12.5, 6, 64),
            "dac": (24_000, 24_000, 75.0, 5, 128),
            "encodec": (24_000, 24_000, 75.0, 2, 64),
        }[kind]
    )


@pytest.mark.parametrize(("kind", "num"), [("mimi", 3), ("dac", 2), ("encodec", 4)])
def test_fewer_codebooks_are_the_first_ones(kind, num, opened):
    wave = speech(24_000, 24_000)
    few, usual = opened(kind, num_codebooks=num), opened(kind)
    least = min(num, usual.num_codebooks)
    assert few.num_codebooks == num and few.fingerprint != usual.fingerprint
    codes = few.encode_batch([wave])[0]
    assert codes.shape[0] == num
    np.testing.assert_array_equal(codes[:least], usual.encode_batch([wave])[0][:least])
    assert few.decode_batch([codes])[0].size


@pytest.mark.parametrize(("kind", "num"), [("mimi", 7), ("dac", 6), ("encodec", 3), ("neucodec", 2)])
def test_more_codebooks_than_there_are_is_refused(kind, num, opened):
    with pytest.raises(UsageError, match="codec has no"):
        opened(kind, num_codebooks=num)


@pytest.mark.parametrize(
    "changes", [{"audio_channels": 2}, {"normalize": True}, {"chunk_length_s": 1.0, "overlap": 0.01}]
)
def test_an_encodec_for_music_is_refused(changes, tmp_path):
    import transformers

    config = transformers.EncodecConfig(
        num_filters=2, hidden_size=4, codebook_dim=4, codebook_size=16, target_bandwidths=[0.6], **changes
    )
    transformers.EncodecModel(config).save_pretrained(tmp_path)
    with pytest.raises(DataError) as caught:
        open_codec(str(tmp_path), device="cpu")
    assert "encodec" in caught.value.fix


@pytest.mark.parametrize("kind", ("neucodec", "xcodec2"))
def test_features_lead_to_the_codes_of_the_extractor_that_neucodec_itself_uses(kind, opened):
    from transformers import SeamlessM4TFeatureExtractor

    codec = opened(kind)
    extractor = SeamlessM4TFeatureExtractor()
    agreeing = total = 0
    for n in (3_200, 3_519, 16_000, 31_999):
        wave = speech(n, seed=n)
        padded = np.pad(wave, (0, 320 - n % 320))
        edge = 0 if kind == "neucodec" else 160
        features = extractor(np.pad(padded, edge), sampling_rate=16_000, return_tensors="pt").input_features
        with torch.inference_mode():
            model = codec._model
            codes = model.encode(torch.from_numpy(padded)[None, None], input_features=features).audio_codes[0].numpy()
        agreeing, total = agreeing + (codes == codec.encode_batch([wave])[0]).sum(), total + codes.size
    assert agreeing >= 0.99 * total  # its features are rounded elsewhere: float64 up to the mel channels


@pytest.mark.parametrize("kind", ("mimi", "encodec"))
def test_without_the_mended_ends_the_last_frames_differ(kind, opened, monkeypatch):
    codec = opened(kind)
    waves = batch_of(codec, 25)
    right = codec.encode_batch(waves)
    monkeypatch.setattr(families, "ended_alike", lambda encoder, lengths: nullcontext())
    wrong = codec.encode_batch(waves)
    assert any((a[:, -1] != b[:, -1]).any() for a, b in zip(right, wrong, strict=True))


def test_a_wave_below_one_frame_is_refused_by_neucodec_only(opened):
    wave = speech(319)
    with pytest.raises(DataError, match="too short"):
        opened("neucodec").encode_batch([wave])
    assert opened("neucodec").num_frames(319) == 0
    assert opened("xcodec2").encode_batch([wave])[0].shape == (1, 1)
    for kind in WAVE_ONLY:
        assert opened(kind).encode_batch([speech(3)])[0].shape[1] == 1


def test_on_a_cpu_codecs_with_wide_convolutions_take_one_wave_at_a_time(opened, monkeypatch):
    codec, sizes = opened("dac", teller=Told()), []
    encode = codec.family.encode

    def counted(model, batch, device):
        sizes.append(len(batch))
        return encode(model, batch, device)

    monkeypatch.setattr(codec.family, "encode", counted)
    codec.encode_batch([speech(24_000, 24_000, seed=i) for i in range(3)])
    assert sizes == [1, 1, 1]
