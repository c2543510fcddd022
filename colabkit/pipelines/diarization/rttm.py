"""Turns of speakers, the RTTM and UEM files that hold them, and the frame grid a model works on.

RTTM and UEM: NIST Rich Transcription 2009 evaluation plan. Times are seconds from the start of the recording.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from colabkit.core import files
from colabkit.core.errors import DataError, UsageError

SAME_TIME_SECONDS = 1e-6  # closer times are one time: finer than any annotation, coarser than float noise
NUM_FAULTS_SHOWN = 5
RTTM_LINE = "SPEAKER <recording> <channel> <start> <duration> <NA> <NA> <speaker> <NA> <NA>"
UEM_LINE = "<recording> <channel> <start> <end>"
OTHER_RTTM_TYPES = frozenset(
    b"SPKR-INFO SEGMENT NOSCORE NO_RT_METADATA LEXEME NON-LEX NON-SPEECH FILLER EDIT IP SU CB A/P".split()
)


class Turn(NamedTuple):
    """One stretch of speech of one speaker, [start_seconds, end_seconds)."""

    start_seconds: float
    end_seconds: float
    speaker: str


class ByRecording(dict):
    """What a file holds, by recording; `dropped` lists the bad lines left out, `notes` other changes."""

    def __init__(self, content: dict[str, list], dropped: Sequence[str] = (), notes: Sequence[str] = ()):
        super().__init__(content)
        self.dropped, self.notes = tuple(dropped), tuple(notes)


def read_rttm(path: str | os.PathLike | bytes, *, strict: bool = True) -> ByRecording:
    """Read the SPEAKER lines of an RTTM file, or of its bytes, as {recording: [Turn, ...]}.

    Names are UTF-8. Comments (`;;`) and the other RTTM line types are passed over. A turn that overlaps
    another turn of its own speaker is merged with it; turns of zero duration are left out; both are counted
    in `.notes`. Channels of a recording are read as one.

    Raises DataError with the first bad lines (negative or non-finite times, wrong number of fields,
    undecodable names, unknown line types). With strict=False these are left out instead and listed in
    `.dropped`.
    """
    rows, dropped = _read_rows(path, "RTTM", _parse_speaker_line, RTTM_LINE, strict)
    by_recording: dict[str, list[Turn]] = {}
    channels: dict[str, set[bytes]] = {}
    num_empty = num_merged = 0
    for recording, channel, start, end, speaker in rows:
        turns = by_recording.setdefault(recording, [])
        channels.setdefault(recording, set()).add(channel)
        if end > start:
            turns.append(Turn(start, end, speaker))
        else:
            num_empty += 1
    for recording, turns in by_recording.items():
        by_recording[recording], num = merge_own_overlaps(turns)
        num_merged += num
    changes = {
        "turns merged with an overlapping turn of the same speaker": num_merged,
        "turns of zero duration left out": num_empty,
        "recordings have turns on several channels, read as one": sum(len(found) > 1 for found in channels.values()),
    }
    return ByRecording(by_recording, dropped, [f"{num} {what}" for what, num in changes.items() if num])


def read_uem(path: str | os.PathLike, *, strict: bool = True) -> ByRecording:
    """Read a UEM file as {recording: [(start, end), ...]}: the scored regions, overlapping ones joined.

    Faults are treated as in `read_rttm`.
    """
    rows, dropped = _read_rows(path, "UEM", _parse_uem_line, UEM_LINE, strict)
    regions: dict[str, list[tuple[float, float]]] = {}
    num_empty = 0
    for recording, start, end in sorted(rows):
        joined = regions.setdefault(recording, [])
        if end <= start:
            num_empty += 1
        elif joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    notes = [f"{num_empty} regions of zero duration left out"] if num_empty else []
    return ByRecording(regions, dropped, notes)


def write_rttm(path: str | os.PathLike, recording: str, turns: Iterable[Turn]) -> None:
    """Write the turns of one recording as an RTTM file, moved into place when complete."""
    files.write_atomic(path, format_rttm(recording, turns).encode("utf-8", errors="backslashreplace"))


def format_rttm(recording: str, turns: Iterable[Turn]) -> str:
    """Return RTTM text, sorted by time then speaker, times in milliseconds: same turns, same bytes.

    White space in names becomes `_`, as RTTM fields are separated by it. Both ends are rounded, not the
    duration, so turns that touch still touch; turns shorter than half a millisecond disappear.
    """
    turns = list(turns)
    check_turns(turns, what="Cannot write RTTM", negative_start_ok=False)
    safe = {name: _safe_name(name) for name in {turn.speaker for turn in turns}}
    if len(set(safe.values())) < len(safe):
        raise DataError(
            "Cannot write RTTM",
            got=sorted(safe),
            where=recording,
            expected="speaker names that differ when '_' replaces white space",
            fix="rename one",
        )
    name = _safe_name(recording)
    rows = sorted((round(start * 1000), round(end * 1000), safe[speaker]) for start, end, speaker in turns)
    return "".join(
        f"SPEAKER {name} 1 {start / 1000:.3f} {(end - start) / 1000:.3f} <NA> <NA> {speaker} <NA> <NA>\n"
        for start, end, speaker in rows
        if end > start
    )


def merge_own_overlaps(turns: Iterable[Turn]) -> tuple[list[Turn], int]:
    """Return the turns sorted, overlapping ones of a speaker made one, and how many vanished that way.

    Turns that only touch stay apart.
    """
    merged: list[Turn] = []
    latest: dict[str, int] = {}  # speaker -> place of their latest turn in merged
    num_merged = 0
    for turn in sorted(turns):
        place = latest.get(turn.speaker)
        if place is not None and turn.start_seconds < merged[place].end_seconds - SAME_TIME_SECONDS:
            num_merged += 1
            if turn.end_seconds > merged[place].end_seconds:
                merged[place] = merged[place]._replace(end_seconds=turn.end_seconds)
        else:
            latest[turn.speaker] = len(merged)
            merged.append(turn)
    return sorted(merged), num_merged


def check_turns(turns: Sequence[Turn], *, what: str, negative_start_ok: bool = True) -> None:
    """Raise DataError that counts and shows the turns whose times are not finite or run backwards."""
    earliest = -math.inf if negative_start_ok else 0.0
    bad = [turn for turn in turns if not (earliest <= turn[0] <= turn[1] < math.inf and turn[0] > -math.inf)]
    if bad:
        raise DataError(
            what,
            got=[tuple(turn) for turn in bad[:NUM_FAULTS_SHOWN]],
            expected="finite times, start <= end" + ("" if negative_start_ok else ", start >= 0"),
            where=f"{len(bad)} of {len(turns)} turns",
            fix="correct or remove these turns",
        )


def turns_to_frames(
    turns: Sequence[Turn], num_frames: int, frame_seconds: float, speakers: Sequence[str] | None = None
) -> tuple[np.ndarray, list[str]]:
    """Return who speaks in each frame, (frame, speaker) bool, and the names of its columns.

    Frame i covers [i, i + 1) * frame_seconds and belongs to a turn that holds its centre. What lies outside
    the frames is cut off. Columns follow `speakers`, or else who starts first.
    """
    if num_frames < 0 or not 0 < frame_seconds < math.inf:
        raise UsageError(
            "Cannot make frames",
            got=(num_frames, frame_seconds),
            expected="num_frames >= 0 and frame_seconds > 0",
            fix="correct these two arguments",
        )
    check_turns(turns, what="Cannot make frames")
    names = list(dict.fromkeys(turn.speaker for turn in sorted(turns)) if speakers is None else speakers)
    column_of = {name: column for column, name in enumerate(names)}
    strangers = sorted({turn.speaker for turn in turns} - column_of.keys())
    if strangers or len(column_of) < len(names):
        raise UsageError(
            "Cannot make frames",
            got=strangers or names,
            expected=f"speakers among {names}" if strangers else "each speaker once",
            fix="pass speakers= with every speaker of the turns, each once",
        )
    steps = np.zeros((num_frames + 1, len(names)), dtype=np.int32)
    if turns and names:
        starts, ends, who = zip(*turns, strict=True)
        columns = np.array([column_of[name] for name in who])
        edges = np.array([starts, ends]) / frame_seconds - 0.5
        # the small step back keeps a centre that equals a boundary on its side in spite of float noise
        first, stop = np.clip(np.ceil(edges - 1e-6), 0, num_frames).astype(np.intp)
        np.add.at(steps, (first, columns), 1)
        np.add.at(steps, (stop, columns), -1)
    return np.cumsum(steps[:-1], axis=0, dtype=np.int32) > 0, names


def frames_to_turns(
    active: np.ndarray,
    frame_seconds: float,
    names: Sequence[str],
    min_duration_on_seconds: float = 0.0,
    min_duration_off_seconds: float = 0.0,
) -> list[Turn]:
    """Return the turns of (frame, speaker) bool frames, sorted by time; inverse of `turns_to_frames`.

    First the pauses of a speaker shorter than min_duration_off_seconds are filled, then turns shorter than
    min_duration_on_seconds are left out.
    """
    active = np.asarray(active)
    if active.ndim != 2 or active.dtype != np.bool_ or active.shape[1] != len(names):
        raise UsageError(
            "Cannot make turns",
            got=f"{active.dtype} array of shape {active.shape}",
            expected=f"bool array (frame, {len(names)} speakers)",
            fix="threshold the scores first, and pass one name a column",
        )
    padded = np.zeros((active.shape[1], active.shape[0] + 2), dtype=np.int8)
    padded[:, 1:-1] = active.T
    steps = np.diff(padded, axis=1)
    speaker, first = np.nonzero(steps == 1)
    stop = np.nonzero(steps == -1)[1]
    if len(first) and min_duration_off_seconds > 0:
        pause = (first[1:] - stop[:-1]) * frame_seconds
        apart = (speaker[1:] != speaker[:-1]) | (pause > min_duration_off_seconds - SAME_TIME_SECONDS)
        opens, closes = np.r_[True, apart], np.r_[apart, True]
        speaker, first, stop = speaker[opens], first[opens], stop[closes]
    if min_duration_on_seconds > 0:
        kept = (stop - first) * frame_seconds > min_duration_on_seconds - SAME_TIME_SECONDS
        speaker, first, stop = speaker[kept], first[kept], stop[kept]
    order = np.lexsort((speaker, stop, first))
    starts, ends = (first[order] * frame_seconds).tolist(), (stop[order] * frame_seconds).tolist()
    who = [names[column] for column in speaker[order].tolist()]
    return list(map(Turn, starts, ends, who))


def _read_rows(
    path: str | os.PathLike | bytes,
    kind: str,
    parse: Callable[[list[bytes]], tuple | None],
    line_format: str,
    strict: bool,
) -> tuple[list[tuple], list[str]]:
    """Return the parsed lines and a text for each bad one; as bytes, split at ASCII white space alone."""
    try:
        data, path = (path, f"{kind} text") if isinstance(path, bytes) else (Path(path).read_bytes(), path)
    except OSError as error:
        raise DataError(
            f"Cannot read {kind} file",
            got=error.strerror,
            where=path,
            fix="check the path and that the file may be read",
        ) from error
    rows, faults = [], []
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        fields = line.split()
        if not fields or fields[0].startswith(b";;"):
            continue
        try:
            row = parse(fields)
        except ValueError as fault:
            shown = line[:60].decode("utf-8", errors="backslashreplace").strip()
            faults.append(f"line {number}: {fault} in {shown!r}")
        else:
            if row is not None:
                rows.append(row)
    if faults and strict:
        more = "" if len(faults) <= NUM_FAULTS_SHOWN else f"; and {len(faults) - NUM_FAULTS_SHOWN} more"
        raise DataError(
            f"Cannot use {len(faults)} lines of the {kind} file",
            expected=line_format,
            where=f"{path}, " + "; ".join(faults[:NUM_FAULTS_SHOWN]) + more,
            fix="correct or delete these lines, or read with strict=False to leave them out",
        )
    return rows, faults


def _parse_speaker_line(fields: list[bytes]) -> tuple[str, bytes, float, float, str] | None:
    if fields[0] != b"SPEAKER":
        if fields[0] in OTHER_RTTM_TYPES:
            return None
        raise ValueError("not an RTTM line type")
    if not 8 <= len(fields) <= 10:  # the last two are often left out; more means that a name holds a space
        raise ValueError(f"{len(fields)} fields instead of 10")
    start, duration = _parse_time(fields[3], "start"), _parse_time(fields[4], "duration")
    # start + duration without float noise, so that the end of a turn equals the start of the one that follows
    return _parse_name(fields[1]), fields[2], start, round(start + duration, 9), _parse_name(fields[7])


def _parse_uem_line(fields: list[bytes]) -> tuple[str, float, float]:
    if len(fields) != 4:
        raise ValueError(f"{len(fields)} fields instead of 4")
    start, end = _parse_time(fields[2], "start"), _parse_time(fields[3], "end")
    if end < start:
        raise ValueError(f"end {end} before start {start}")
    return _parse_name(fields[0]), start, end


def _parse_time(field: bytes, name: str) -> float:
    try:
        seconds = float(field)
    except ValueError:
        raise ValueError(f"{name} is not a number") from None
    if not math.isfinite(seconds):
        raise ValueError(f"{name} is {seconds}")
    if seconds < 0:
        raise ValueError(f"negative {name}")
    return seconds


def _parse_name(field: bytes) -> str:
    try:
        return field.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("name is not UTF-8") from None


def _safe_name(name: str) -> str:
    safe = re.sub(r"\s+", "_", str(name).strip())
    if not safe:
        raise DataError("Cannot write RTTM", got=name, expected="a name", fix="name recording and speakers")
    return safe
