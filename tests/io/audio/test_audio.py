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

DATA = Path(os.environ.get("COLABKIT_TEST_DATA", Path(__file__).parents[3] / ".." / "shared" / "data"))
FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "float wav": ("WAV", "FLOAT"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}


def _noise(num_frames: int, num_channels: int = 1) -> np.ndarray:
    """Full band noise: whatever is off by a sample or cut by a filter shows."""
    wave = np.random.default_rng(num_frames).standard_normal((num_frames, num_channels)) * 0.1
    return wave.clip(-0.9, 0.9).astype(np.float32)


def _tone(num_frames: int, rate_hz: int) -> np.ndarray:
    times = np.arange(num_frames) / rate_hz
    return (0.3 * np.sin(2 * np.pi * 440 * times) * np.linspace(0.2, 1, num_frames)).astype(np.float32)


def _encode(wave: np.ndarray, rate_hz: int, kind: str = "wav", **options) -> bytes:
    stream = io.BytesIO()
    form, subtype = FORMATS[kind]
    soundfile.write(stream, wave, rate_hz, format=form, subtype=subtype, **options)
    return stream.getvalue()


class _Pipe(io.RawIOBase):
    """A stream as a network gives it: no seeking, short reads."""

    def __init__(self, content: bytes):
        self._inner = io.BytesIO(content)

    def readable(self):
        return True

    def readinto(self, buffer):
        chunk = self._inner.read(min(len(buffer), 1000))
        buffer[: len(chunk)] = chunk
        return len(chunk)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("num_channels", [1, 2, 6])
def test_every_format_gives_the_mean_of_the_channels(kind, num_channels):
    if kind == "mp3" and num_channels > 2:
        pytest.skip("mp3 has two channels at most")
    gains = np.linspace(0.5, 1, num_channels, dtype=np.float32)
    wave = _tone(48_000, 48_000)
    content = _encode(wave[:, None] * gains, 48_000, kind)
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
    path.write_bytes(_encode(_noise(from_hz * 5, 2), from_hz, kind))
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
    content = _encode(_noise(int(from_hz * 2.3) + 7), from_hz)
    whole = read_audio(content, rate_hz=to_hz)
    tail = read_audio(content, rate_hz=to_hz, start_seconds=2.0, duration_seconds=9)
    rest = read_audio(content, rate_hz=to_hz, start_seconds=2.0)
    np.testing.assert_array_equal(tail, rest)
    assert len(tail) == len(whole) - 2 * to_hz
    assert np.abs(tail - whole[2 * to_hz :]).max() < 2e-6
    with pytest.raises(DataError, match=r"before the end at 2\.3"):
        read_audio(content, rate_hz=to_hz, start_seconds=2.4)


@pytest.mark.parametrize("kind", ["flac", "ogg", "opus", "mp3", "low mp3"])
@pytest.mark.parametrize("is_quiet", [False, True])
def test_seeking_is_exact_without_resampling(kind, is_quiet):
    """Where libsndfile's own seek misses: in the last page of vorbis, long when quiet, and in any mp3."""
    rate_hz = 48_000 if kind == "opus" else 24_000 if kind == "low mp3" else 22_050
    wave = _noise(rate_hz * 12)
    wave[: rate_hz * 11 if is_quiet else 0] = 0
    low = {"bitrate_mode": "CONSTANT", "compression_level": 0.99} if kind == "low mp3" else {}
    content = _encode(wave, rate_hz, kind.split()[-1], **low)
    whole = read_audio(content, rate_hz=rate_hz)
    rng = np.random.default_rng(0)
    for first in (*rng.integers(1, len(whole), 15), *(len(whole) - rng.integers(300, rate_hz, 25))):
        got = read_audio(content, rate_hz=rate_hz, start_seconds=first / rate_hz, duration_seconds=0.01)
        assert np.abs(got - whole[first : first + len(got)]).max() < 1e-6


def test_a_window_decodes_only_its_part(tmp_path, monkeypatch):
    path = tmp_path / "long.flac"
    path.write_bytes(_encode(_noise(44_100 * 60), 44_100, "flac"))
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
    wave = _noise(44_100)[:, 0]
    got = read_audio(_encode(wave, 44_100, "float wav"), rate_hz=16_000)
    np.testing.assert_array_equal(got, soxr.resample(wave, 44_100, 16_000))


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3"])
def test_path_bytes_and_streams_agree(kind, tmp_path):
    content = _encode(_noise(20_000, 2), 16_000, kind)
    path = tmp_path / "ünï côde.bin"  # the name says nothing about the format
    path.write_bytes(content)
    wanted = read_audio(path)
    prefixed = io.BytesIO(b"something else" + content)
    prefixed.seek(14)
    with path.open("rb") as handle:
        sources = [str(path), content, bytearray(content), memoryview(content), io.BytesIO(content), handle,
                   _Pipe(content), io.BufferedReader(_Pipe(content)), prefixed]  # fmt: skip
        for source in sources:
            np.testing.assert_array_equal(read_audio(source), wanted)
        assert not handle.closed
    window = read_audio(_Pipe(content), start_seconds=0.5, duration_seconds=0.25)
    assert np.abs(window - wanted[8_000:12_000]).max() < 2e-6


def test_silence_is_not_an_error():
    got = read_audio(_encode(np.zeros(16_000, np.float32), 16_000))
    assert got.shape == (16_000,) and not got.any()


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3"])
def test_info(kind, tmp_path):
    path = tmp_path / f"a.{kind}"
    path.write_bytes(_encode(_noise(44_100, 2), 44_100, kind))
    for source in (path, path.read_bytes()):
        info = audio_info(source)
        assert (info.rate_hz, info.num_channels, info.format) == (44_100, 2, kind.upper())
        assert info.num_frames == pytest.approx(44_100, abs=2304 if kind == "mp3" else 0)
        assert info.duration_seconds == info.num_frames / 44_100


def _fault(source, reader=read_audio) -> str:
    with pytest.raises(DataError) as caught:
        reader(source)
    assert caught.value.fix
    return str(caught.value)


@pytest.mark.parametrize("reader", [read_audio, audio_info])
def test_faults_of_files_name_the_file_and_the_mend(tmp_path, reader):
    good = _encode(_noise(16_000), 16_000)
    cases = {
        "empty.wav": (b"", "empty"),
        "text.wav": (b"hello, I am not audio\n" * 50, "convert it"),
        "page.mp3": (b"\n<!DOCTYPE html><html>", "a web page"),
        "pointer.flac": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        "header.wav": (good[:44], "cut short"),
        "part.wav": (good[: len(good) // 2], "cut short"),
        "nothing.wav": (_encode(np.zeros(0, np.float32), 16_000), "no samples"),
        "some.raw": (b"\1\2" * 100, "convert it"),
    }
    for name, (content, wanted) in cases.items():
        path = tmp_path / name
        path.write_bytes(content)
        message = _fault(path, reader)
        assert wanted in message and name in message, (name, message)
    assert "did you mean 'part.wav'" in _fault(tmp_path / "prt.wav", reader)
    assert "no folder" in _fault(tmp_path / "nowhere" / "a.wav", reader)
    assert "find_audio" in _fault(tmp_path, reader)
    assert "bytes in memory" in _fault(b"RIFF", reader)
    with (tmp_path / "part.wav").open("rb") as handle:
        assert "part.wav" in _fault(handle, reader)


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3"])
@pytest.mark.parametrize("part", [0.3, 0.9])
def test_a_file_cut_short_is_refused(kind, part):
    content = _encode(_noise(160_000), 16_000, kind)
    assert "cut short" in _fault(content[: int(len(content) * part)])


def test_a_wav_from_a_pipe_without_lengths_is_read():
    content = bytearray(_encode(_noise(16_000), 16_000))
    wanted = read_audio(bytes(content))
    at = content.index(b"data")
    content[4:8] = content[at + 4 : at + 8] = b"\xff\xff\xff\xff"
    np.testing.assert_array_equal(read_audio(bytes(content)), wanted)


def test_a_flac_without_length_is_refused_in_words():
    content = bytearray(_encode(_noise(16_000), 16_000, "flac"))
    content[21] &= 0xF0  # STREAMINFO, total samples
    content[22:26] = bytes(4)
    assert "does not tell the length" in _fault(bytes(content))


def _variable_mp3(quiet_first: bool) -> tuple[bytes, int]:
    """Return an mp3 of variable bit rate whose length header was taken away."""
    wave = np.concatenate([_noise(80_000)[:, 0], np.zeros(160_000, np.float32)])
    wave = wave[::-1] if quiet_first else wave
    content = _encode(wave, 16_000, "mp3", bitrate_mode="VARIABLE", compression_level=0.5)
    return content[content.index(content[:2], 4) :], len(wave)


def test_an_mp3_is_never_read_in_part_without_a_word():
    for quiet_first in (True, False):
        content, num_frames = _variable_mp3(quiet_first)
        try:
            got = len(read_audio(content))
        except DataError as error:
            assert "-c copy" in error.fix
        else:
            assert got == pytest.approx(num_frames, abs=3 * 1152)
    twice = _encode(_noise(160_000), 16_000, "mp3") * 2  # two files put end to end: the header tells one
    assert "part of the audio would be lost" in _fault(twice)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("num_channels", [1, 2])
def test_samples_that_are_no_numbers_are_refused(bad, num_channels):
    wave = _noise(1_000, num_channels)
    wave[500, -1] = bad
    assert "1 of 1000" in _fault(_encode(wave, 16_000, "float wav"))


def test_wrong_parameters_are_refused():
    content = _encode(_noise(1_000), 16_000)
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
    wave = _noise(1_000, 2) * 30
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
