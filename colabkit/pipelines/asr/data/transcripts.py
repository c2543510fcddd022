"""Transcripts that lie beside audio files: tables, LibriSpeech's *.trans.txt, and NAME.txt beside NAME.wav."""

from __future__ import annotations

import csv
import difflib
import io
import json
import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colabkit.core.errors import DataError, UsageError
from colabkit.core.teller import Teller
from colabkit.io.places import Pinned, StoredObject
from colabkit.io.samples.columns import match_columns

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
_BESIDE_SUFFIXES = (".txt", ".lab", ".text")
_LARGEST_BESIDE_BYTES = 1 << 16  # a longer text file is not the transcript of one recording
_PATHS = (
    "file_name",
    "audio_filepath",
    "audio_path",
    "audio_file",
    "audio_filename",
    "wav_filename",
    "path",
    "wav",
    "audio",
    "filename",
    "file",
    "clip",
    "recording",
    "id",
    "utterance_id",
    "key",
)
_TEXTS = ("wrd", "words", "trans", "raw_transcription", "utterance")  # besides the usual names of the role
_NOT_OURS = {
    "invalidated.tsv",
    "other.tsv",
    "reported.tsv",
    "clip_durations.tsv",
    "validated_sentences.tsv",
    # of Common Voice: refused or not yet checked recordings, and lists of sentences
    "unvalidated_sentences.tsv",
}
_LARGEST_FIELD = 1 << 24


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said in a file, who says it where that is known, and which file says so."""

    text: str
    speaker: str
    origin: str


def find_transcripts(
    store: Pinned, audio: Iterable[str], teller: Teller, *, setting: str = "", columns: Mapping[str, str]
) -> dict[str, Transcript]:
    """Return {audio file: transcript} for the files below a store's root.

    `setting` names one table, or "*.trans.txt"; without it all are looked at: *.trans.txt, then tables, then texts
    beside the audio, and the first that knows a file is taken. What was used is told as a choice. Raises: UsageError
    for a setting that names nothing; DataError where no file has a transcript, or a table cannot be read.
    """
    names = _Names(audio)
    objects = {o.name: o for o in store.list()}
    found: dict[str, Transcript] = {}
    used: Counter[str] = Counter()
    seen: list[str] = []  # tables without a text or file column, with their columns
    for origin, rows in _origins(store, objects, names, setting, columns, seen):
        for name, text, speaker in rows:
            if name not in found:
                found[name] = Transcript(text, speaker, origin)
                used[origin] += 1
            elif found[name].origin == origin and found[name].text != text:
                teller.problem(name, f"{origin} gives it several transcripts; the first is taken")
    if not found:
        fix = (
            "name the table with data.transcripts, "
            "and its columns with data.columns=text=COLUMN and data.columns=audio=COLUMN"
        )
        raise DataError(
            "The source has no transcripts of its audio",
            got="; ".join(seen) or f"{len(names)} audio files alone",
            expected="*.trans.txt, NAME.txt beside NAME.wav, or a table (.csv, .tsv, .jsonl, .json) with the names "
            "of audio files and their text",
            where=store.address,
            fix=fix,
        )
    teller.choose(
        "data.transcripts",
        ", ".join(list(used)[:4]) + (f" and {len(used) - 4} more" if len(used) > 4 else ""),
        f"{len(found)} of {len(names)} audio files have one there",
    )
    return found


def is_table(address: str) -> bool:
    """Say whether an address is a file of this machine that holds transcripts, and not a folder."""
    return address.lower().endswith(TABLE_SUFFIXES) and os.path.isfile(os.path.expanduser(address))


def _origins(
    store: Pinned,
    objects: dict[str, StoredObject],
    names: _Names,
    setting: str,
    columns: Mapping[str, str],
    seen: list[str],
) -> Iterator[tuple[str, Iterator[tuple[str, str, str]]]]:
    """Yield what holds transcripts, and its rows (audio file, text, speaker)."""
    if setting and not setting.endswith(".trans.txt"):
        name, content = _read_setting(store, objects, setting)
        yield name, _table_rows(name, content, names, columns, seen, store.address)
        return
    listed = [o for o in objects if o.endswith(".trans.txt")]
    if listed:
        yield (
            "*.trans.txt",
            (row for name in listed for row in _librispeech_rows(name, _text(store.read(name), name), names)),
        )
    if setting:
        return
    tables = [o for o in objects if o.lower().endswith(TABLE_SUFFIXES) and posixpath.basename(o) not in _NOT_OURS]
    validated = {posixpath.dirname(o) for o in tables if posixpath.basename(o) == "validated.tsv"}
    for name in sorted(tables):
        if (
            name.endswith(".tsv")
            and posixpath.dirname(name) in validated
            and posixpath.basename(name) != "validated.tsv"
        ):
            continue  # Common Voice's train, dev and test are parts of it
        yield name, _table_rows(name, store.read(name), names, columns, seen, store.address)
    yield "a text beside each file", _beside_rows(store, objects, names)


def _read_setting(store: Pinned, objects: dict[str, StoredObject], setting: str) -> tuple[str, bytes]:
    if setting in objects:
        return setting, store.read(setting)
    path = Path(setting).expanduser()
    if path.is_file():
        inside = os.path.relpath(os.path.realpath(path), store.address) if os.path.isdir(store.address) else path.name
        return (path.name if inside.startswith("..") else inside.replace(os.sep, "/")), path.read_bytes()
    near = difflib.get_close_matches(
        setting, [o for o in objects if o.lower().endswith(TABLE_SUFFIXES)], n=1, cutoff=0.4
    )
    raise UsageError(
        "There is no such file of transcripts",
        got=setting,
        where=store.address,
        expected="a table in the source or on this machine, or *.trans.txt",
        fix=f"did you mean {near[0]}?" if near else "correct data.transcripts, or leave it empty",
    )


def _librispeech_rows(name: str, text: str, names: _Names) -> Iterator[tuple[str, str, str]]:
    """Read lines "103-1240-0000 WORDS"; the speaker's number comes first."""
    for line in text.splitlines():
        key, _, words = line.strip().partition(" ")
        if key and (audio := names.find(key, posixpath.dirname(name))):
            yield audio, words.strip(), key.partition("-")[0]


def _beside_rows(store: Pinned, objects: dict[str, StoredObject], names: _Names) -> Iterator[tuple[str, str, str]]:
    for audio in names.all:
        stem = posixpath.splitext(audio)[0]
        beside = next((objects[stem + s] for s in _BESIDE_SUFFIXES if stem + s in objects), None)
        if beside is not None and beside.size <= _LARGEST_BESIDE_BYTES:
            yield audio, " ".join(_text(store.read(beside.name), beside.name).split()), ""


def _table_rows(
    name: str, content: bytes, names: _Names, columns: Mapping[str, str], seen: list[str], address: str
) -> Iterator[tuple[str, str, str]]:
    rows = read_table(name, content, f"{name} of {address}")
    first = rows[0] if rows else {}
    present = [c for c in first if isinstance(c, str)]
    try:
        roles = match_columns(present, address, columns)
    except DataError:
        if len(columns) and set(columns.values()) & set(present):
            raise
        roles = match_columns(present, address, {})  # the settings speak of another table
    text = roles.get("text") or next((c for c in _TEXTS if c in first), None)
    path = (
        columns.get("audio")
        if columns.get("audio") in first
        else next((c for c in _PATHS if c in first and c != text), None)
    )
    if text is None or path is None:
        seen.append(f"{name}: columns {', '.join(present)[:200] or 'none'}")
        return
    for row in rows:
        audio = names.find(str(row.get(path) or ""), posixpath.dirname(name))
        if audio:
            yield audio, str(row.get(text) or ""), str(row.get(roles.get("speaker")) or "")


def read_table(name: str, content: bytes, where: str) -> list[dict]:
    """Return the rows of a table by its ending. Raises: DataError for one that cannot be read."""
    text = _text(content, where)
    kind = posixpath.splitext(name.lower())[1]
    try:
        if kind in (".jsonl", ".ndjson"):
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        elif kind == ".json":
            rows = _json_rows(json.loads(text))
        else:
            rows = _csv_rows(text, kind)
    except (ValueError, csv.Error, RecursionError) as error:
        raise DataError(
            "The table of transcripts cannot be read",
            got=str(error),
            expected=f"a whole {kind} file",
            where=where,
            fix="correct it, or name another with data.transcripts",
        ) from error
    return [row for row in rows if isinstance(row, dict)]


def _json_rows(value: Any) -> list[dict]:
    """Read a list of rows, or {key: row}; a file of something else has no rows."""
    if isinstance(value, list):
        return value
    if not isinstance(value, dict):
        return []
    if all(isinstance(row, dict) for row in value.values()):
        return [{"id": key} | row for key, row in value.items()]
    return next((rows for rows in value.values() if isinstance(rows, list)), [])


def _csv_rows(text: str, kind: str) -> list[dict]:
    csv.field_size_limit(_LARGEST_FIELD)
    head = text.partition("\n")[0]
    if kind == ".tsv":  # quotes are characters there: sentences begin with them
        return list(csv.DictReader(io.StringIO(text, newline=""), delimiter="\t", quoting=csv.QUOTE_NONE))
    if "|" in head and head.count("|") > head.count(","):
        titles = head.split("|")
        named = set(titles) & {*_PATHS, *_TEXTS, "text", "sentence", "transcription", "transcript"}
        fields = None if named else ["id", "raw_text", "normalized_text"][: len(titles)]  # LJSpeech's has no head
        return list(csv.DictReader(io.StringIO(text, newline=""), fields, delimiter="|", quoting=csv.QUOTE_NONE))
    delimiter = max(",;\t", key=head.count)
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))


def _text(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            "A file of transcripts is not UTF-8",
            got=f"{error}",
            expected="UTF-8",
            where=where,
            fix="convert it: iconv -f latin1 -t utf-8 OLD > NEW, with what it is in the place of latin1",
        ) from error


class _Names:
    """The audio files, to be found by what tables call them: with or without folders and endings."""

    def __init__(self, audio: Iterable[str]):
        self.all = list(audio)
        self.exact = set(self.all)
        self.stems, self.bases, self.base_stems = {}, {}, {}
        for name in self.all:
            base = posixpath.basename(name)
            for table, key in ((self.stems, _stem(name)), (self.bases, base), (self.base_stems, _stem(base))):
                table[key] = None if key in table else name  # of two that are called the same, none is meant

    def __len__(self) -> int:
        return len(self.all)

    def find(self, written: str, folder: str) -> str | None:
        """Return the audio file that a table in `folder` calls by this path, or None."""
        path = re.sub(r"^(?:\{\w+\}|\$\w+)/", "", written.strip().replace("\\", "/"))  # as in {data_root}/a.wav
        parts = [p for p in posixpath.normpath(path).split("/") if p not in ("", ".", "..")]
        if not parts:
            return None
        # the whole path, then less and less of what stands before
        tails = ["/".join(parts[k:]) for k in range(len(parts))]
        places = [place for tail in tails for place in (posixpath.join(folder, tail), tail)]
        for place in places:
            if place in self.exact:
                return place
        for place in places:
            if found := self.stems.get(_stem(place)) or self.stems.get(place):
                return found
        return self.bases.get(parts[-1]) or self.base_stems.get(parts[-1]) or self.base_stems.get(_stem(parts[-1]))


def _stem(name: str) -> str:
    return posixpath.splitext(name)[0]
