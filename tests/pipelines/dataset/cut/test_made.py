"""Made recordings: always the same, with speech where the transcript says."""

from __future__ import annotations

import numpy as np
import pytest

from colabkit.io.audio import audio_info, read_audio
from colabkit.pipelines.dataset.cut.made import CHANNELS, TRANSCRIPT, made_recordings
from colabkit.pipelines.dataset.cut.subtitles import lines_by_recording, read_rows

pytest.importorskip("espeakng_loader")


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_same_arguments_give_the_same_bytes(tmp_path, radio):
    made_recordings(tmp_path, seconds=9.0)
    assert contents(tmp_path) == contents(radio)
    assert set(contents(radio)) == {TRANSCRIPT, *(f"{channel}/morning.flac" for channel in CHANNELS)}
    made_recordings(tmp_path, seconds=9.0, seed=1)
    assert contents(tmp_path) != contents(radio)


def test_speech_is_where_the_transcript_says(radio):
    lines = lines_by_recording(read_rows((radio / TRANSCRIPT).read_bytes(), TRANSCRIPT), TRANSCRIPT)
    assert set(lines) == {f"{channel}/morning.flac" for channel in CHANNELS}
    for name, found in lines.items():
        wave, info = read_audio(radio / name), audio_info(radio / name)
        assert 9 <= info.duration_seconds < 24 and info.rate_hz == 24_000
        assert all(a.stop_seconds <= b.start_seconds for a, b in zip(found, found[1:], strict=False))
        inside = np.zeros(len(wave), bool)
        for line in found:
            inside[int(line.start_seconds * 16_000) : int(line.stop_seconds * 16_000)] = True
        after = np.arange(len(wave)) > 2.0 * 16_000  # the jingle
        spoken, beside = (float(np.sqrt(np.mean(wave[part] ** 2))) for part in (inside, ~inside & after))
        assert spoken > 20 * beside and beside > 1e-5
    assert len({line.speaker for found in lines.values() for line in found}) >= 4


def test_more_channels_than_names(tmp_path):
    paths = made_recordings(tmp_path, num_channels=4, seconds=3.0, speakers_a_channel=1)
    assert [p.parent.name for p in paths] == [*CHANNELS, "Atlas2"]
