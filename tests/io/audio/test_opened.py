"""Audio that is opened from anywhere: paths, bytes and streams agree; what is no whole audio is told by name."""

from __future__ import annotations

import io

import numpy as np
import pytest

from colabkit.io.audio import audio_info, read_audio
from tests.io.audio.sounds import Pipe, encode, fault_of, noise


@pytest.mark.parametrize("kind", ["flac", "ogg", "opus", "mp3", "low mp3"])
@pytest.mark.parametrize("is_quiet", [False, True])
def test_seeking_is_exact_without_resampling(kind, is_quiet):
    """Where libsndfile's own seek misses: in the last page of vorbis, long when quiet, and in any mp3."""
    rate_hz = 48_000 if kind == "opus" else 24_000 if kind == "low mp3" else 22_050
    wave = noise(rate_hz * 12)
    wave[: rate_hz * 11 if is_quiet else 0] = 0
    low = {"bitrate_mode": "CONSTANT", "compression_level": 0.99} if kind == "low mp3" else {}
    content = encode(wave, rate_hz, kind.split()[-1], **low)
    whole = read_audio(content, rate_hz=rate_hz)
    rng = np.random.default_rng(0)
    for first in (*rng.integers(1, len(whole), 15), *(len(whole) - rng.integers(300, rate_hz, 25))):
        got = read_audio(content, rate_hz=rate_hz, start_seconds=first / rate_hz, duration_seconds=0.01)
        assert np.abs(got - whole[first : first + len(got)]).max() < 1e-6


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3"])
def test_path_bytes_and_streams_agree(kind, tmp_path):
    content = encode(noise(20_000, 2), 16_000, kind)
    path = tmp_path / "ünï côde.bin"  # the name says nothing about the format
    path.write_bytes(content)
    wanted = read_audio(path)
    prefixed = io.BytesIO(b"something else" + content)
    prefixed.seek(14)
    with path.open("rb") as handle:
        sources = [str(path), content, bytearray(content), memoryview(content), io.BytesIO(content), handle,
                   Pipe(content), io.BufferedReader(Pipe(content)), prefixed]  # fmt: skip
        for source in sources:
            np.testing.assert_array_equal(read_audio(source), wanted)
        assert not handle.closed
    window = read_audio(Pipe(content), start_seconds=0.5, duration_seconds=0.25)
    assert np.abs(window - wanted[8_000:12_000]).max() < 2e-6


@pytest.mark.parametrize("reader", [read_audio, audio_info])
def test_faults_of_files_name_the_file_and_the_mend(tmp_path, reader):
    good = encode(noise(16_000), 16_000)
    cases = {
        "empty.wav": (b"", "empty"),
        "text.wav": (b"hello, I am not audio\n" * 50, "convert it"),
        "page.mp3": (b"\n<!DOCTYPE html><html>", "a web page"),
        "pointer.flac": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        "header.wav": (good[:44], "cut short"),
        "part.wav": (good[: len(good) // 2], "cut short"),
        "nothing.wav": (encode(np.zeros(0, np.float32), 16_000), "no samples"),
        "some.raw": (b"\1\2" * 100, "convert it"),
    }
    for name, (content, wanted) in cases.items():
        path = tmp_path / name
        path.write_bytes(content)
        message = fault_of(path, reader)
        assert wanted in message and name in message, (name, message)
    assert "did you mean 'part.wav'" in fault_of(tmp_path / "prt.wav", reader)
    assert "no folder" in fault_of(tmp_path / "nowhere" / "a.wav", reader)
    assert "find_audio" in fault_of(tmp_path, reader)
    assert "bytes in memory" in fault_of(b"RIFF", reader)
    with (tmp_path / "part.wav").open("rb") as handle:
        assert "part.wav" in fault_of(handle, reader)


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3"])
@pytest.mark.parametrize("part", [0.3, 0.9])
def test_a_file_cut_short_is_refused(kind, part):
    content = encode(noise(160_000), 16_000, kind)
    assert "cut short" in fault_of(content[: int(len(content) * part)])


def test_a_flac_without_length_is_refused_in_words():
    content = bytearray(encode(noise(16_000), 16_000, "flac"))
    content[21] &= 0xF0  # STREAMINFO, total samples
    content[22:26] = bytes(4)
    assert "does not tell the length" in fault_of(bytes(content))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("num_channels", [1, 2])
def test_samples_that_are_no_numbers_are_refused(bad, num_channels):
    wave = noise(1_000, num_channels)
    wave[500, -1] = bad
    assert "1 of 1000" in fault_of(encode(wave, 16_000, "float wav"))
