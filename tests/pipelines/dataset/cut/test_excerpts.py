"""Listening in blocks gives what listening at once does, in little memory; damaged recordings are told."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from colabkit.core.errors import ColabkitError, DataError
from colabkit.io.audio import read_audio
from colabkit.io.samples.range_file import RangeFile
from colabkit.io.samples.shards import flac_bytes
from colabkit.pipelines.dataset.cut.excerpts import Listener
from colabkit.pipelines.dataset.cut.recordings import Recording
from colabkit.pipelines.dataset.cut.subtitles import Line
from colabkit.pipelines.dataset.cut.vad import load_detector
from colabkit.pipelines.dataset.segments.rules import CutRules

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.skipif(importlib.util.find_spec("silero_vad") is None, reason="silero-vad is not installed")
MEETINGS = (
    Path(os.environ.get("COLABKIT_TEST_DATA", Path(__file__).resolve().parents[5] / "shared" / "data")) / "meetings"
)


@pytest.fixture(scope="module")
def detector():
    return load_detector()


def listen(path, detector, *, rate_hz=24_000, rules=None, lines=(), **how):
    recording = Recording(key="a", version="1", open=path if callable(path) else lambda: os.fspath(path), lines=lines)
    listener = Listener(recording, detector, rules or CutRules(), rate_hz, **how)
    return list(listener.excerpts()), listener


@pytest.fixture
def morning(radio):
    return radio / "Atlas" / "morning.flac"


def test_what_is_cut_out_is_the_recording_itself(morning, detector):
    found, listener = listen(morning, detector)
    whole = read_audio(morning, rate_hz=24_000)
    assert (
        len(found) >= 2 and listener.seconds == len(whole) / 24_000 and 4 < listener.speech_seconds < listener.seconds
    )
    for excerpt in found:
        start = round(excerpt.start_seconds * 24_000)
        assert np.array_equal(excerpt.wave, whole[start : start + len(excerpt.wave)])
        assert len(excerpt.probabilities) == len(excerpt.level_db) and excerpt.probabilities.max() > 0.9
        assert abs(len(excerpt.wave) - len(excerpt.probabilities) * 768) <= 768
    assert all(a.stop_seconds <= b.start_seconds + 1e-9 for a, b in zip(found, found[1:], strict=False))


@pytest.mark.parametrize("block_seconds", [0.5, 1.37, 4.0])
@pytest.mark.parametrize("rate_hz", [None, 16_000, 22_050, 48_000])
def test_blocks_change_nothing(morning, detector, block_seconds, rate_hz):
    whole, _ = listen(morning, detector, rate_hz=rate_hz, block_seconds=1_000)
    found, _ = listen(morning, detector, rate_hz=rate_hz, block_seconds=block_seconds)
    assert [(e.start_seconds, len(e.wave)) for e in found] == [(e.start_seconds, len(e.wave)) for e in whole]
    assert all(np.abs(a.wave - b.wave).max() < 1e-5 for a, b in zip(found, whole, strict=True))
    assert all(e.rate_hz == (rate_hz or 24_000) for e in found)


@pytest.mark.parametrize(
    ("suffix", "how"),
    [
        ("wav", {"subtype": "PCM_U8"}),
        ("wav", {"subtype": "FLOAT"}),
        ("mp3", {}),
        ("ogg", {"subtype": "VORBIS"}),
        ("ogg", {"subtype": "OPUS"}),
    ],
)
def test_formats_channels_and_rates(morning, detector, tmp_path, suffix, how):
    wave = read_audio(morning, rate_hz=48_000)
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, np.stack([wave, wave * 0.5], 1), 48_000, **how)
    expected, _ = listen(morning, detector)
    found, listener = listen(path, detector, block_seconds=3.0)
    assert listener.num_channels == 2 and len(found) == len(expected)
    assert all(abs(a.start_seconds - b.start_seconds) < 0.2 for a, b in zip(found, expected, strict=True))


def test_another_speaker_is_another_segment(morning, detector):
    whole, _ = listen(morning, detector, rules=CutRules(max_pause_seconds=2.0))
    middle = whole[0].start_seconds + 1.5
    lines = (Line(0, middle, "a", "A"), Line(middle, 100, "b", "B"))
    found, _ = listen(morning, detector, rules=CutRules(max_pause_seconds=2.0), lines=lines)
    assert len(found) > len(whole) and any(abs(e.start_seconds - middle) < 0.05 for e in found)


def test_speech_without_a_pause_is_cut_and_memory_is_bounded(morning, detector, monkeypatch):
    from colabkit.pipelines.dataset.cut import excerpts

    monkeypatch.setattr(excerpts, "MOST_SECONDS", 6.0)
    excerpt = max(listen(morning, detector)[0], key=lambda e: len(e.wave))
    endless = np.tile(excerpt.wave[6_000:-6_000], 12)
    held = []
    monkeypatch.setattr(
        Listener, "_forget", lambda self, *a, old=Listener._forget: (held.append(len(self._wave)), old(self, *a))
    )
    rules = CutRules(max_seconds=4.0, max_pause_seconds=1.0, min_seconds=0.5)
    found, listener = listen(lambda: flac_bytes(endless, 24_000), detector, rules=rules, block_seconds=1.0)
    assert max(held) < 12 * 24_000 < len(endless)
    assert max(len(e.wave) for e in found) <= 4 * 24_000
    assert sum(len(e.wave) for e in found) > 0.85 * len(endless)


def test_long_silence_is_not_held(detector, monkeypatch):
    held = []
    monkeypatch.setattr(
        Listener, "_forget", lambda self, *a, old=Listener._forget: (held.append(len(self._wave)), old(self, *a))
    )
    found, listener = listen(lambda: flac_bytes(np.zeros(24_000 * 60, np.int16), 24_000), detector, block_seconds=2.0)
    assert not found and listener.speech_seconds == 0 and max(held) < 6 * 24_000


@pytest.mark.parametrize("spoil", [lambda c: c[: len(c) // 2], lambda c: b"", lambda c: b"<html>", lambda c: c[:100]])
def test_damaged_recordings_are_told(morning, detector, spoil, tmp_path):
    path = tmp_path / "a.flac"
    path.write_bytes(spoil(morning.read_bytes()))
    with pytest.raises(DataError):
        listen(path, detector, block_seconds=1.0)


def test_nan_and_no_samples_are_told(detector, tmp_path):
    for name, wave in (("nan.wav", np.array([0.1, np.nan] * 9_000)), ("empty.wav", np.zeros(0))):
        soundfile.write(tmp_path / name, wave, 16_000, subtype="FLOAT")
        with pytest.raises(DataError):
            listen(tmp_path / name, detector)


class Gone(ColabkitError):
    """What a store raises when it does not answer."""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of the callback that libsndfile calls
def test_a_store_that_does_not_answer_is_not_a_damaged_recording(morning, detector):
    content = morning.read_bytes()

    def read(start, stop):
        if start > len(content) // 3:
            raise Gone("no answer", fix="try again")
        return content[start:stop]

    with pytest.raises(Gone):
        listen(lambda: RangeFile(read, len(content), "far", window_bytes=4_096), detector, block_seconds=1.0)


def test_a_long_recording_takes_little_memory(morning, tmp_path):
    """20 minutes decoded as float32 would be 77 MB at 16 kHz, and as much again for the model."""
    wave = (read_audio(morning) * 32_767).astype(np.int16)
    path = tmp_path / "long.wav"
    with soundfile.SoundFile(path, "w", 16_000, 1, "PCM_16") as file:
        for _ in range(20 * 60 * 16_000 // len(wave)):
            file.write(wave)
    program = """
import resource, sys
from colabkit.pipelines.dataset.cut.excerpts import Listener
from colabkit.pipelines.dataset.cut.recordings import Recording
from colabkit.pipelines.dataset.segments.rules import CutRules
from colabkit.pipelines.dataset.cut.vad import load_detector
import soundfile, soxr
detector = load_detector()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
listener = Listener(Recording(key="a", version="", open=lambda: sys.argv[1]), detector, CutRules(), 16_000)
number = sum(1 for _ in listener.excerpts())
print(number, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    number, kibibytes = map(int, done.stdout.split())
    assert number > 100 and kibibytes < 60_000


@pytest.mark.skipif(not MEETINGS.is_dir(), reason="the recorded meetings are not here")
def test_speech_of_real_meetings_is_found(detector):
    """Against the annotation of speakers: most of what is annotated is in a segment, and little else is."""
    found_seconds = annotated = hit = 0.0
    for rttm in sorted(MEETINGS.glob("*.rttm")):
        turns = {}
        for row in rttm.read_text().splitlines():
            parts = row.split()
            turns.setdefault(parts[1], []).append((float(parts[3]), float(parts[3]) + float(parts[4])))
        for name, spans in turns.items():
            path = MEETINGS / f"{name}.wav"
            excerpts, listener = listen(path, detector, rate_hz=None)
            truth, ours = np.zeros(3_000, bool), np.zeros(3_000, bool)
            for start, stop in spans:
                truth[int(start * 100) : int(stop * 100)] = True
            for excerpt in excerpts:
                ours[int(excerpt.start_seconds * 100) : int(excerpt.stop_seconds * 100)] = True
            found_seconds, annotated, hit = (
                found_seconds + ours.sum(),
                annotated + truth.sum(),
                hit + (truth & ours).sum(),
            )
    assert annotated > 5_000 and hit / annotated > 0.75 and hit / found_seconds > 0.7
