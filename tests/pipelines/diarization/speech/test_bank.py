"""Where somebody talks in an utterance, and what a speaker's material keeps of it."""

from __future__ import annotations

import numpy as np
import pytest

from colabkit.pipelines.diarization.speech.bank import SpeakerMaterial, SpeechBank, prepare, speech_frames


@pytest.fixture
def talk(make_buzz):
    """One second of silence, two of talk, half a second of silence, one of talk, one of silence."""
    tone = make_buzz(3.0, f0_hz=120.0, seed=0)[:8_000]  # its first half second holds no pause
    tone = np.concatenate([tone] * 4)
    return np.concatenate([np.zeros(16_000), tone, np.zeros(8_000), tone[:16_000], np.zeros(16_000)]).astype(np.float32)


def runs(mask):
    edges = np.flatnonzero(np.diff(np.pad(mask.astype(int), 1)))
    return [tuple(e) for e in edges.reshape(-1, 2).tolist()]


def test_talk_is_found_to_within_a_frame_or_two(talk):
    found = runs(speech_frames(talk))
    assert len(found) == 2
    for (start, end), (first, last) in zip(found, [(50, 150), (175, 225)], strict=True):
        assert abs(start - first) <= 2 and abs(end - last) <= 2


@pytest.mark.parametrize("pause_seconds, is_filled", [(0.1, True), (0.2, True), (0.45, False), (1.0, False)])
def test_short_pauses_are_filled_and_long_ones_are_not(talk, pause_seconds, is_filled):
    tone = talk[16_000:32_000]
    wave = np.concatenate([tone, np.zeros(int(pause_seconds * 16_000), np.float32), tone])
    assert len(runs(speech_frames(wave))) == (1 if is_filled else 2)


@pytest.mark.parametrize("gain", [1.0, 0.1, 0.01])
def test_loudness_does_not_matter(talk, gain):
    assert np.array_equal(speech_frames(talk * np.float32(gain)), speech_frames(talk))


def test_an_offset_does_not_matter(talk):
    assert np.array_equal(speech_frames(talk + np.float32(0.2)), speech_frames(talk))


def test_noise_below_the_talk_does_not_matter_much(talk):
    noise = 0.0005 * np.random.default_rng(0).standard_normal(len(talk)).astype(np.float32)
    assert np.mean(speech_frames(talk + noise) != speech_frames(talk)) < 0.03


@pytest.mark.parametrize(
    "wave",
    [
        np.zeros(32_000),
        np.full(32_000, 0.5),
        1e-5 * np.random.default_rng(0).standard_normal(32_000),
        0.1 * np.random.default_rng(0).standard_normal(32_000),
        0.1 * np.sin(np.arange(32_000) * 0.04),
        np.zeros(0),
        np.ones(319),
    ],
    ids=["silence", "offset", "dither", "hiss", "hum", "nothing", "less than a frame"],
)
def test_what_nobody_says_is_not_speech(wave):
    assert not speech_frames(wave.astype(np.float32)).any()
    material = SpeakerMaterial("nobody")
    assert not material.put(prepare(wave.astype(np.float32))) and material.waves == [] and material.num_frames == 0


def test_material_is_cut_to_the_talk_and_brought_to_one_level(talk):
    material = SpeakerMaterial("ann")
    assert material.put(prepare(talk)) and material.put(prepare(talk * np.float32(0.05)))
    for wave, mask in zip(material.waves, material.masks, strict=True):
        assert wave.dtype == np.int16 and len(wave) == 320 * len(mask) and mask[0] and mask[-1]
        assert abs(len(mask) - 175) <= 3
        level = np.sqrt(np.mean(np.square(wave.reshape(-1, 320)[mask] / 32_768)))
        assert level == pytest.approx(0.06, rel=0.02)
    assert material.num_frames == sum(map(len, material.masks))


def test_too_little_talk_is_refused(talk):
    click = np.zeros(16_000, np.float32)
    click[8_000:11_200] = talk[16_000:19_200]  # 0.2 s
    assert not SpeakerMaterial("ann").put(prepare(click))


def test_a_bank_counts_hours_and_knows_sexes(bank):
    assert bank.hours == pytest.approx(sum(len(w) for s in bank.speakers for w in s.waves) / 16_000 / 3_600)
    assert [numbers.tolist() for numbers in bank.by_sex] == [[0, 2, 4, 6], [1, 3, 5, 7]]
    assert SpeechBank([]).hours == 0


def test_real_reading_is_mostly_speech(real_data):
    from colabkit.io import audio

    paths = audio.find_audio(real_data / "librispeech-mini")[:8]
    shares = [speech_frames(audio.read_audio(path)).mean() for path in paths]
    assert len(shares) == 8 and min(shares) > 0.3 and 0.6 < np.mean(shares) < 0.99
