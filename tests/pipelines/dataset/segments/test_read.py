"""Segments of every kind of file, with what an index knows of them."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from colabkit.core.errors import DataError
from colabkit.pipelines.dataset.segments.npz import write_npz
from colabkit.pipelines.dataset.segments.read import is_segment, read_segment
from colabkit.pipelines.dataset.segments.segment import Segment
from tests.pipelines.dataset.segments.archives import wave_of


def encoded(wave: np.ndarray, rate_hz: int, **how) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, rate_hz, **how)
    return buffer.getvalue()


WAVE = wave_of(num_samples=9_600)


@pytest.mark.parametrize(
    ("suffix", "how", "error"),
    [
        (".wav", {"format": "WAV", "subtype": "PCM_16"}, 1e-4),
        (".WAV", {"format": "WAV", "subtype": "PCM_U8"}, 1e-2),
        (".wav", {"format": "WAV", "subtype": "FLOAT"}, 0),
        (".flac", {"format": "FLAC", "subtype": "PCM_24"}, 1e-6),
    ],
)
@pytest.mark.parametrize("rate_hz", [8_000, 48_000, 192_000])
def test_audio_files_keep_their_rate(suffix, how, error, rate_hz):
    segment = read_segment(encoded(WAVE, rate_hz, **how), f"Atheer/a.b{suffix}")
    assert segment.rate_hz == rate_hz and segment.key == "Atheer/a.b" and segment.channel == "Atheer"
    assert len(segment.wave) == len(WAVE) and np.abs(segment.wave - WAVE).max() <= error and segment.metadata == {}


@pytest.mark.parametrize(
    "how", [{"format": "OGG", "subtype": "VORBIS"}, {"format": "OGG", "subtype": "OPUS"}, {"format": "MP3"}]
)
def test_compressed_files_are_read(how):
    segment = read_segment(encoded(WAVE, 48_000, **how), "a_1." + how["format"].lower())
    assert abs(len(segment.wave) - len(WAVE)) < 3_000 and segment.channel == "a"


def test_stereo_is_mixed_and_told():
    segment = read_segment(encoded(np.stack([WAVE, -WAVE], 1), 16_000, format="WAV"), "x.wav")
    assert np.abs(segment.wave).max() < 1e-4 and segment.metadata == {"mixed_from_channels": "2"}


@pytest.mark.parametrize("suffix", [".npz", ".wav"])
def test_an_index_goes_before_the_file(suffix):
    own = Segment(
        key="", wave=WAVE, rate_hz=16_000, speaker="old", channel="C", text="old", metadata={"a": "1", "b": "1"}
    )
    payload = write_npz(own) if suffix == ".npz" else encoded(WAVE, 16_000, format="WAV")
    segment = read_segment(payload, "D/x" + suffix, {"speaker": "new", "text": "", "b": "2", "channel": ""})
    assert segment.speaker == "new" and segment.metadata["b"] == "2"
    assert (segment.channel, segment.text) == (("C", "old") if suffix == ".npz" else ("D", ""))


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("a.wav", b""),
        ("a.wav", b"RIFF"),
        ("a.flac", encoded(WAVE, 16_000, format="FLAC")[:500]),
        ("a.npz", b"PK"),
        ("a.txt", b"x"),
        ("a.wav", encoded(WAVE[:0], 16_000, format="WAV")),
        ("a.mp3", b"<html>"),
        ("a.wav", encoded(WAVE, 384_000, format="WAV")),
        ("a.wav", encoded(np.array([0.0, np.nan]), 16_000, format="WAV", subtype="FLOAT")),
    ],
    # a float wav holds the time it was written
    ids=lambda value: value if isinstance(value, str) else f"{len(value)} bytes",
)
def test_what_cannot_be_read_is_told_with_its_name(name, payload):
    with pytest.raises(DataError) as caught:
        read_segment(payload, name)
    assert name in str(caught.value) and caught.value.fix


def test_a_name_without_a_suffix_is_read_by_its_content():
    """As keys of shards are, which may hold dots."""
    for payload in (
        *(encoded(WAVE, 16_000, format=kind) for kind in ("FLAC", "WAV", "MP3")),
        write_npz(Segment(key="", wave=WAVE, rate_hz=16_000)),
    ):
        segment = read_segment(payload, "Atheer/morning.2024__0001")
        assert (segment.key, segment.channel) == ("Atheer/morning.2024__0001", "Atheer")


def test_which_names_are_segments():
    assert is_segment("a.NPZ") and is_segment("b/c.flac") and not is_segment("a.json") and not is_segment("npz")
