"""Recordings become segments: counted, described, the same after any kill, and never twice the work."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from colabkit.core.errors import ChangedError, DataError, StateError, Stopped, UsageError
from colabkit.io.audio import read_audio, write_wav
from colabkit.io.samples.index import FILE_NAME, SampleIndex
from colabkit.io.samples.shards import ShardWriter, flac_bytes
from colabkit.pipelines.dataset.cut import step
from colabkit.pipelines.dataset.cut.excerpts import Listener
from colabkit.pipelines.dataset.cut.made import CHANNELS, TRANSCRIPT
from colabkit.pipelines.dataset.cut.outputs import WORK
from colabkit.pipelines.dataset.cut.recordings import find_recordings
from colabkit.pipelines.dataset.cut.step import SUMMARY, build_segments
from colabkit.pipelines.dataset.cut.subtitles import Line
from colabkit.pipelines.dataset.segments.rules import CutRules, Filters
from colabkit.pipelines.dataset.segments.walk import segment_rows
from tests.told import Told

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.skipif(importlib.util.find_spec("silero_vad") is None, reason="silero-vad is not installed")
SPEECH = (
    Path(os.environ.get("COLABKIT_TEST_DATA", Path(__file__).resolve().parents[5] / "shared" / "data"))
    / "librispeech-mini"
)


@pytest.fixture
def recordings(radio, tmp_path):
    return find_recordings(str(radio), work=tmp_path / "index", transcript=str(radio / TRANSCRIPT))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and WORK not in p.parts
    }


@pytest.mark.parametrize("layout", ["npz", "flac", "pcm"])
def test_the_radio_becomes_segments(recordings, radio, tmp_path, layout):
    built = build_segments(recordings, tmp_path / "out", layout=layout)
    found = list(segment_rows(tmp_path / "out"))
    assert built.num_recordings == 3 and built.num_segments == len(found) >= 6 and not built.broken
    assert sum(s.seconds for s in found) == pytest.approx(built.segment_seconds, abs=0.01)
    assert {s.channel for s in found} == set(CHANNELS) and all(s.rate_hz == 24_000 for s in found)
    assert all(s.text and s.speaker for s in found) and built.num_with_text == len(found)
    assert len({s.speaker for s in found}) >= 4
    for segment in found:
        assert 1 <= segment.seconds <= 15 and segment.key.startswith(segment.channel + "/morning__")
        assert float(segment.metadata["start_seconds"]) > 1.9  # after the jingle
        whole = read_audio(radio / segment.metadata["source"], rate_hz=24_000)
        start = round(float(segment.metadata["start_seconds"]) * 24_000)
        assert np.abs(segment.wave - whole[start : start + len(segment.wave)]).max() < 3e-5
    summary = json.loads((tmp_path / "out" / SUMMARY).read_text())
    assert "segments" in str(built.table()) and summary["built"]["num_recordings"] == 3


def test_the_texts_are_those_of_the_transcript(recordings, radio, tmp_path):
    build_segments(recordings, tmp_path / "out")
    written = (radio / TRANSCRIPT).read_text()
    index = SampleIndex.load(tmp_path / "out" / FILE_NAME)
    said = [line.text for r in recordings for line in r.lines]
    assert len(set(index.column("text"))) == len(index) and all(
        any(t in text for t in said) for text in index.column("text")
    )
    assert all(any(part in written for part in (text, text[:20])) for text in index.column("text"))


def test_done_it_returns_at_once_and_cuts_nothing_again(recordings, tmp_path, monkeypatch):
    built = build_segments(recordings, tmp_path / "out")
    before = contents(tmp_path / "out")
    monkeypatch.setattr(Listener, "excerpts", lambda self: pytest.fail("cut again"))
    assert build_segments(recordings, tmp_path / "out") == built and contents(tmp_path / "out") == before
    assert not (tmp_path / "out" / WORK).exists()


@pytest.mark.parametrize("layout", ["npz", "flac"])
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_workers_change_nothing(recordings, tmp_path, layout, workers):
    how = {"layout": layout, **({} if layout == "npz" else {"shard_bytes": 300_000})}
    one = build_segments(recordings, tmp_path / "a", workers=1, **how)
    assert build_segments(recordings, tmp_path / "b", workers=workers, **how) == one
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize("layout", ["npz", "flac"])
def test_killed_before_any_file_operation_it_goes_on(recordings, tmp_path, killer, no_fsync, layout, monkeypatch):
    cuts = []
    monkeypatch.setattr(
        Listener, "excerpts", lambda self, old=Listener.excerpts: (cuts.append(self.recording.key), old(self))[1]
    )
    how = {"layout": layout, "workers": 0, "most_segments": 2, **({} if layout == "npz" else {"shard_bytes": 250_000})}
    wanted = build_segments(recordings, tmp_path / "whole", **how)
    cuts.clear()
    after = 0
    while True:
        after += 1
        with killer(tmp_path / "out", after) as record:  # each time a few operations further than the last
            built = build_segments(recordings, tmp_path / "out", **how)
        if not record["dead"]:
            break
    assert after > 5 and built == wanted and contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert set(cuts) == {r.key for r in recordings}


def test_kills_do_not_make_more_work_than_the_recording_in_hand(recordings, tmp_path, killer, no_fsync, monkeypatch):
    cuts = []
    monkeypatch.setattr(
        Listener, "excerpts", lambda self, old=Listener.excerpts: (cuts.append(self.recording.key), old(self))[1]
    )
    kills = 0
    for _ in range(40):
        with killer(tmp_path / "out", 25) as record:
            build_segments(recordings, tmp_path / "out", workers=0, most_segments=2, shard_bytes=250_000)
        if not record["dead"]:
            break
        kills += 1
    assert kills >= 2 and len(cuts) <= len(recordings) + kills


@pytest.mark.parametrize("layout", ["npz", "flac"])
def test_kill_9_of_a_real_process(radio, tmp_path, recordings, layout):
    wanted = build_segments(recordings, tmp_path / "whole", layout=layout, shard_bytes=300_000)
    program = f"""
import sys
from pathlib import Path
from colabkit.pipelines.dataset.cut.step import build_segments
from colabkit.pipelines.dataset.cut.recordings import find_recordings
place, radio = Path(sys.argv[1]), sys.argv[2]
found = find_recordings(radio, work=place / "index", transcript=radio + "/{TRANSCRIPT}")
print("READY", flush=True)
build_segments(found, place / "out", layout="{layout}", shard_bytes=300_000, workers=2)
"""
    started = [sys.executable, "-c", program, str(tmp_path), str(radio)]
    for delay in (0.05, 0.3, 0.5):
        process = subprocess.Popen(started, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert process.stdout.readline() == b"READY\n"
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert subprocess.run(started, capture_output=True).returncode == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert json.loads((tmp_path / "out" / SUMMARY).read_text())["built"]["num_segments"] == wanted.num_segments


def test_stopped_in_good_order_it_goes_on(recordings, tmp_path):
    asked = []
    with pytest.raises(Stopped) as caught:
        build_segments(recordings, tmp_path / "out", workers=0, teller=Told(lambda: asked.append(1) or len(asked) == 2))
    assert "2 of 3" in str(caught.value)
    assert build_segments(recordings, tmp_path / "out") == build_segments(recordings, tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_more_recordings_are_added_to_loose_files(recordings, tmp_path, monkeypatch):
    build_segments(recordings[:2], tmp_path / "out", layout="npz")
    cuts = []
    monkeypatch.setattr(
        Listener, "excerpts", lambda self, old=Listener.excerpts: (cuts.append(self.recording.key), old(self))[1]
    )
    built = build_segments(recordings, tmp_path / "out", layout="npz")
    assert cuts == [recordings[2].key] and built.num_recordings == 3
    assert built.num_segments == len(list(segment_rows(tmp_path / "out")))


def test_other_settings_in_a_begun_folder_are_told(recordings, tmp_path):
    with pytest.raises(Stopped):
        build_segments(recordings, tmp_path / "out", workers=0, teller=Told(lambda: True))
    with pytest.raises(ChangedError, match="max_seconds=9"):
        build_segments(recordings, tmp_path / "out", rules=CutRules(max_seconds=9.0))


def test_what_is_done_is_never_replaced_by_something_else(recordings, tmp_path):
    for layout in ("flac", "npz"):
        build_segments(recordings, tmp_path / layout, layout=layout)
        before = contents(tmp_path / layout)
        with pytest.raises(ChangedError, match="max_seconds=9"):
            build_segments(recordings, tmp_path / layout, layout=layout, rules=CutRules(max_seconds=9.0))
        assert contents(tmp_path / layout) == before
    with pytest.raises(ChangedError, match="other recordings"):
        build_segments(recordings[:2], tmp_path / "flac")
    assert contents(tmp_path / "flac").keys() >= {SUMMARY, FILE_NAME, "00000.tar"}


def test_what_is_left_out_is_counted(recordings, tmp_path):
    rules = CutRules(min_seconds=3.0, max_seconds=7.0)
    built = build_segments(recordings, tmp_path / "b", rules=rules)
    assert built.left_out["too short"] >= 1 and built.left_out_seconds["too short"] > 0.5
    assert all(3 <= s.seconds <= 7 for s in segment_rows(tmp_path / "b"))
    assert "left out: too short" in str(built.table())
    with pytest.raises(DataError, match="Not a single segment") as caught:
        build_segments(recordings, tmp_path / "c", filters=Filters(min_loudness_lufs=-10))
    assert "too quiet" in str(caught.value)


def test_clipped_and_noisy_recordings_are_left_out(radio, tmp_path):
    wave = read_audio(radio / "Atlas/morning.flac")
    (tmp_path / "in").mkdir()
    write_wav(tmp_path / "in" / "clipped.wav", np.clip(wave * 30, -0.999, 0.999), 16_000)
    noise = np.random.default_rng(0).standard_normal(len(wave)).astype(np.float32)
    write_wav(tmp_path / "in" / "noisy.wav", np.clip(wave * 0.5 + noise * 0.03, -1, 1), 16_000)
    write_wav(tmp_path / "in" / "good.wav", wave, 16_000)
    found = find_recordings(str(tmp_path / "in"), work=tmp_path / "index")
    built = build_segments(found, tmp_path / "out")
    assert {s.metadata["source"] for s in segment_rows(tmp_path / "out")} == {"good.wav"}
    assert (
        built.left_out["clipped"] >= 1 and built.left_out.get("noisy", 0) + built.left_out.get("music or noise", 0) >= 1
    )


def test_broken_recordings_are_told_and_the_others_go_on(radio, tmp_path):
    (tmp_path / "in").mkdir()
    whole = (radio / "Atlas/morning.flac").read_bytes()
    (tmp_path / "in" / "a_empty.wav").write_bytes(b"")
    (tmp_path / "in" / "b_page.mp3").write_bytes(b"<!doctype html>")
    (tmp_path / "in" / "c_good.flac").write_bytes(whole)
    soundfile.write(tmp_path / "in" / "d_nan.wav", np.array([0.1, np.nan] * 9_000), 16_000, subtype="FLOAT")
    told = Told()
    found = find_recordings(str(tmp_path / "in"), work=tmp_path / "index")
    built = build_segments(found, tmp_path / "out", teller=told)
    assert set(told.problems) == set(built.broken) == {"a_empty", "b_page", "d_nan"} and built.num_segments >= 2
    assert all(s.metadata["source"] == "c_good.flac" and s.channel == "c" for s in segment_rows(tmp_path / "out"))
    with pytest.raises(DataError, match="Not a single segment"):
        build_segments(found[:2], tmp_path / "none")


def test_segments_that_cut_a_line_are_kept_without_its_text(recordings, tmp_path):
    middle = recordings[0].lines[0].start_seconds + 1.0
    lines = (replace(recordings[0].lines[0], stop_seconds=middle), Line(middle, middle + 60, "goes on for long", "B"))
    built = build_segments([replace(recordings[0], lines=lines)], tmp_path / "out")
    found = list(segment_rows(tmp_path / "out"))
    assert built.num_cut_lines >= 1 and built.num_with_text + built.num_cut_lines == len(found)
    assert sum(not s.text for s in found) == built.num_cut_lines and {s.speaker for s in found if not s.text} == {"B"}


def test_an_utterance_with_its_text_stays_in_one_piece(radio, recordings, tmp_path):
    said = recordings[0].lines[:2]
    start, stop = (int(seconds * 16_000) for seconds in (said[0].start_seconds, said[1].stop_seconds))
    wave = read_audio(radio / recordings[0].metadata["source"])[start:stop]
    with ShardWriter(tmp_path / "in") as writer:
        writer.add("a", flac_bytes(wave, 16_000), ".flac", {"text": "all of it", "speaker": "x"})
    found = find_recordings(str(tmp_path / "in"), work=tmp_path / "index")
    build_segments(found, tmp_path / "out", rules=CutRules(max_pause_seconds=0.2))
    assert [(s.text, s.speaker) for s in segment_rows(tmp_path / "out")] == [("all of it", "x")]


def test_what_is_known_of_a_recording_is_part_of_it(recordings, tmp_path, monkeypatch):
    """Told another channel, it is cut again and not taken from what is kept."""
    cuts = []
    old = Listener.excerpts
    monkeypatch.setattr(Listener, "excerpts", lambda self: (cuts.append(self.recording.channel), old(self))[1])
    build_segments(recordings[:1], tmp_path / "out", layout="npz")
    build_segments([replace(recordings[0], channel="New")], tmp_path / "out", layout="npz")
    others = (Line(0.0, 9.0, "x", "A"), Line(9.0, 99.0, "y", "B"))  # cut at other places: none of before may stay
    built = build_segments([replace(recordings[0], channel="New", lines=others)], tmp_path / "out", layout="npz")
    assert built.num_segments == len(list(segment_rows(tmp_path / "out")))
    assert cuts == ["Atlas", "New", "New"] and {s.channel for s in segment_rows(tmp_path / "out")} == {"New"}


def test_loudness_can_be_made_the_same(recordings, tmp_path):
    from colabkit.pipelines.dataset.segments.loudness import loudness_lufs

    build_segments(recordings, tmp_path / "out", filters=Filters(normalise_lufs=-30.0))
    assert all(abs(loudness_lufs(s.wave, s.rate_hz) + 30) < 0.3 for s in segment_rows(tmp_path / "out"))


@pytest.mark.parametrize(
    "how",
    [
        {"layout": "mp3"},
        {"rate_hz": 100},
        {"rules": CutRules(min_seconds=0)},
        {"filters": Filters(max_clipped_fraction=3)},
    ],
)
def test_settings_that_cannot_be_are_told_before_anything_is_done(recordings, tmp_path, how):
    with pytest.raises(UsageError):
        build_segments(recordings, tmp_path / "out", **how)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("layout", ["npz", "flac"])
def test_a_full_disk_is_told_and_when_there_is_room_it_goes_on(recordings, tmp_path, layout):
    place = tmp_path / "small"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(place)], capture_output=True).returncode:
        pytest.skip("this machine does not allow to mount")
    try:
        with pytest.raises(StateError) as caught:
            build_segments(recordings, place / "out", layout=layout, workers=0)
        assert caught.value.fix
        subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True)
        build_segments(recordings, place / "out", layout=layout)
        build_segments(recordings, tmp_path / "whole", layout=layout)
        assert contents(place / "out") == contents(tmp_path / "whole")
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.skipif(not SPEECH.is_dir(), reason="the recorded speech is not here")
def test_real_speech_is_kept(tmp_path):
    found = find_recordings(str(SPEECH), work=tmp_path / "index", pattern="1*", name_regex=r"^(?P<speaker>\d+)-")[:30]
    built = build_segments(found, tmp_path / "out", rate_hz=None)
    assert built.segment_seconds > 0.8 * built.recorded_seconds and not built.broken
    assert set(built.left_out) <= {"noisy", "too short"} and sum(built.left_out.values()) < 0.1 * built.num_segments
    speakers = {s.speaker for s in segment_rows(tmp_path / "out")}
    assert speakers <= {r.speaker for r in found} and len(speakers) > 0.9 * len(found)  # some read in noise
    assert step.RATE_HZ != 16_000 and {s.rate_hz for s in segment_rows(tmp_path / "out")} == {16_000}
