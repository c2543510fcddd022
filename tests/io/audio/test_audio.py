"""Reading and writing audio: formats, windows, streams and what broken files say."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from colabkit.core.errors import DataError, UsageError
from colabkit.io.audio import audio_info, find_audio, read_audio, write_wav
from tests.io.audio.sounds import FORMATS, encode, noise, tone

DATA = Path(os.environ.get("COLABKIT_TEST_DATA", Path(__file__).parents[3] / ".." / "shared" / "data"))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("num_channels", [1, 2, 6])
def test_every_format_gives_the_mean_of_the_channels(kind, num_channels):
    if kind == "mp3" and num_channels > 2:
        pytest.skip("mp3 has two channels at most")
    gains = np.linspace(0.5, 1, num_channels, dtype=np.float32)
    wave = tone(48_000, 48_000)
    content = encode(wave[:, None] * gains, 48_000, kind)
    got = read_audio(content, rate_hz=48_000)
    wanted = wave * gains.mean()
    assert got.dtype == np.float32 and got.ndim == 1 and got.flags.c_contiguous
    assert abs(len(got) - len(wanted)) <= (2304 if kind == "mp3" else 0)
    middle = slice(5_000, 43_000)
    error = np.sqrt(np.mean((got[middle] - wanted[middle]) ** 2) / np.mean(wanted[middle] ** 2))
    lossy = 0.3 if num_channels == 6 else 0.15  # of six channels the codec keeps one for the bass alone
    assert error < (lossy if kind in ("ogg", "opus", "mp3") else 5e-4)


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize(
    ("from_hz", "to_hz"),
    [(16_000, 16_000), (44_100, 16_000), (8_000, 16_000), (48_000, 8_000), (16_000, 44_100)],
)
def test_a_window_is_the_slice_of_the_whole(kind, from_hz, to_hz, tmp_path):
    path = tmp_path / f"long.{kind}"
    path.write_bytes(encode(noise(from_hz * 5, 2), from_hz, kind))
    whole = read_audio(path, rate_hz=to_hz)
    rng = np.random.default_rng(1)
    for start in [0.0, 1 / to_hz, 0.37123, *rng.uniform(0, 3.5, 6)]:
        for duration in (0.00731, 1.0):
            got = read_audio(path, rate_hz=to_hz, start_seconds=start, duration_seconds=duration)
            first = round(start * to_hz)
            assert got.shape == (round(duration * to_hz),)
            assert np.abs(got - whole[first : first + len(got)]).max() < 2e-6


@pytest.mark.parametrize(("from_hz", "to_hz"), [(16_000, 16_000), (44_101, 16_000), (11_025, 16_000)])
def test_the_last_window_is_shorter_and_ends_as_the_whole(from_hz, to_hz):
    content = encode(noise(int(from_hz * 2.3) + 7), from_hz)
    whole = read_audio(content, rate_hz=to_hz)
    tail = read_audio(content, rate_hz=to_hz, start_seconds=2.0, duration_seconds=9)
    rest = read_audio(content, rate_hz=to_hz, start_seconds=2.0)
    np.testing.assert_array_equal(tail, rest)
    assert len(tail) == len(whole) - 2 * to_hz
    assert np.abs(tail - whole[2 * to_hz :]).max() < 2e-6
    with pytest.raises(DataError, match=r"before the end at 2\.3"):
        read_audio(content, rate_hz=to_hz, start_seconds=2.4)


def test_a_window_decodes_only_its_part(tmp_path, monkeypatch):
    path = tmp_path / "long.flac"
    path.write_bytes(encode(noise(44_100 * 60), 44_100, "flac"))
    decoded = []
    read = soundfile.SoundFile.read

    def counting(self, *args, **kwargs):
        block = read(self, *args, **kwargs)
        decoded.append(len(block))
        return block

    monkeypatch.setattr(soundfile.SoundFile, "read", counting)
    read_audio(path, start_seconds=50, duration_seconds=1)
    assert 44_100 <= sum(decoded) < 44_100 * 1.2


def test_resampling_is_that_of_soxr():
    wave = noise(44_100)[:, 0]
    got = read_audio(encode(wave, 44_100, "float wav"), rate_hz=16_000)
    np.testing.assert_array_equal(got, soxr.resample(wave, 44_100, 16_000))


def test_silence_is_not_an_error():
    got = read_audio(encode(np.zeros(16_000, np.float32), 16_000))
    assert got.shape == (16_000,) and not got.any()


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3"])
def test_info(kind, tmp_path):
    path = tmp_path / f"a.{kind}"
    path.write_bytes(encode(noise(44_100, 2), 44_100, kind))
    for source in (path, path.read_bytes()):
        info = audio_info(source)
        assert (info.rate_hz, info.num_channels, info.format) == (44_100, 2, kind.upper())
        assert info.num_frames == pytest.approx(44_100, abs=2304 if kind == "mp3" else 0)
        assert info.duration_seconds == info.num_frames / 44_100


def test_wrong_parameters_are_refused():
    content = encode(noise(1_000), 16_000)
    wrong_ones = (
        {"rate_hz": 0}, {"rate_hz": -1}, {"rate_hz": 16_000.5}, {"start_seconds": -1},
        {"start_seconds": float("nan")}, {"duration_seconds": 0}, {"duration_seconds": float("inf")},
    )  # fmt: skip
    for wrong in wrong_ones:
        with pytest.raises(UsageError):
            read_audio(content, **wrong)
    with pytest.raises(UsageError, match="binary"):
        read_audio(io.StringIO("RIFF"))
    with pytest.raises(UsageError, match="list"):
        read_audio([0.0, 1.0])


def test_sixteen_bit_samples_survive_reading_and_writing(tmp_path):
    samples = np.arange(-32_768, 32_768, dtype=np.int16)
    write_wav(tmp_path / "a.wav", samples, 16_000)
    wave = read_audio(tmp_path / "a.wav")
    write_wav(tmp_path / "b.wav", wave, 16_000)
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    np.testing.assert_array_equal(soundfile.read(tmp_path / "b.wav", dtype="int16")[0], samples)


def test_float_wav_is_exact_and_may_exceed_one(tmp_path):
    wave = noise(1_000, 2) * 30
    write_wav(tmp_path / "a.wav", wave, 44_100, as_float=True)
    got, rate_hz = soundfile.read(tmp_path / "a.wav", dtype="float32")
    assert rate_hz == 44_100
    np.testing.assert_array_equal(got, wave)


def test_writing_refuses_what_would_be_spoiled(tmp_path):
    path = tmp_path / "a.wav"
    cases = (
        (np.array([0.0, 1.01]), "clip"), (np.array([0.0, np.nan]), "NaN"), (np.zeros(0), "shape"),
        (np.zeros((2, 2, 2)), "shape"), (np.array([1, 2]), "type"),
    )  # fmt: skip
    for wave, word in cases:
        with pytest.raises(DataError, match=word):
            write_wav(path, wave, 16_000)
    assert not path.exists()


def test_finding_is_recursive_sorted_and_passes_hidden_names_over(tmp_path):
    names = [
        "b/2.WAV",
        "b/1.flac",
        "a.mp3",
        "c/d/e.opus",
        "c/x.ogg",
        "note.txt",
        "b/._1.flac",
        ".trash/z.wav",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "c" / "loop").symlink_to(tmp_path, target_is_directory=True)
    found = [path.relative_to(tmp_path).as_posix() for path in find_audio(tmp_path)]
    assert found == ["a.mp3", "b/1.flac", "b/2.WAV", "c/d/e.opus", "c/x.ogg"]
    with pytest.raises(DataError, match="no such folder"):
        find_audio(tmp_path / "absent")


@pytest.mark.skipif(not (DATA / "librispeech-mini").is_dir(), reason="no real recordings beside the repository")
def test_real_recordings_agree_with_the_decoder():
    paths = find_audio(DATA / "librispeech-mini")[:8] + find_audio(DATA / "noise") + find_audio(DATA / "rirs")
    assert len(paths) > 8
    for path in paths:
        wanted, rate_hz = soundfile.read(path, dtype="float32")
        np.testing.assert_array_equal(read_audio(path, rate_hz=rate_hz), wanted)
        whole = read_audio(path)
        middle = len(whole) / 32_000
        window = read_audio(path, start_seconds=middle, duration_seconds=0.5)
        first = round(middle * 16_000)
        assert np.abs(window - whole[first : first + len(window)]).max() < 2e-6
