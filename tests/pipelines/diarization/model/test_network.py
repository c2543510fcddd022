"""The network: shapes at any length, gradients everywhere, no dependence on what is around a window."""

from __future__ import annotations

import pytest
import torch

from colabkit.core.errors import UsageError
from colabkit.pipelines.diarization.model.network import (
    ENCODER_TYPES,
    FastDiarizationModel,
    LogMel,
    mel_filters,
    speaker_embeddings,
)

LENGTHS = (1, 319, 320, 321, 640, 641, 8_000, 15_999, 16_001, 52_345)


@pytest.mark.parametrize("encoder_type", ENCODER_TYPES)
@pytest.mark.parametrize("num_samples", LENGTHS)
def test_a_frame_for_every_20_ms_begun(make_model, encoder_type, num_samples):
    model = make_model(3, encoder_type).eval()
    with torch.no_grad():
        logits, embeddings = model(torch.randn(2, num_samples))
    num_frames = -(-num_samples // 320)
    assert logits.shape == (2, num_frames, 7) and embeddings.shape == (2, num_frames, 8)
    assert torch.isfinite(logits).all() and torch.isfinite(embeddings).all()


@pytest.mark.parametrize("encoder_type", ENCODER_TYPES)
def test_a_window_means_the_same_with_its_last_frame_filled_up(make_model, encoder_type):
    model = make_model(2, encoder_type).eval()
    wave = 0.1 * torch.randn(1, 16_050)
    with torch.no_grad():
        short, filled = (model(w)[0] for w in (wave, torch.nn.functional.pad(wave, (0, 16_320 - 16_050))))
    torch.testing.assert_close(short, filled, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("encoder_type", ENCODER_TYPES)
def test_a_window_does_not_depend_on_its_neighbours_in_a_batch(make_model, encoder_type):
    model = make_model(2, encoder_type).eval()
    waves = 0.1 * torch.randn(5, 24_000)
    waves[3] *= 100
    with torch.no_grad():
        together, alone = model(waves), model(waves[2:3])
    for whole, part in zip(together, alone, strict=True):
        torch.testing.assert_close(whole[2:3], part, rtol=1e-4, atol=1e-5)


def test_far_away_sound_does_not_reach_the_convolutions(make_model):
    """Attention and the recurrent layer see all; what comes before them sees less than a second.

    The window's mean is kept.
    """
    encoder = make_model(num_blocks=4).encoder.eval()
    encoder.log_mel.forward = lambda wave: wave  # features are given
    feats = torch.randn(1, 64, 800)
    changed = feats.clone()
    changed[..., 600:] = torch.randn(64, 200)
    with torch.no_grad():
        (core, fine), (other_core, other_fine) = encoder(feats), encoder(changed)
    assert torch.equal(fine[..., :298], other_fine[..., :298]) and not torch.equal(fine, other_fine)
    assert torch.equal(core[..., :120], other_core[..., :120]) and not torch.equal(core, other_core)


@pytest.mark.parametrize(
    "encoder_type, recurrent", [*((name, "gru") for name in ENCODER_TYPES), ("lightweight-cnn", "lstm")]
)
def test_gradient_reaches_every_parameter(make_model, encoder_type, recurrent):
    model = make_model(3, encoder_type, num_blocks=3, num_attention_layers=2, recurrent=recurrent).train()
    logits, embeddings = model(0.1 * torch.randn(2, 16_000))
    (logits.log_softmax(-1)[..., 1].mean() + embeddings.square().mean()).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # The bias of a key moves all of a softmax's scores by the same amount: its gradient is zero but for noise.
    assert [name for name in without if "k_proj.bias" not in name] == []


def test_parameters_are_counted_and_their_number_is_known(make_model):
    model = make_model()
    assert model.count_parameters() == sum(p.numel() for p in model.parameters()) == model.count_trainable_parameters()
    model.classify.requires_grad_(False)
    assert model.count_parameters() - model.count_trainable_parameters() == 16 * 4 + 4
    assert FastDiarizationModel(num_speakers=2, hidden_size=256).count_parameters() < 5_000_000
    assert make_model(4).count_parameters() - model.count_parameters() == (11 - 4) * (16 + 1)


def test_loudness_does_not_matter(make_model):
    model = make_model().eval()
    wave = 0.1 * torch.randn(1, 16_000)
    with torch.no_grad():
        torch.testing.assert_close(model(wave)[0], model(wave * 0.1)[0], rtol=1e-3, atol=1e-3)


def test_silence_and_full_scale_give_finite_numbers(make_model):
    model = make_model().eval()
    with torch.no_grad():
        for wave in (torch.zeros(1, 8_000), torch.ones(1, 8_000), 1e3 * torch.randn(1, 8_000)):
            assert all(torch.isfinite(out).all() for out in model(wave))


@pytest.mark.parametrize("num_mels", [40, 64, 80])
def test_no_mel_band_is_empty_and_each_rises_above_the_last(num_mels):
    frequency = torch.arange(257) * 31.25
    filters = mel_filters(num_mels, frequency)
    assert (filters.sum(1) > 0).all(), f"empty: {torch.nonzero(filters.sum(1) == 0).flatten().tolist()}"
    centroid = (filters * frequency).sum(1) / filters.sum(1)
    assert (centroid.diff() > 0).all()
    assert (filters[:, frequency > 7_600] == 0).all() and (filters[:, frequency < 40] == 0).all()


@pytest.mark.parametrize("tone_hz", [300.0, 1_000.0, 4_000.0])
def test_a_tone_shows_in_the_band_of_its_frequency(tone_hz):
    log_mel = LogMel(64)
    tone = torch.sin(2 * torch.pi * tone_hz * torch.arange(16_000) / 16_000)
    wave = torch.cat([1e-3 * torch.randn(16_000), tone])[None]  # the mean over the window is taken away
    rise = log_mel(wave)[0, :, 100:].mean(1)
    expected = mel_filters(64, torch.tensor([tone_hz])).flatten().argmax()
    assert abs(int(rise.argmax()) - int(expected)) <= 1


def test_embeddings_are_averaged_where_a_speaker_talks_alone():
    embeddings = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [5.0, 5.0], [0.0, 0.0]]])
    activity = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]]])
    torch.testing.assert_close(speaker_embeddings(embeddings, activity), torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]))
    assert torch.isfinite(speaker_embeddings(embeddings, torch.zeros_like(activity))).all()


@pytest.mark.parametrize(
    "how, setting",
    [
        ({"encoder_type": "whisper"}, "model.encoder_type=lightweight-cnn"),
        ({"num_speakers": 0}, "model.num_speakers"),
        ({"num_speakers": 6}, "model.num_speakers"),
        ({"hidden_size": 30}, "model.hidden_size"),
        ({"recurrent": "rnn"}, "model.recurrent=gru"),
    ],
)
def test_what_cannot_be_built_is_refused_with_the_setting_that_mends_it(how, setting):
    with pytest.raises(UsageError) as caught:
        FastDiarizationModel(**how)
    assert setting in str(caught.value)
    fix = dict([caught.value.fix.split()[1].removesuffix(";").removeprefix("model.").split("=")])
    # the fix does mend it
    FastDiarizationModel(**how | {name: int(v) if v.isdigit() else v for name, v in fix.items()})


def test_clip_head_keeps_the_shape_of_a_clip_classifier():
    model = FastDiarizationModel(num_speakers=2, hidden_size=32, encoder_type="lightweight-cnn", head="clip")
    assert model(torch.zeros(3, 48_000)).shape == (3, 2)
    with pytest.raises(UsageError, match="frame"):
        FastDiarizationModel(head="window")
