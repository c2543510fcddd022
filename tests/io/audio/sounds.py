"""Sounds for tests of reading audio: noise, tones, files of every format, streams as a network gives them."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from colabkit.core.errors import DataError
from colabkit.io.audio import read_audio

FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "float wav": ("WAV", "FLOAT"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}


def noise(num_frames: int, num_channels: int = 1) -> np.ndarray:
    """Full band noise: whatever is off by a sample or cut by a filter shows."""
    wave = np.random.default_rng(num_frames).standard_normal((num_frames, num_channels)) * 0.1
    return wave.clip(-0.9, 0.9).astype(np.float32)


def tone(num_frames: int, rate_hz: int) -> np.ndarray:
    times = np.arange(num_frames) / rate_hz
    return (0.3 * np.sin(2 * np.pi * 440 * times) * np.linspace(0.2, 1, num_frames)).astype(np.float32)


def encode(wave: np.ndarray, rate_hz: int, kind: str = "wav", **options) -> bytes:
    stream = io.BytesIO()
    form, subtype = FORMATS[kind]
    soundfile.write(stream, wave, rate_hz, format=form, subtype=subtype, **options)
    return stream.getvalue()


class Pipe(io.RawIOBase):
    """A stream as a network gives it: no seeking, short reads."""

    def __init__(self, content: bytes):
        self._inner = io.BytesIO(content)

    def readable(self):
        return True

    def readinto(self, buffer):
        chunk = self._inner.read(min(len(buffer), 1000))
        buffer[: len(chunk)] = chunk
        return len(chunk)


def fault_of(source, reader=read_audio) -> str:
    with pytest.raises(DataError) as caught:
        reader(source)
    assert caught.value.fix
    return str(caught.value)
