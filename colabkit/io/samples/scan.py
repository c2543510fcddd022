"""Read one shard front to back, once, and say of every sample in it where it lies and what it is."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from colabkit.core.errors import ColabkitError, DataError
from colabkit.io.audio import AUDIO_SUFFIXES, audio_info
from colabkit.io.places import Pinned, StoredObject
from colabkit.io.samples.columns import columns_fix, match_columns
from colabkit.io.samples.index import Entry
from colabkit.io.samples.parquet.footer import read_footer
from colabkit.io.samples.parquet.values import scan_values
from colabkit.io.samples.range_file import RangeFile
from colabkit.io.samples.tar import walk

WINDOW_BYTES = 8 << 20
_SMALL_BYTES = 1 << 20  # a larger member is not a description of a sample
_TEXTS = {".txt": "text", ".text": "text", ".lab": "text", ".spk": "speaker", ".cls": "label", ".lang": "language"}

Problem = Callable[[str, str], None]


def scan_file(store: Pinned, found: StoredObject, problem: Problem) -> Iterator[Entry]:
    """Describe a plain audio file; its key is its name."""
    content = store.read(found.name, 0, found.size)
    yield from _entry(found.name, content, problem, offset=0, length=len(content), columns={})


def scan_tar(
    store: Pinned, found: StoredObject, settings: Mapping[str, str], problem: Problem, needs: Collection[str] = ()
) -> Iterator[Entry]:
    """Describe the audio in a tar. What belongs to KEY.flac is every file named KEY.something: KEY may hold dots.

    Raises: DataError when the tar is compressed, cut short or damaged, or a column of the settings or in `needs` is
    missing.
    """
    where = f"{found.name} of {store.address}"
    read = sequential(store, found)
    audio: list[tuple[str, Entry]] = []
    details: dict[str, bytes] = {}
    for member in walk(read, found.size, where):
        stem, suffix = os.path.splitext(member.name)
        if suffix.lower() in AUDIO_SUFFIXES:
            content = read(member.offset, member.offset + member.size)
            entries = _entry(stem, content, problem, offset=member.offset, length=member.size, columns={})
            audio += [(stem, entry) for entry in entries]
        elif member.size <= _SMALL_BYTES:
            details[member.name] = read(member.offset, member.offset + member.size)
    known = _gather({stem for stem, _ in audio}, details, problem)
    present = list(dict.fromkeys(name for columns in known.values() for name in columns))
    roles = match_columns(present, store.address, settings, needs) if audio else {}
    for stem, entry in audio:
        values = known.get(stem, {})
        columns = {role: _as_text(values.get(column)) for role, column in roles.items() if role != "audio"}
        key = columns.pop("key", "") or entry.key
        if fault := _put_turns_together(columns, values, roles):
            problem(key, fault)
        yield Entry(**{**{name: getattr(entry, name) for name in Entry.__slots__}, "key": key, "columns": columns})


def _gather(stems: set[str], details: Mapping[str, bytes], problem: Problem) -> dict[str, dict]:
    """Give the small files of a tar to the audio whose name they continue, the longest such name first."""
    known: dict[str, dict] = {}
    for name, content in details.items():
        stem = os.path.splitext(name)[0]  # KEY may end as the name of such a file does
        while "." in os.path.basename(stem) and stem not in stems:
            stem = stem[: stem.rindex(".")]
        if stem not in stems or stem == name:
            continue
        suffix = name[len(stem) :].lower()
        text = content.decode("utf-8", "replace").strip()
        if suffix == ".json":
            try:
                value = json.loads(text)
            except ValueError as error:
                problem(name, f"not JSON: {error}")
                continue
            known.setdefault(stem, {}).update(value if isinstance(value, dict) else {"json": value})
        else:
            known.setdefault(stem, {})[_TEXTS.get(suffix, suffix.lstrip("."))] = text
    return known


def scan_parquet(
    store: Pinned, found: StoredObject, settings: Mapping[str, str], problem: Problem, needs: Collection[str] = ()
) -> Iterator[Entry]:
    """Describe the rows of a Parquet file in the Hub's audio layout, without holding a row group.

    Raises: DataError for a damaged file, one without audio, or a column of the settings or in `needs` that is missing.
    """
    where = f"{found.name} of {store.address}"
    table = _open_parquet(store, found, where)
    roles = match_columns(table.schema_arrow.names, store.address, settings)
    path = _audio_column(table, roles, where)
    match_columns(table.schema_arrow.names, store.address, settings, needs)  # no audio is the greater want
    others = {role: column for role, column in roles.items() if role != "audio" and column != path[0]}
    rows = _rows(table, list(dict.fromkeys(others.values())), where)
    for number, (address, content) in enumerate(scan_values(sequential(store, found), found.size, path, name=where)):
        row = next(rows)
        columns = {role: _as_text(row[column]) for role, column in others.items()}
        key = columns.pop("key", "") or f"{os.path.splitext(found.name)[0]}/{number}"
        if fault := _put_turns_together(columns, row, others):
            problem(key, fault)
        if content is None:
            problem(key, "a row without audio bytes")
            continue
        yield from _entry(
            key,
            content,
            problem,
            offset=address.offset,
            length=address.length,
            codec=address.codec,
            inflated=address.inflated,
            skip=address.skip,
            size=address.size,
            columns=columns,
        )
        del content  # or two of them would be held while the next is read


def _open_parquet(store: Pinned, found: StoredObject, where: str):
    import pyarrow.parquet

    file = RangeFile(lambda start, stop: store.read(found.name, start, stop), found.size, where)
    read_footer(file.between, found.size, where)  # first, because Arrow ends the process at some damaged footers
    with _damage_told(where):
        return pyarrow.parquet.ParquetFile(file, pre_buffer=False)


@contextmanager
def _damage_told(where: str) -> Iterator[None]:
    """Turn what pyarrow raises over a damaged file, which is of many kinds, into one error."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, UnicodeDecodeError, OSError) as error:
        raise DataError(
            "The Parquet file is cut short or damaged",
            got=str(error).splitlines()[0],
            expected="a whole Parquet file",
            where=where,
            fix="copy or upload this shard again, or remove it from the source",
        ) from error


def _audio_column(table: Any, roles: Mapping[str, str], where: str) -> tuple[str, ...]:
    import pyarrow

    name = roles.get("audio")
    kind = table.schema_arrow.field(name).type if name else None
    if kind is not None and pyarrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        return (name, "bytes")
    if kind is not None and (pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)):
        return (name,)
    columns = ", ".join(f"{f.name}: {f.type}" for f in table.schema_arrow)
    raise DataError(
        "The Parquet file holds no audio",
        got=columns[:300],
        where=where,
        expected="a column audio of struct<bytes: binary, path: string>, or binary",
        fix=columns_fix("audio"),
    )


def _rows(table: Any, columns: list[str], where: str) -> Iterator[dict]:
    """Yield the small columns row by row."""
    if not columns:
        for _ in range(table.metadata.num_rows):
            yield {}
        return
    with _damage_told(where):
        for batch in table.iter_batches(batch_size=1024, columns=columns):
            yield from batch.to_pylist()


def _put_turns_together(columns: dict[str, str], row: Mapping, roles: Mapping[str, str]) -> str:
    """Replace the three columns of who spoke when by one: JSON [[start seconds, end seconds, speaker], ...].

    Returns what is wrong with them, "" where nothing is.
    """
    parts = [row.get(roles.get(role)) for role in ("turn_starts", "turn_ends", "turn_speakers")]
    for role in ("turn_starts", "turn_ends", "turn_speakers"):
        columns.pop(role, None)
    if any(part is None for part in parts):
        return ""
    if not all(isinstance(part, list) for part in parts) or len({len(part) for part in parts}) > 1:
        return "starts, ends and speakers of its turns that do not fit together"
    columns["turns"] = json.dumps([[a, b, str(who)] for a, b, who in zip(*parts, strict=True)], default=str)
    return ""


def _entry(key: str, content: bytes, problem: Problem, **more) -> Iterator[Entry]:
    """Yield the sample's entry, or nothing and tell the problem when it is no audio."""
    try:
        info = audio_info(content)
    except ColabkitError as error:
        problem(key, f"{error.what}; {error.fix}")
        return
    if info.num_frames < 1:
        problem(key, "no sound in it")
        return
    yield Entry(key=key, frames=info.num_frames, rate_hz=info.rate_hz, crc32=zlib.crc32(content), shard=0, **more)


def _as_text(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def sequential(store: Pinned, found: StoredObject) -> Callable[[int, int], bytes]:
    """Return read(start, stop) over one object, for a reader that goes forward: it asks the store for large windows."""
    file = RangeFile(
        lambda start, stop: store.read(found.name, start, stop), found.size, found.name, window_bytes=WINDOW_BYTES
    )
    return lambda start, stop: file.between(start, min(stop, found.size))
