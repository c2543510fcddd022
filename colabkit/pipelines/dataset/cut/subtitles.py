"""Subtitles beside a recording (SRT, WebVTT), or a table of lines with times: what is said when."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from colabkit.core.errors import DataError

SUBTITLE_SUFFIXES = (".srt", ".vtt")
_ARROW = re.compile(r"((?:\d+:)?\d{1,2}:\d{2}[.,]\d{1,3})\s*-->\s*((?:\d+:)?\d{1,2}:\d{2}[.,]\d{1,3})")
_VOICE = re.compile(r"<v(?:\.[^ >]*)?\s+([^>]*)>")
_TAG = re.compile(r"</?[^>]+>|\{\\[^}]*\}")
RECORDING_COLUMNS = ("recording", "file", "file_name", "audio", "name")
_START, _END = ("start", "start_seconds", "begin"), ("end", "end_seconds", "stop")
_TEXT, _SPEAKER = ("text", "transcript", "transcription", "sentence"), ("speaker", "speaker_id", "spk")
_MOSTLY = 0.8  # of a line inside a segment: it is said there
_HARDLY_SECONDS = 0.25  # of a line inside a segment: a rounding of its times


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a transcript. `stop_seconds` of infinity: the whole recording."""

    start_seconds: float
    stop_seconds: float
    text: str
    speaker: str = ""


def read_subtitles(content: bytes, where: str) -> list[Line]:
    """Read SRT or WebVTT, sorted by time; a voice tag (<v Anna>) is the speaker.

    Source: w3.org/TR/webvtt1. Raises: DataError for a text without a single line with times.
    """
    text = _decoded(content, where).replace("\r\n", "\n").replace("\r", "\n")
    found = []
    for block in re.split(r"\n[ \t]*\n", text):
        rows = block.strip("\n").split("\n")
        at = next((i for i, row in enumerate(rows) if _ARROW.search(row)), None)
        if at is None:
            continue
        start, stop = (_seconds(part) for part in _ARROW.search(rows[at]).groups())
        said = " ".join(rows[at + 1 :])
        voice = _VOICE.search(said)
        said = " ".join(html.unescape(_TAG.sub("", said)).split())
        if said and stop > start:
            found.append(Line(start, stop, said, voice[1].strip() if voice else ""))
    if not found:
        raise DataError(
            "There is no line with times in the subtitles",
            got=text[:80],
            where=where,
            expected="00:00:01,000 --> 00:00:02,500 and the text below",
            fix="correct the file, or remove it",
        )
    return sorted(found, key=lambda line: (line.start_seconds, line.stop_seconds))


def read_rows(content: bytes, where: str) -> list[dict[str, str]]:
    """Read a table (CSV or TSV with a header, or JSON lines) as rows of text. Raises: DataError for what is none."""
    text = _decoded(content, where)
    if not text.strip():
        raise DataError(
            "The table is empty", where=where, expected="a header and rows", fix="write it again, or leave it out"
        )
    if text.lstrip().startswith("{"):
        try:
            rows = [json.loads(row) for row in text.splitlines() if row.strip()]
        except ValueError as error:
            raise DataError(
                "Cannot read the table",
                got=str(error),
                expected="one JSON object a line",
                where=where,
                fix="correct the line, or write CSV",
            ) from error
        return [{str(k): "" if v is None else str(v) for k, v in row.items()} for row in rows if isinstance(row, dict)]
    first = text.splitlines()[0]
    separator = max("\t,;|", key=first.count)
    try:
        rows = list(csv.DictReader(io.StringIO(text), delimiter=separator))
    except csv.Error as error:
        raise DataError(
            "Cannot read the table",
            got=str(error),
            expected="CSV with a header",
            where=where,
            fix="write it again from its source",
        ) from error
    return [{k.strip(): (v or "").strip() for k, v in row.items() if k is not None} for row in rows]


def lines_by_recording(rows: Iterable[Mapping[str, str]], where: str) -> dict[str, list[Line]]:
    """Sort rows (recording, start, end, text, speaker) by recording; rows without times speak of the whole recording.

    Raises: DataError when no column names recordings or texts, or a time is no number.
    """
    found: dict[str, list[Line]] = {}
    for number, row in enumerate(rows, 2):
        name, text = _of(row, RECORDING_COLUMNS), _of(row, _TEXT)
        if name is None or text is None:
            missing = "recordings" if name is None else "texts"
            raise DataError(
                f"No column of the transcript names the {missing}",
                got=", ".join(row),
                where=where,
                expected=" or ".join((RECORDING_COLUMNS if name is None else _TEXT)[:2]),
                fix="rename the column",
            )
        start, stop = _of(row, _START) or "0", _of(row, _END) or "inf"
        try:
            line = Line(_seconds(start), _seconds(stop), text, _of(row, _SPEAKER) or "")
        except ValueError as error:
            raise DataError(
                "A time in the transcript is no number",
                got=f"{start}, {stop}",
                where=f"row {number} of {where}",
                expected="seconds, or h:mm:ss",
                fix="correct the row",
            ) from error
        if text and line.stop_seconds > line.start_seconds:
            found.setdefault(name, []).append(line)
    return {
        name: sorted(lines, key=lambda line: (line.start_seconds, line.stop_seconds)) for name, lines in found.items()
    }


def text_between(
    lines: Sequence[Line], start_seconds: float, stop_seconds: float, recording_seconds: float
) -> tuple[str | None, str]:
    """Return the text that is said in a span and its speaker ("" for several or none).

    The text is None when the span cuts a line: a part of its words would be said, all of them written.
    """
    inside, speakers, is_cut = [], set(), False
    for line in lines:
        stop = min(line.stop_seconds, recording_seconds)
        shared = min(stop, stop_seconds) - max(line.start_seconds, start_seconds)
        if shared <= 0:
            continue
        is_inside = shared >= _MOSTLY * (stop - line.start_seconds)
        if is_inside:
            inside.append(line.text)
        elif shared > _HARDLY_SECONDS:
            is_cut = True
        if is_inside or shared > _HARDLY_SECONDS:
            speakers.add(line.speaker)
    return None if is_cut else " ".join(inside), speakers.pop() if len(speakers) == 1 else ""


def marks(
    lines: Sequence[Line], first_frame: int, num_frames: int, frame_seconds: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return where another speaker begins, and where a cut would go through a line. Shape: both (frame,) bool."""
    breaks, inside = np.zeros(num_frames, bool), np.zeros(num_frames, bool)
    before = None
    for line in lines:
        if line.stop_seconds == np.inf:
            continue
        start = round(line.start_seconds / frame_seconds) - first_frame
        stop = round(line.stop_seconds / frame_seconds) - first_frame
        inside[max(0, start + 1) : max(0, stop)] = True
        if before is not None and line.speaker != before.speaker and line.speaker and before.speaker:
            place = round((before.stop_seconds + line.start_seconds) / 2 / frame_seconds) - first_frame
            if 0 <= place < num_frames:
                breaks[place] = True
        before = line
    return breaks, inside


def _decoded(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            "The text is not in UTF-8",
            got=f"byte {error.start}: {error.reason}",
            where=where,
            fix="convert it: iconv -f WINDOWS-1256 -t UTF-8 OLD > NEW (with its true encoding)",
        ) from error


def _of(row: Mapping[str, str], names: Sequence[str]) -> str | None:
    return next((row[name] for name in names if name in row), None)


def _seconds(text: str) -> float:
    """Read 12.5, 0:12.5, 1:02:03,250 or inf. Raises: ValueError."""
    total = 0.0
    for part in text.replace(",", ".").split(":"):
        total = total * 60 + float(part)
    if not total >= 0:
        raise ValueError(text)
    return total
