"""Subtitles and tables of lines: what is said in a span, and where it must not be cut."""

from __future__ import annotations

import math

import numpy as np
import pytest

from colabkit.core.errors import DataError
from colabkit.pipelines.dataset.cut.subtitles import (
    Line,
    lines_by_recording,
    marks,
    read_rows,
    read_subtitles,
    text_between,
)

SRT = """1
00:00:01,000 --> 00:00:02,500
مرحبا بالعالم،
كيف الحال؟

2
00:01:02,250 --> 00:01:03,5
<i>second</i> {\\an8}line

"""
VTT = """WEBVTT - a title

NOTE a remark

cue-7
00:03.000 --> 00:04.000 align:start
<v.loud Anna>Tea &amp; cake</v>

1:00:00.000 --> 1:00:01.000
<v Ben>late
"""


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.encode(),
        lambda t: t.replace("\n", "\r\n").encode("utf-8-sig"),
        lambda t: t.encode("utf-16"),
        lambda t: t.replace("\n", "\r").encode(),
    ],
)
def test_srt(change):
    assert read_subtitles(change(SRT), "a.srt") == [
        Line(1.0, 2.5, "مرحبا بالعالم، كيف الحال؟"),
        Line(62.25, 63.5, "second line"),
    ]


def test_vtt_with_voices():
    assert read_subtitles(VTT.encode(), "a.vtt") == [Line(3, 4, "Tea & cake", "Anna"), Line(3600, 3601, "late", "Ben")]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"WEBVTT\n\n",
        b"just text",
        "caf\xe9 -->".encode("latin-1"),
        b"1\n00:00:02,000 --> 00:00:01,000\nbackwards\n",
    ],
)
def test_subtitles_without_a_line_are_told(content):
    with pytest.raises(DataError) as caught:
        read_subtitles(content, "here.srt")
    assert "here.srt" in str(caught.value) and caught.value.fix


@pytest.mark.parametrize(
    "text",
    [
        'recording,start,end,text\na.wav,1,2.5,"x, y"\n',
        "recording\tstart\tend\ttext\na.wav\t1\t2.5\tx, y\n",
        "recording;start;end;text\na.wav;0:01;0:02.5;x, y\n",
        '{"recording": "a.wav", "start": 1, "end": 2.5, "text": "x, y"}\n',
    ],
)
def test_tables_of_all_kinds(text):
    assert lines_by_recording(read_rows(text.encode(), "t"), "t") == {"a.wav": [Line(1, 2.5, "x, y")]}


def test_rows_without_times_speak_of_the_whole_recording():
    lines = lines_by_recording(read_rows(b"file,sentence,speaker\na.wav,hello,Anna\nb.wav,,Ben\n", "t"), "t")
    assert lines == {"a.wav": [Line(0, math.inf, "hello", "Anna")]}
    assert text_between(lines["a.wav"], 0.4, 3.8, 4.0) == ("hello", "Anna")
    assert text_between(lines["a.wav"], 0.4, 2.0, 4.0) == (None, "Anna")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "start,end,text\n1,2,x\n",
        "recording,start,end\na,1,2\n",
        "recording,start,end,text\na,one,2,x\n",
        "recording,start,end,text\na,-1,2,x\n",
        "{not json\n",
    ],
)
def test_tables_that_cannot_be_read_are_told(text):
    with pytest.raises(DataError) as caught:
        lines_by_recording(read_rows(text.encode(), "here.csv"), "here.csv")
    assert "here.csv" in str(caught.value)


LINES = [Line(1, 2, "one", "A"), Line(2.1, 4, "two", "A"), Line(5, 6, "three", "B")]


@pytest.mark.parametrize(
    ("start", "stop", "found"),
    [
        (0.9, 4.1, ("one two", "A")),
        (1.1, 3.9, ("one two", "A")),
        (4.9, 6.1, ("three", "B")),
        (0, 9, ("one two three", "")),
        (4.1, 4.9, ("", "")),
        (1.5, 4, (None, "A")),
        (0, 3, (None, "A")),
        (0.9, 2.2, ("one", "A")),
        (3.0, 6.1, (None, "")),
    ],
)
def test_what_is_said_in_a_span(start, stop, found):
    assert text_between(LINES, start, stop, 10) == found


def test_marks():
    breaks, inside = marks(LINES, 0, 100, 0.1)
    assert np.flatnonzero(breaks).tolist() == [45]
    assert inside[15] and inside[30] and not inside[[5, 10, 21, 45, 70]].any()
    shifted = marks(LINES, 40, 60, 0.1)
    assert np.flatnonzero(shifted[0]).tolist() == [5] and np.array_equal(shifted[1], inside[40:])
    assert not marks([Line(0, math.inf, "x")], 0, 50, 0.1)[1].any()
