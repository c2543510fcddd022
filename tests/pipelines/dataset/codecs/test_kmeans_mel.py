"""The codec fitted on data: same bits of the same speech, codes alone and in company, sound that keeps its spectrum."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from colabkit.core.errors import DataError, UsageError
from colabkit.io.voices import make_speakers, utterance
from colabkit.pipelines.dataset.codecs import kmeans
from colabkit.pipelines.dataset.codecs.by_name import open_codec
from colabkit.pipelines.dataset.codecs.kmeans_mel import KMeansMel
from colabkit.pipelines.dataset.codecs.mel import NUM_MELS, MelFrames
from tests.pipelines.dataset.codecs.small_models import speech

THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def voices(num: int, rate_hz: int = 16_000, start: int = 0) -> list[np.ndarray]:
    return [utterance(speaker, start + i, rate_hz=rate_hz).wave for speaker in make_speakers(3) for i in range(num)]


@pytest.fixture(scope="module")
def codec():
    return KMeansMel.fit(voices(8), num_codebooks=4, codebook_size=64)


def mel_error_db(codec: KMeansMel, wave: np.ndarray, codes: np.ndarray) -> float:
    difference = MelFrames(codec.rate_hz_in).log_mels(wave) - codec.decode_mels(codes)
    return float(np.sqrt((difference**2).mean()) * 20 / np.log(10))


@pytest.mark.parametrize("rate_hz", (16_000, 24_000))
def test_rates_frames_and_codes(rate_hz):
    codec = KMeansMel.fit(voices(3, rate_hz), rate_hz=rate_hz, num_codebooks=3, codebook_size=32)
    assert (codec.rate_hz_in, codec.rate_hz_out, codec.frame_rate_hz) == (rate_hz, rate_hz, 50.0)
    hop = rate_hz // 50
    waves = [speech(n, rate_hz) for n in (9 * hop + 1, 10 * hop)]
    codes = codec.encode_batch(waves)
    assert [array.shape for array in codes] == [(3, 10)] * 2 and codes[0].dtype == np.uint16 and codes[0].max() < 32
    assert [len(wave) for wave in codec.decode_batch(codes)] == [10 * hop] * 2
    assert [codec.num_frames(n) for n in (0, 1, hop, hop + 1)] == [0, 1, 1, 2] and codec.most_seconds() > 30


def test_codes_in_a_batch_are_those_alone(codec):
    waves = [speech(n, seed=n) for n in (15_681, 15_800, 16_000)] + [np.zeros(15_999, np.float32)]
    for wave, codes in zip(waves, codec.encode_batch(waves), strict=True):
        np.testing.assert_array_equal(codec.encode_batch([wave])[0], codes)


def test_each_codebook_brings_the_mels_nearer(codec):
    wave = voices(1, start=20)[0]
    codes = codec.encode_batch([wave])[0]
    mels = MelFrames(16_000).log_mels(wave) - codec._mean
    errors = [np.abs(mels - kmeans.decode(codes[:k], codec._books[:k])).mean() for k in range(codec.num_codebooks + 1)]
    assert all(later < 0.95 * earlier for earlier, later in zip(errors, errors[1:], strict=False))


def test_speech_that_was_not_fitted_on_keeps_its_spectrum(codec):
    for wave in voices(1, start=30):
        codes = codec.encode_batch([wave])[0]
        assert mel_error_db(codec, wave, codes) < 6.0
        again = MelFrames(16_000).log_mels(codec.decode_batch([codes])[0])
        correlation = np.corrcoef(again.ravel(), MelFrames(16_000).log_mels(wave).ravel())[0, 1]
        assert correlation > 0.9
        assert mel_error_db(codec, wave, np.zeros_like(codes)) > 10  # what the same measure says of wrong codes


def test_silence_and_one_sample_have_codes_and_a_sound(codec):
    for wave in (np.zeros(8_000, np.float32), np.full(1, 0.5, np.float32)):
        sound = codec.decode_batch(codec.encode_batch([wave]))[0]
        assert np.isfinite(sound).all() and len(sound) == codec.num_frames(len(wave)) * 320
    assert np.abs(codec.decode_batch(codec.encode_batch([np.zeros(8_000, np.float32)]))[0]).max() < 0.05


def test_the_same_speech_gives_the_same_file_whatever_the_threads(tmp_path):
    code = """
import sys
from pathlib import Path
from tests.pipelines.dataset.codecs.test_kmeans_mel import KMeansMel, voices
codec = KMeansMel.fit(voices(4), num_codebooks=3, codebook_size=64, most_frames=2000)
codec.save(Path(sys.argv[1]))
codes = codec.encode_batch(voices(1)[:1])[0]
print(codec.fingerprint, codes.tobytes().hex()[:200], codec.decode_batch([codes])[0].tobytes().hex()[:200])
"""
    told = []
    for number, threads in enumerate(("1", "2")):
        environment = os.environ | dict.fromkeys(THREADS, threads) | {"PYTHONHASHSEED": str(number)}
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / f"{number}.safetensors")],
            capture_output=True,
            text=True,
            env=environment,
            check=True,
        )
        told.append((done.stdout, (tmp_path / f"{number}.safetensors").read_bytes()))
    assert told[0] == told[1]


def test_another_seed_is_another_codec(codec):
    assert KMeansMel.fit(voices(8), num_codebooks=4, codebook_size=64, seed=1).fingerprint != codec.fingerprint


def test_a_saved_codec_is_opened_as_it_was(codec, tmp_path):
    path = tmp_path / "codec.safetensors"
    codec.save(path)
    opened = open_codec(f"kmeans-mel:{path}")
    assert opened.fingerprint == codec.fingerprint
    wave = speech(16_000)
    np.testing.assert_array_equal(opened.encode_batch([wave])[0], codec.encode_batch([wave])[0])
    with pytest.raises(UsageError, match="codebooks"):
        open_codec(f"kmeans-mel:{path}", num_codebooks=2)


def test_files_that_are_no_codec_are_named(codec, tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "codec.safetensors"
    codec.save(path)
    content = path.read_bytes()
    (tmp_path / "cut").write_bytes(content[:-100])
    (tmp_path / "text").write_text("no codec")
    save_file({"mean": np.zeros(NUM_MELS, np.float32)}, tmp_path / "other")
    changed = bytearray(content)
    changed[-2] ^= 4
    (tmp_path / "changed").write_bytes(changed)
    for name in ("cut", "text", "other", "changed", "nowhere"):
        with pytest.raises(DataError) as caught:
            KMeansMel.load(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert json.loads(header["__metadata__"]["colabkit.codec"])["rate_hz"] == 16_000


@pytest.mark.parametrize("how", [{"rate_hz": 16_001}, {"rate_hz": 4_000}, {"codebook_size": 1}, {"num_codebooks": 0}])
def test_sizes_that_cannot_be(how):
    with pytest.raises(UsageError):
        KMeansMel.fit([speech(16_000)], **how)


def test_too_little_speech_is_said_in_seconds():
    with pytest.raises(DataError, match="Too little speech") as caught:
        KMeansMel.fit([speech(16_000), np.zeros(0, np.float32)])
    assert "1.0 s" in str(caught.value) and "at least 20 s" in str(caught.value)


@pytest.mark.parametrize("wave", [np.zeros(0, np.float32), np.zeros(100), np.full(100, np.inf, np.float32)])
def test_waves_that_cannot_be_encoded(wave, codec):
    with pytest.raises(DataError):
        codec.encode_batch([wave])


def test_of_many_frames_every_one_is_as_likely_to_be_kept():
    from colabkit.pipelines.dataset.codecs.kmeans_mel import _sampled

    frames = MelFrames(16_000)
    waves = [np.full(320 * 50, level, np.float32) * speech(320 * 50) for level in (0.01, 0.1, 1.0, 0.5)]
    kept = _sampled(waves, frames, np.random.default_rng(0), 100)
    whole = np.concatenate([frames.log_mels(wave) for wave in waves])
    rows = [int(np.flatnonzero((whole == row).all(1))[0]) for row in kept]
    assert len(set(rows)) == 100 and np.all(np.bincount(np.array(rows) // 50, minlength=4) > 12)
