"""Find raw recordings and what is known of them: in a folder, a bucket, on the Hub, in tar or Parquet shards."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from colabkit.core.errors import DataError, UsageError
from colabkit.core.teller import Teller
from colabkit.io.audio.opened import AudioSource
from colabkit.io.places import StoredObject
from colabkit.io.samples import Samples
from colabkit.io.samples.build import build_index
from colabkit.io.samples.range_file import RangeFile
from colabkit.io.samples.source import FoundSource, find_source
from colabkit.pipelines.dataset.cut.subtitles import (
    RECORDING_COLUMNS,
    SUBTITLE_SUFFIXES,
    Line,
    lines_by_recording,
    read_rows,
    read_subtitles,
)
from colabkit.pipelines.dataset.segments.npz import sort_values
from colabkit.pipelines.dataset.segments.segment import channel_of, key_of

_WINDOW_BYTES = 4 << 20  # of a recording that lies elsewhere, read at once
_LARGEST_SUBTITLES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One raw recording.

    `key` names it and its segments; `version` changes when its audio does; `open` gives its audio.
    """

    key: str
    version: str
    open: Callable[[], AudioSource]
    speaker: str = ""
    channel: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    lines: Sequence[Line] = ()

    @property
    def identity(self) -> str:
        """Return its key and what changes when anything changes that its segments are made of."""
        known = [
            self.version,
            self.speaker,
            self.channel,
            sorted(self.metadata.items()),
            [astuple(line) for line in self.lines],
        ]
        return f"{self.key}\0{hashlib.sha256(json.dumps(known).encode()).hexdigest()[:24]}"


def find_recordings(
    address: str,
    *,
    work: Path,
    pattern: str = "*",
    name_regex: str = "",
    metadata: str = "",
    transcript: str = "",
    columns: tuple[str, ...] = (),
    teller: Teller = Teller(),
) -> list[Recording]:
    """Return the recordings an address names, sorted by name: a folder, s3://, gs:// or hub:, of files or of shards.

    What is known of each comes from its name (`name_regex` with groups named speaker, channel or anything), over that
    the columns of shards, over that a table (`metadata`: a file with a column recording). Subtitles beside a file and a
    table of lines (`transcript`: recording, start, end, text, speaker) say what is said. `work` keeps the index of
    shards.
    Raises: UsageError for an address or an expression that cannot be; DataError for tables that cannot be read.
    """
    source = find_source(address)
    expression = _compiled(name_regex)
    if source.kind == "files":
        found = [_of_file(source, o, expression) for o in source.objects if fnmatch(o.name, pattern)]
        found = _with_subtitles(source, found, teller)
    else:
        found = _of_shards(source, work, columns, pattern, expression, teller)
    if not found:
        raise DataError(
            "No recording matches",
            got=pattern,
            where=address,
            expected="a pattern such as '*.wav'",
            fix="correct the pattern",
        )
    found = _with_own_keys(found)
    if metadata:
        found = _with_table(found, metadata)
    if transcript:
        found = _with_lines(found, transcript)
    return sorted(found, key=lambda r: r.key)


def _of_file(source: FoundSource, found: StoredObject, expression: re.Pattern | None) -> Recording:
    store = source.store
    if store.is_folder:
        path = Path(store.address, found.name)

        def open_audio() -> AudioSource:
            return os.fspath(path)
    else:

        def open_audio() -> AudioSource:
            return RangeFile(
                lambda start, stop: store.read(found.name, start, stop),
                found.size,
                f"{found.name} of {store.address}",
                window_bytes=_WINDOW_BYTES,
            )

    return _recording(found.name, f"{found.size}-{found.version}", open_audio, {}, expression)


def _of_shards(
    source: FoundSource,
    work: Path,
    columns: tuple[str, ...],
    pattern: str,
    expression: re.Pattern | None,
    teller: Teller,
) -> list[Recording]:
    index = build_index(source, work, columns=columns, teller=teller)
    samples = Samples(index, source.store)
    texts = {name: text.to_list() for name, text in index.columns.items()}
    found = []
    for i, key in enumerate(index.keys.to_list()):
        if fnmatch(key, pattern):
            values = {name: column[i] for name, column in texts.items() if column[i]}
            said = values.pop("text", "")
            recording = _recording(
                key, f"crc32-{index.arrays['crc32'][i]:08x}", lambda i=i: samples.open(i), values, expression
            )
            found.append(replace(recording, lines=(Line(0.0, float("inf"), said, recording.speaker),) if said else ()))
    return found


def _recording(
    name: str,
    version: str,
    open_audio: Callable[[], AudioSource],
    values: Mapping[str, str],
    expression: re.Pattern | None,
) -> Recording:
    named = {}
    if expression is not None and (match := expression.search(name)):
        named = {key: value for key, value in match.groupdict().items() if value}
    known = sort_values({**named, **values}, name)
    return Recording(
        key=name,
        version=version,
        open=open_audio,
        speaker=known.speaker,
        channel=known.channel or channel_of(name),
        metadata={**known.metadata, "source": name},
    )


def _with_own_keys(found: list[Recording]) -> list[Recording]:
    """Name recordings without their suffix, where that leaves them different names."""
    stems = [key_of(r.key) for r in found]
    counts = Counter(stems)
    return [r if counts[stem] > 1 else replace(r, key=stem) for r, stem in zip(found, stems, strict=True)]


def _with_subtitles(source: FoundSource, found: list[Recording], teller: Teller) -> list[Recording]:
    beside = {key_of(o.name): o for o in source.store.list() if o.name.lower().endswith(SUBTITLE_SUFFIXES)}
    read = []
    for recording in found:
        lines: Sequence[Line] = ()
        subtitles = beside.get(key_of(recording.key))
        if subtitles is not None and subtitles.size <= _LARGEST_SUBTITLES:
            try:
                lines = read_subtitles(source.store.read(subtitles.name), f"{subtitles.name} of {source.store.address}")
            except DataError as error:
                teller.problem(subtitles.name, error.what)
        read.append(replace(recording, lines=tuple(lines)))
    return read


def _with_table(found: list[Recording], path: str) -> list[Recording]:
    by_name = {}
    for row in read_rows(_content(path), path):
        name = next((row[c] for c in RECORDING_COLUMNS if c in row), None)
        if name is None:
            raise DataError(
                "No column of the metadata names the recordings",
                got=", ".join(row),
                where=path,
                expected="a column recording",
                fix="rename the column",
            )
        by_name[name] = {k: v for k, v in row.items() if v and row[k] != name}
    described = []
    for recording in found:
        values = _by_name(by_name, recording)
        if values:
            known = sort_values(values, path)
            recording = replace(
                recording,
                speaker=known.speaker or recording.speaker,
                channel=known.channel or recording.channel,
                metadata={**recording.metadata, **known.metadata},
            )
        described.append(recording)
    return described


def _with_lines(found: list[Recording], path: str) -> list[Recording]:
    by_name = lines_by_recording(read_rows(_content(path), path), path)
    if not any(_by_name(by_name, r) for r in found):
        raise DataError(
            "The transcript speaks of other recordings",
            got=", ".join(list(by_name)[:3]),
            where=path,
            expected=", ".join(r.key for r in found[:3]),
            fix="name the files in its column recording",
        )
    return [replace(r, lines=tuple(lines)) if (lines := _by_name(by_name, r)) else r for r in found]


def _by_name(rows: Mapping[str, Any], recording: Recording) -> Any:
    """Find a recording by its whole name, or by its last part; with or without the suffix."""
    name = recording.metadata["source"]
    last = name.rpartition("/")[2]
    return next((rows[n] for n in (name, key_of(name), last, key_of(last)) if n in rows), None)


def _content(path: str) -> bytes:
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise DataError("Cannot read the table", got=error.strerror, where=path, fix="correct its path") from error


def _compiled(expression: str) -> re.Pattern | None:
    if not expression:
        return None
    try:
        compiled = re.compile(expression)
    except re.error as error:
        raise UsageError(
            "Cannot read the expression for names",
            got=expression,
            expected=f"a regular expression ({error})",
            fix=r"for example (?P<channel>[^/]+)/(?P<speaker>[^_]+)_.*",
        ) from error
    if not compiled.groupindex:
        raise UsageError(
            "The expression for names names nothing",
            got=expression,
            expected="groups with names",
            fix=r"for example (?P<channel>[^/]+)/(?P<speaker>[^_]+)_.*",
        )
    return compiled
