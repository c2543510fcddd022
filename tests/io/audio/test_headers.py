"""Headers of wav, mp3 and ogg files, counted where they cannot be taken at their word."""

from __future__ import annotations

import io

import numpy as np
import pytest

from colabkit.core.errors import DataError
from colabkit.io.audio import read_audio
from colabkit.io.audio.headers import count_mp3_frames, first_frame_of_last_ogg_page, missing_wav_bytes
from tests.io.audio.sounds import encode, fault_of, noise


def test_a_wav_from_a_pipe_without_lengths_is_read():
    content = bytearray(encode(noise(16_000), 16_000))
    wanted = read_audio(bytes(content))
    at = content.index(b"data")
    content[4:8] = content[at + 4 : at + 8] = b"\xff\xff\xff\xff"
    np.testing.assert_array_equal(read_audio(bytes(content)), wanted)


def _variable_mp3(quiet_first: bool) -> tuple[bytes, int]:
    """Return an mp3 of variable bit rate whose length header was taken away."""
    wave = np.concatenate([noise(80_000)[:, 0], np.zeros(160_000, np.float32)])
    wave = wave[::-1] if quiet_first else wave
    content = encode(wave, 16_000, "mp3", bitrate_mode="VARIABLE", compression_level=0.5)
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
    twice = encode(noise(160_000), 16_000, "mp3") * 2  # two files put end to end: the header tells one
    assert "part of the audio would be lost" in fault_of(twice)


@pytest.mark.parametrize("kind", ["wav", "float wav"])
def test_bytes_that_a_wav_promises_beyond_its_end(kind):
    content = encode(noise(1000, 2), 16_000, kind)
    assert missing_wav_bytes(io.BytesIO(content)) == 0
    assert missing_wav_bytes(io.BytesIO(content + b"LIST\x02\0\0\0ab")) == 0
    for lost in (1, 500):
        assert missing_wav_bytes(io.BytesIO(content[:-lost])) == lost
    assert missing_wav_bytes(io.BytesIO(content[:20])) == missing_wav_bytes(io.BytesIO(b"fLaC" + bytes(100))) == 0


@pytest.mark.parametrize("rate_hz", [48_000, 16_000, 8_000])  # MPEG-1, 2 and 2.5
def test_frames_of_an_mp3_are_counted(rate_hz):
    content = encode(noise(rate_hz, 1), rate_hz, "mp3")
    num_frames, is_told = count_mp3_frames(content)
    per_frame = 1152 if rate_hz >= 32_000 else 576
    assert is_told and num_frames % per_frame == 0 and 0 <= num_frames - rate_hz <= 4 * per_frame
    tag = b"ID3\4\0\0" + bytes([0, 0, 1, 2]) + bytes(130)  # 7 bits a byte: 130 bytes follow
    assert count_mp3_frames(tag + content) == (num_frames, True)
    without_tag = content.replace(b"Xing", b"\0" * 4, 1).replace(b"Info", b"\0" * 4, 1)
    assert count_mp3_frames(without_tag) == (num_frames, False)
    assert count_mp3_frames(content + b"TAG" + bytes(125)) == (num_frames, True)
    assert count_mp3_frames(b"RIFF" + bytes(100)) == count_mp3_frames(b"") == (0, False)


def test_the_page_before_the_last_of_an_ogg():
    def page(granule: int) -> bytes:
        return b"OggS\0\0" + granule.to_bytes(8, "little", signed=True) + bytes(30)

    assert first_frame_of_last_ogg_page(page(5) + page(70) + page(-1) + page(900)) == 70
    assert first_frame_of_last_ogg_page(page(900)) == first_frame_of_last_ogg_page(b"") == 0
