"""Real conversations: what belongs together is found, what does not is told, windows show the labels of their time."""

from __future__ import annotations

import numpy as np
import pytest

from colabkit.core.errors import DataError
from colabkit.io.audio import write_wav
from colabkit.pipelines.diarization.conversations.windows import RecordingWindows
from colabkit.pipelines.diarization.rttm import turns_to_frames
from colabkit.pipelines.diarization.speech.recordings import find_recordings, read_recording


def rttm(name, *turns):
    return "".join(f"SPEAKER {name} 1 {start} {seconds} <NA> <NA> {who} <NA> <NA>\n" for start, seconds, who in turns)


@pytest.fixture
def folder(tmp_path):
    """Two meetings of 20 s; where somebody talks the wave is 0.1 a speaker, so labels can be checked against it."""
    turns = {"one": [(0, 5, "ann"), (4, 6, "bob"), (12, 3, "ann")], "two": [(1, 8, "eve"), (10, 10, "ann")]}
    for name, rows in turns.items():
        wave = np.zeros(20 * 16_000, np.float32)
        for start, seconds, _ in rows:
            wave[start * 16_000 : (start + seconds) * 16_000] += 0.1
        write_wav(tmp_path / f"{name}.wav", wave, 16_000)
        (tmp_path / f"{name}.rttm").write_text(rttm(name, *rows))
    return tmp_path


def find(folder, told, pattern="*.rttm"):
    return find_recordings(str(folder), pattern, told)


def test_audio_and_labels_of_one_name_belong_together(folder, problems, told):
    found = find(folder, told)
    assert [r.name for r in found] == ["one", "two"] and problems == {}
    assert found[0].regions == ((0.0, 20.0),) and len(found[0].turns) == 3
    assert len(read_recording(found[0])) == 320_000


def test_no_folder_means_no_recordings_and_a_wrong_one_is_refused(tmp_path, told):
    assert find_recordings("", "*.rttm", told) == []
    for place in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(DataError) as caught:
            find(place, told)
        assert caught.value.fix


def test_bad_lines_are_told_and_the_good_ones_kept(folder, problems, told):
    path = folder / "one.rttm"
    path.write_text(path.read_text() + "SPEAKER one 1 -3 2 <NA> <NA> x <NA> <NA>\nrubbish\n")
    found = find(folder, told)
    assert len(found[0].turns) == 3 and list(problems) == ["one.rttm"]
    assert (
        "2 bad lines" in problems["one.rttm"] and "line 4" in problems["one.rttm"] and "line 5" in problems["one.rttm"]
    )


def test_labels_without_audio_and_audio_that_does_not_open_are_told(folder, problems, told):
    (folder / "lost.rttm").write_text(rttm("lost", (0, 1, "x")))
    (folder / "torn.rttm").write_text(rttm("torn", (0, 1, "x")))
    (folder / "torn.wav").write_bytes(b"RIFFno")
    assert [r.name for r in find(folder, told)] == ["one", "two"]
    assert set(problems) == {"lost", "torn.wav"} and "without an audio file" in problems["lost"]


def test_a_second_file_for_the_same_labels_is_told_and_left_aside(folder, problems, told):
    (folder / "zcopy").mkdir()
    (folder / "zcopy" / "one.wav").write_bytes((folder / "one.wav").read_bytes())
    (folder / "zcopy" / "all.rttm").write_text(rttm("one", (0, 20, "nobody")))
    found = find(folder, told)
    assert [r.name for r in found] == ["one", "two"] and {t.speaker for t in found[0].turns} == {"ann", "bob"}
    assert set(problems) == {"zcopy/one.wav", "all.rttm, one"}


def test_a_uem_bounds_what_is_labelled(folder, problems, told):
    (folder / "one.uem").write_text("one 1 2.0 6.0\none 1 8.0 400.0\n")
    (folder / "two.uem").write_text("two 1 30.0 40.0\n")  # beyond the end
    found = find(folder, told)
    assert [r.name for r in found] == ["one"] and found[0].regions == ((2.0, 6.0), (8.0, 20.0))
    assert "no region" in problems["two.wav"]


def test_a_pattern_chooses_label_files(folder, told):
    assert [r.name for r in find(folder, told, "two*.rttm")] == ["two"]


def test_windows_show_the_labels_of_their_own_time(folder, told):
    windows = RecordingWindows(find(folder, told), seed=0, window_seconds=4.0, max_speakers=3)
    for k in range(30):
        sample = windows.sample(k)
        assert sample.wave.shape == (64_000,) and sample.wave.dtype == np.float32 and (sample.speaker_ids == -1).all()
        assert sample.active.shape == (200, 3) and sample.active.dtype == sample.scored.dtype == bool
        level = sample.wave.reshape(200, 320).mean(1)
        level = np.round(level / max(level.max(), 1e-9) * sample.active.sum(1).max()).astype(int)
        assert np.mean(level[sample.scored] == sample.active.sum(1)[sample.scored]) > 0.98


def test_windows_are_pure_functions_of_seed_and_number(folder, told):
    found = find(folder, told)
    one, again, other = (RecordingWindows(found, seed=s, window_seconds=4.0, max_speakers=3) for s in (0, 0, 1))
    order = [one.sample(k).wave.tobytes() for k in range(5)]
    assert [again.sample(k).wave.tobytes() for k in (4, 3, 2, 1, 0)] == order[::-1] and len(set(order)) == 5
    assert [other.sample(k).wave.tobytes() for k in range(5)] != order


def test_frames_of_people_the_model_has_no_column_for_are_not_scored(folder, told):
    windows = RecordingWindows(find(folder, told)[:1], seed=0, window_seconds=20.0, max_speakers=1)
    labels = turns_to_frames(list(windows.recordings[0].turns), 1_000, 0.02, ["ann", "bob"])[0]
    for k in range(5):
        sample = windows.sample(k)
        inside = np.flatnonzero(sample.wave.reshape(-1, 320).any(1))
        start = np.flatnonzero(labels.any(1))[-1] - inside[-1]  # the window ends after the recording's last word or not
        part = np.zeros((1_000, 2), bool)
        part[: len(labels[start:])] = labels[start:]
        kept = part.sum(0).argmax()
        assert np.array_equal(sample.active[:, 0], part[:, kept])
        others = part[:, 1 - kept]
        assert not sample.scored[others].any() and sample.scored[: 1_000 - start][~others[: 1_000 - start]].all()


def test_what_lies_outside_the_uem_or_the_recording_is_not_scored(folder, told):
    (folder / "one.uem").write_text("one 1 0.0 6.0\n")
    windows = RecordingWindows(find(folder, told, "one.rttm"), seed=0, window_seconds=30.0, max_speakers=2)
    for k in range(10):
        sample = windows.sample(k)
        assert 0 < sample.scored.sum() <= 300 and not sample.scored[300:].any() and not sample.wave[320_000:].any()


def test_recordings_without_labelled_time_are_refused(folder, told):
    (folder / "one.uem").write_text("one 1 0.001 0.002\n")
    with pytest.raises(DataError, match="No labelled time"):
        RecordingWindows(find(folder, told, "one.rttm"), seed=0, window_seconds=2.0, max_speakers=2)


def test_real_meetings(real_data, problems, told):
    found = find(real_data / "meetings", told)
    assert len(found) == 12 and problems == {}
    assert all(r.regions == ((0.0, 30.0),) and r.turns for r in found)
    windows = RecordingWindows(found[:3], seed=0, window_seconds=8.0, max_speakers=2)
    samples = [windows.sample(k) for k in range(20)]
    assert all(np.isfinite(s.wave).all() and s.scored.any() for s in samples)
    talking = np.concatenate([np.square(s.wave.reshape(-1, 320)).mean(1)[s.scored & s.active.any(1)] for s in samples])
    silent = np.concatenate([np.square(s.wave.reshape(-1, 320)).mean(1)[s.scored & ~s.active.any(1)] for s in samples])
    assert talking.mean() > 2 * silent.mean()
