"""Recordings are found with all that is known of them: names, tables, subtitles, shards."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from colabkit.core.errors import DataError, UsageError
from colabkit.io.audio import read_audio, write_wav
from colabkit.io.samples.shards import ShardWriter, flac_bytes
from colabkit.pipelines.dataset.cut.recordings import find_recordings
from colabkit.pipelines.dataset.cut.subtitles import Line
from tests.pipelines.dataset.segments.archives import wave_of
from tests.told import Told

NAMES = ["Atheer/a_1.wav", "Atheer/b.c.wav", "Zad__x.wav", "قناة/صباح.wav"]


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(NAMES):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_wav(path, wave_of(number), 16_000)
    (tmp_path / "in" / "notes.txt").write_text("x")
    return tmp_path / "in"


def found_in(folder, tmp_path, **how):
    return find_recordings(str(folder), work=tmp_path / "work", **how)


def test_files_of_a_folder(folder, tmp_path):
    found = found_in(folder, tmp_path)
    assert [r.key for r in found] == [n[:-4] for n in NAMES] and [r.metadata["source"] for r in found] == NAMES
    assert [r.channel for r in found] == ["Atheer", "Atheer", "Zad", "قناة"] and not any(r.lines for r in found)
    assert np.allclose(read_audio(found[3].open()), wave_of(3), atol=1e-4)
    assert len({r.version for r in found}) == 4
    assert [r.key for r in found_in(folder, tmp_path, pattern="Atheer/*")] == ["Atheer/a_1", "Atheer/b.c"]


def test_a_changed_file_is_another_version(folder, tmp_path):
    before = [r.version for r in found_in(folder, tmp_path)]
    write_wav(folder / NAMES[0], wave_of(9, 3_000), 16_000)
    after = [r.version for r in found_in(folder, tmp_path)]
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, True, True, True]


def test_two_files_of_one_stem_keep_their_suffixes(folder, tmp_path):
    (folder / "Atheer/a_1.flac").write_bytes(flac_bytes(wave_of(), 16_000))
    assert [r.key for r in found_in(folder, tmp_path)][:3] == ["Atheer/a_1.flac", "Atheer/a_1.wav", "Atheer/b.c"]


def test_an_expression_reads_names(folder, tmp_path):
    found = found_in(folder, tmp_path, name_regex=r"(?P<channel>\w+)/(?P<speaker>\w)(?:_(?P<part>\d))?")
    assert (found[0].channel, found[0].speaker, found[0].metadata["part"]) == ("Atheer", "a", "1")
    assert (found[1].speaker, "part" in found[1].metadata) == ("b", False) and found[2].speaker == ""


@pytest.mark.parametrize("expression", ["(", "(x)"])
def test_expressions_that_cannot_be_are_told(folder, tmp_path, expression):
    with pytest.raises(UsageError) as caught:
        found_in(folder, tmp_path, name_regex=expression)
    assert "(?P<channel>" in caught.value.fix


def test_a_table_of_metadata_goes_before_names(folder, tmp_path):
    table = tmp_path / "about.csv"
    table.write_text("recording,speaker,channel,city\nAtheer/a_1.wav,سارة,New,Riyadh\nb.c,Ben,,\n", encoding="utf-8")
    found = found_in(folder, tmp_path, metadata=str(table))
    assert (found[0].speaker, found[0].channel, found[0].metadata["city"]) == ("سارة", "New", "Riyadh")
    assert (found[1].speaker, found[1].channel) == ("Ben", "Atheer") and found[2].speaker == ""
    plain = {r.key: r.identity for r in found_in(folder, tmp_path)}
    assert [r.identity == plain[r.key] for r in found] == [False, False, True, True]


def test_subtitles_beside_a_recording_and_broken_ones_are_told(folder, tmp_path):
    (folder / "Atheer/a_1.srt").write_text("1\n00:00:00,000 --> 00:00:00,100\nhi\n")
    (folder / "Zad__x.vtt").write_text("WEBVTT\n\n")
    told = Told()
    found = found_in(folder, tmp_path, teller=told)
    assert found[0].identity != replace(found[0], lines=()).identity
    assert found[0].lines == (Line(0.0, 0.1, "hi"),) and not found[2].lines and list(told.problems) == ["Zad__x.vtt"]


def test_a_table_of_lines(folder, tmp_path):
    table = tmp_path / "lines.csv"
    table.write_text("recording,start,end,text,speaker\na_1.wav,0,0.1,hi,A\nAtheer/a_1.wav,0.1,0.15,there,B\n")
    found = found_in(folder, tmp_path, transcript=str(table))
    assert [line.text for r in found for line in r.lines] == ["there"]  # the whole name goes before its last part
    table.write_text("recording,start,end,text\nother.wav,0,1,x\n")
    with pytest.raises(DataError, match="other recordings"):
        found_in(folder, tmp_path, transcript=str(table))
    with pytest.raises(DataError, match="table"):
        found_in(folder, tmp_path, transcript=str(tmp_path / "missing.csv"))


def test_shards_are_recordings_too(tmp_path):
    with ShardWriter(tmp_path / "in") as writer:
        for number in range(3):
            writer.add(
                f"c/{number}",
                flac_bytes(wave_of(number), 16_000),
                ".flac",
                {"speaker": f"s{number}", "text": "said" if number else "", "city": "R"},
            )
    found = found_in(tmp_path / "in", tmp_path)
    assert [(r.key, r.speaker, r.channel, r.metadata["city"]) for r in found] == [
        (f"c/{n}", f"s{n}", "c", "R") for n in range(3)
    ]
    assert [r.lines for r in found][1:] == [(Line(0.0, math.inf, "said", f"s{n}"),) for n in (1, 2)] and not found[
        0
    ].lines
    assert np.allclose(read_audio(found[2].open()), wave_of(2), atol=1e-4)


def test_nothing_to_find_is_told(folder, tmp_path):
    with pytest.raises(DataError, match="pattern|matches"):
        found_in(folder, tmp_path, pattern="*.mp3")
    with pytest.raises(UsageError):
        found_in(tmp_path / "missing", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        found_in(tmp_path / "empty", tmp_path)
