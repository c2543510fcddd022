"""RTTM and UEM files, good and bad, and the way between turns and frames."""

from __future__ import annotations

import os
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from colabkit.core.errors import DataError, UsageError
from colabkit.pipelines.diarization.rttm import (
    Turn,
    format_rttm,
    frames_to_turns,
    merge_own_overlaps,
    read_rttm,
    read_uem,
    turns_to_frames,
    write_rttm,
)

REAL_DATA = Path(os.environ.get("COLABKIT_TEST_DATA", Path(__file__).parents[4] / "shared" / "data"))
GOOD = "SPEAKER rec 1 {start} {duration} <NA> <NA> {speaker} <NA> <NA>\n"


def line(start=0.0, duration=1.0, speaker="ann"):
    return GOOD.format(start=start, duration=duration, speaker=speaker)


@pytest.fixture
def save(tmp_path):
    def write(content, name="x.rttm"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


# --- reading RTTM ---


def test_reads_turns_by_recording_in_order_of_time(save):
    got = read_rttm(save(line(5.0, 1.5, "bob") + line(1.25, 0.75) + line().replace("rec", "autre")))
    assert got == {"rec": [Turn(1.25, 2.0, "ann"), Turn(5.0, 6.5, "bob")], "autre": [Turn(0.0, 1.0, "ann")]}
    assert got.dropped == () and got.notes == ()


def test_reads_names_beyond_ascii_and_keeps_other_white_space_in_them(save):
    got = read_rttm(save(line(speaker="MÉO069") + line(speaker="山田") + line(speaker="no\u00a0break")))
    assert {turn.speaker for turn in got["rec"]} == {"MÉO069", "山田", "no\u00a0break"}


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_reads_any_line_ending_byte_order_mark_and_nine_fields(save, ending):
    text = "\ufeff" + (line(0) + line(2).replace(" <NA>\n", "\n")).replace("\n", ending)
    assert read_rttm(save(text))["rec"] == [Turn(0, 1, "ann"), Turn(2, 3, "ann")]


def test_passes_over_comments_blank_lines_and_other_types(save):
    got = read_rttm(
        save(
            ";; made by hand\n\n  \nSPKR-INFO rec 1 <NA> <NA> <NA> unknown ann <NA> <NA>\n"
            "NON-SPEECH rec 1 0 1 <NA> noise <NA> <NA> <NA>\n" + line()
        )
    )
    assert got == {"rec": [Turn(0, 1, "ann")]} and got.dropped == ()


def test_empty_file_holds_no_recording(save):
    assert read_rttm(save("")) == {}


def test_touching_turns_touch_exactly(save):
    first, second = read_rttm(save(line(4.07, 0.48) + line(4.55, 2.79)))["rec"]
    assert first.end_seconds == second.start_seconds  # 4.07 + 0.48 is 4.550000000000001


def test_own_overlap_is_merged_and_zero_duration_left_out_with_notes(save):
    got = read_rttm(save(line(0, 4) + line(3, 3) + line(1, 1) + line(2, 1, "bob") + line(9, 0) + line(9, 0, "bob")))
    assert got["rec"] == [Turn(0, 6, "ann"), Turn(2, 3, "bob")]
    assert got.notes == (
        "2 turns merged with an overlapping turn of the same speaker",
        "2 turns of zero duration left out",
    )


def test_several_channels_are_noted(save):
    got = read_rttm(save(line() + line(5).replace("rec 1", "rec 2")))
    assert len(got["rec"]) == 2 and "several channels" in got.notes[0]


BAD_LINES = {
    line(1, -2): "negative duration",
    line(-1, 2): "negative start",
    line("nan", 1): "start is nan",
    line(1, "inf"): "duration is inf",
    line("1,5", 1): "start is not a number",
    "SPEAKER rec 1 0 1\n": "5 fields instead of 10",
    line(speaker="two words"): "11 fields instead of 10",
    "rec 1 0.0 30.0\n": "not an RTTM line type",
}


@pytest.mark.parametrize("bad", BAD_LINES)
def test_bad_line_is_named_with_file_number_and_reason(save, bad):
    path = save(line() + "\n" + bad)
    with pytest.raises(DataError) as caught:
        read_rttm(path)
    message = str(caught.value)
    assert "Cannot use 1 lines" in message and f"{path}, line 3: {BAD_LINES[bad]}" in message
    assert "fix:" in message and "strict=False" in message
    got = read_rttm(path, strict=False)
    assert got["rec"] == [Turn(0, 1, "ann")]
    assert len(got.dropped) == 1 and got.dropped[0].startswith(f"line 3: {BAD_LINES[bad]}")


def test_names_that_are_not_utf8_are_bad_lines(save):
    path = save(line().encode() + line(2, speaker="MÉO069").encode("latin-1"))
    with pytest.raises(DataError, match="line 2: name is not UTF-8"):
        read_rttm(path)
    assert len(read_rttm(path, strict=False)["rec"]) == 1


def test_many_bad_lines_are_counted_and_five_shown(save):
    path = save(line() + line(1, -1) * 40)
    with pytest.raises(DataError) as caught:
        read_rttm(path)
    message = str(caught.value)
    assert "Cannot use 40 lines" in message and message.count("negative duration") == 5 and "35 more" in message
    assert len(message.splitlines()) <= 5
    assert len(read_rttm(path, strict=False).dropped) == 40


def test_a_file_that_is_no_text_fails_with_a_short_message(save):
    data = np.random.default_rng(0).integers(0, 256, 200_000, dtype=np.uint8).tobytes()
    with pytest.raises(DataError) as caught:
        read_rttm(save(data))
    assert len(str(caught.value)) < 3000 and "\x00" not in str(caught.value)


def test_missing_file_and_folder_fail_with_the_path(tmp_path):
    for path in (tmp_path / "absent.rttm", tmp_path):
        with pytest.raises(DataError, match="Cannot read RTTM file") as caught:
            read_rttm(path)
        assert str(path) in str(caught.value)


# --- writing RTTM ---


def test_written_file_is_read_back_the_same(tmp_path):
    turns = [Turn(0.5, 1.25, "MÉO069"), Turn(0.75, 3.0, "b"), Turn(3.0, 3.001, "b")]
    write_rttm(tmp_path / "x.rttm", "réunion", turns)
    assert read_rttm(tmp_path / "x.rttm") == {"réunion": turns}
    assert [path.name for path in tmp_path.iterdir()] == ["x.rttm"]


def test_format_is_the_standard_ten_fields_and_deterministic():
    turns = [Turn(1, 2.5, "b"), Turn(1, 2.5, "a"), Turn(0.1, 0.2, "c")]
    text = format_rttm("rec", turns)
    assert text.splitlines()[0] == "SPEAKER rec 1 0.100 0.100 <NA> <NA> c <NA> <NA>"
    assert all(len(row.split()) == 10 for row in text.splitlines())
    assert text == format_rttm("rec", turns[::-1])
    assert [row.split()[7] for row in text.splitlines()] == ["c", "a", "b"]


def test_white_space_in_names_is_made_safe(tmp_path):
    write_rttm(tmp_path / "x.rttm", " my\tmeeting \u00a0 2.wav", [Turn(0, 1, "Ann  Lee"), Turn(0, 1, "AnnLee")])
    assert read_rttm(tmp_path / "x.rttm") == {"my_meeting_2.wav": [Turn(0, 1, "AnnLee"), Turn(0, 1, "Ann_Lee")]}


def test_names_that_would_become_one_are_refused():
    with pytest.raises(DataError, match="rename"):
        format_rttm("rec", [Turn(0, 1, "a b"), Turn(0, 1, "a_b")])
    for recording, speaker in (("", "a"), ("rec", " ")):
        with pytest.raises(DataError, match="a name"):
            format_rttm(recording, [Turn(0, 1, speaker)])


def test_rounding_keeps_touching_turns_touching():
    rng = np.random.default_rng(1)
    edges = np.cumsum(rng.uniform(0.0006, 0.003, 300)).tolist()
    text = format_rttm("r", [Turn(a, b, f"s{k % 3}") for k, (a, b) in enumerate(pairwise(edges))])
    rows = [row.split() for row in text.splitlines()]
    ends = [round(float(row[3]) + float(row[4]), 3) for row in rows]
    assert ends[:-1] == [float(row[3]) for row in rows[1:]]
    assert all(float(row[4]) > 0 for row in rows)


@pytest.mark.parametrize("bad", [Turn(-1, 1, "a"), Turn(2, 1, "a"), Turn(float("nan"), 1, "a")])
def test_bad_turns_are_not_written_and_the_old_file_stays(tmp_path, bad):
    path = tmp_path / "x.rttm"
    path.write_text("before")
    with pytest.raises(DataError, match="1 of 2 turns"):
        write_rttm(path, "rec", [Turn(0, 1, "a"), bad])
    assert path.read_text() == "before" and len(list(tmp_path.iterdir())) == 1


# --- UEM ---


def test_uem_regions_are_sorted_and_joined(save):
    got = read_uem(save(";; c\nb NA 5 6\nb NA 0.5 2\nb NA 1 3\nb NA 3 4\na 1 0.000 30.000\na 1 40 40\n", "x.uem"))
    assert got == {"a": [(0, 30)], "b": [(0.5, 4), (5, 6)]}
    assert got.notes == ("1 regions of zero duration left out",)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("a 1 5 4", "end 4.0 before start 5.0"),
        ("a 1 -1 4", "negative start"),
        ("a 1 4", "3 fields instead of 4"),
        ("a 1 0 nan", "end is nan"),
    ],
)
def test_bad_uem_line_is_named(save, bad, reason):
    path = save(f"a 1 0 1\n{bad}\n", "x.uem")
    with pytest.raises(DataError, match=f"line 2: {reason}"):
        read_uem(path)
    got = read_uem(path, strict=False)
    assert got == {"a": [(0, 1)]} and len(got.dropped) == 1


# --- merging ---


def test_merge_keeps_time_and_leaves_no_own_overlap():
    rng = np.random.default_rng(2)
    for _ in range(50):
        starts = rng.uniform(0, 20, 15)
        turns = [
            Turn(s, s + d, f"s{w}")
            for s, d, w in zip(
                starts.tolist(), rng.exponential(2, 15).tolist(), rng.integers(0, 3, 15).tolist(), strict=True
            )
        ]
        merged, num_merged = merge_own_overlaps(turns)
        assert merged == sorted(merged) and len(merged) == len(turns) - num_merged
        for who in ("s0", "s1", "s2"):
            own = [turn for turn in merged if turn.speaker == who]
            assert all(a.end_seconds <= b.start_seconds for a, b in pairwise(own))
        before, names = turns_to_frames(turns, 3000, 0.01, ["s0", "s1", "s2"])
        np.testing.assert_array_equal(before, turns_to_frames(merged, 3000, 0.01, names)[0])


# --- frames ---


def test_a_frame_belongs_to_the_turn_that_holds_its_centre():
    got, names = turns_to_frames([Turn(0.015, 0.055, "a"), Turn(0.05, 0.0501, "b")], 4, 0.02)
    assert names == ["a", "b"]
    # centres 0.01 0.03 0.05 0.07; a holds 0.03 and 0.05, b holds 0.05 where it starts
    np.testing.assert_array_equal(got.T, [[0, 1, 1, 0], [0, 0, 1, 0]])
    # a turn that ends on a centre does not hold it
    np.testing.assert_array_equal(turns_to_frames([Turn(0, 0.03, "a")], 3, 0.02)[0].T, [[1, 0, 0]])


def test_frames_agree_with_a_plain_loop():
    rng = np.random.default_rng(3)
    for _ in range(60):
        turns = [
            Turn(s, s + d, f"s{w}")
            for s, d, w in zip(rng.uniform(-1, 5, 12), rng.exponential(1, 12), rng.integers(0, 4, 12), strict=True)
        ]
        step = float(rng.choice([0.01, 0.02, 0.1]))
        got, names = turns_to_frames(turns, 40, step)
        centres = (np.arange(40) + 0.5) * step
        for column, name in enumerate(names):
            plain = [any(t.start_seconds <= c < t.end_seconds for t in turns if t.speaker == name) for c in centres]
            np.testing.assert_array_equal(got[:, column], plain)


def test_float_noise_does_not_move_a_boundary():
    for k in range(3000):  # turns on frame edges and on centres, written as decimals
        edge, centre = round(k * 0.02, 3), round(k * 0.02 + 0.01, 3)
        assert turns_to_frames([Turn(edge, edge + 0.02, "a")], k + 2, 0.02)[0].ravel().nonzero()[0].tolist() == [k]
        assert turns_to_frames([Turn(centre, centre + 0.02, "a")], k + 2, 0.02)[0].ravel().nonzero()[0].tolist() == [k]


def test_speakers_argument_sets_the_columns():
    got, names = turns_to_frames([Turn(0, 1, "b")], 2, 1.0, speakers=["a", "b", "c"])
    assert names == ["a", "b", "c"]
    np.testing.assert_array_equal(got, [[0, 1, 0], [0, 0, 0]])
    assert turns_to_frames([], 3, 1.0)[0].shape == (3, 0)
    assert turns_to_frames([], 3, 1.0, ["a"])[0].shape == (3, 1)
    assert turns_to_frames([Turn(0, 1, "a")], 0, 1.0)[0].shape == (0, 1)
    with pytest.raises(UsageError, match="'b'"):
        turns_to_frames([Turn(0, 1, "b")], 2, 1.0, speakers=["a"])
    with pytest.raises(UsageError, match="each speaker once"):
        turns_to_frames([Turn(0, 1, "a")], 2, 1.0, speakers=["a", "a"])
    for num_frames, step in ((-1, 1.0), (2, 0.0), (2, float("nan"))):
        with pytest.raises(UsageError):
            turns_to_frames([], num_frames, step)
    with pytest.raises(DataError):
        turns_to_frames([Turn(2, 1, "a")], 2, 1.0)


def test_frames_and_turns_are_inverse():
    rng = np.random.default_rng(4)
    for _ in range(50):
        active = rng.random((int(rng.integers(0, 60)), 3)) < rng.choice([0.1, 0.5, 0.9])
        turns = frames_to_turns(active, 0.02, ["a", "b", "c"])
        assert turns == sorted(turns)
        np.testing.assert_array_equal(turns_to_frames(turns, len(active), 0.02, ["a", "b", "c"])[0], active)


def test_frames_to_turns_gives_maximal_runs():
    active = np.array([[1, 0], [1, 1], [0, 1], [1, 1]], dtype=bool)
    assert frames_to_turns(active, 0.5, ["a", "b"]) == [Turn(0, 1, "a"), Turn(0.5, 2, "b"), Turn(1.5, 2, "a")]


def test_short_pauses_are_filled_before_short_turns_are_left_out():
    active = np.array([[1, 0, 1, 0, 0, 0, 1, 0, 0, 0], [0, 1, 1, 1, 0, 1, 0, 0, 0, 0]], dtype=bool).T
    got = frames_to_turns(active, 0.1, ["a", "b"], 0.2, 0.2)
    assert got == [Turn(0.0, 3 * 0.1, "a"), Turn(0.1, 6 * 0.1, "b")]
    # durations equal to the limits stay as they are
    assert len(frames_to_turns(active, 0.1, ["a", "b"], 0.1, 0.1)) == 5
    assert len(frames_to_turns(active, 0.1, ["a", "b"], 0.3 - 1e-9, 0.0)) == 1
    # a pause is one of the same speaker, never the step from one column to the next
    across = np.array([[0, 1], [1, 0]], dtype=bool)
    assert len(frames_to_turns(across, 0.1, ["a", "b"], 0.0, 10.0)) == 2


def test_frames_to_turns_refuses_scores_and_wrong_names():
    for bad, names in (
        (np.zeros((3, 2)), ["a", "b"]),
        (np.zeros((3, 2), bool), ["a"]),
        (np.zeros(3, bool), ["a"]),
    ):
        with pytest.raises(UsageError, match="bool array"):
            frames_to_turns(bad, 0.1, names)
    assert frames_to_turns(np.zeros((3, 2), bool), 0.1, ["a", "b"], 0.5, 0.5) == []


# --- real files ---


def test_real_rttms_are_read_as_pyannote_reads_them():
    paths = sorted(REAL_DATA.glob("turn_taking/*.rttm")) + sorted(REAL_DATA.glob("meetings/*.rttm"))
    if not paths:
        pytest.skip(f"no recordings in {REAL_DATA}")
    database = pytest.importorskip("pyannote.database.util")
    for path in paths:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = database.load_rttm(path)
        ours = read_rttm(path)
        assert ours.keys() == theirs.keys() and ours.dropped == ()
        for recording, turns in ours.items():
            assert {t.speaker for t in turns} == {str(label) for label in theirs[recording].labels()}
            mine = sum(t.end_seconds - t.start_seconds for t in turns)
            assert mine == pytest.approx(sum(s.duration for s, _ in theirs[recording].support().itertracks()), abs=1e-6)


def test_real_uems_are_read():
    paths = sorted(REAL_DATA.glob("meetings/*.uem"))
    if not paths:
        pytest.skip(f"no recordings in {REAL_DATA}")
    for path in paths:
        assert all(regions == [(0.0, 30.0)] for regions in read_uem(path).values())
