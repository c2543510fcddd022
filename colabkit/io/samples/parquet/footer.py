"""The footer of a Parquet file: its columns, and where each row group keeps them.

Read here and not by pyarrow's read_metadata, which ends the process where a damaged footer is asked for its
compression (test_damage_gives_values_or_a_data_error would not return), and says LZ4 for both kinds of it, of which
one can be read. Source: https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from colabkit.core.errors import DataError
from colabkit.io.samples.parquet.pages import Read, damaged, read_exactly
from colabkit.io.samples.parquet.thrift_compact import number, read_struct

BYTE_ARRAY = 6
_TYPES = ("BOOLEAN", "INT32", "INT64", "INT96", "FLOAT", "DOUBLE", "BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY")
_TAIL_BYTES = 64 << 10  # the footer of most files, in one read
_MOST = (1 << 63) - 1
_MAGIC = b"PAR1"


@dataclass(frozen=True, slots=True)
class Column:
    """A leaf of the schema."""

    index: int
    path: tuple[str, ...]
    kind: int | None  # physical type
    max_definition_level: int
    max_repetition_level: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Where a row group keeps a column: bytes start..stop of the file."""

    start: int
    stop: int
    codec: int
    num_values: int


@dataclass(frozen=True, slots=True)
class Footer:
    """What a Parquet file says of itself; `begin` is where the footer lies in the file."""

    begin: int
    name: str
    columns: list[Column]
    row_groups: list[dict]  # as Thrift has them

    def num_rows(self, group: int) -> int:
        """Return the number of rows of a row group."""
        return number(self.row_groups[group], 3, _MOST)

    def find(self, path: tuple[str, ...]) -> Column:
        """Return a column by its path; DataError that names those there are."""
        for column in self.columns:
            if column.path == tuple(path):
                return column
        wanted, names = ".".join(path), [".".join(column.path) for column in self.columns]
        close = [name for name in names if name.startswith(wanted + ".")] or difflib.get_close_matches(
            wanted, names, n=1
        )
        raise DataError(
            "No such column",
            got=wanted,
            expected=f"one of {', '.join(names[:20])}",
            where=self.name,
            fix=f"name a column that exists; did you mean {close[0]!r}?" if close else "name a column that exists",
        )

    def chunk(self, group: int, column: Column) -> Chunk:
        """Return where a row group keeps a column; DataError where it is encrypted or that is nonsense."""
        try:
            entry = self.row_groups[group][1][column.index]
            if 8 in entry or 9 in entry:
                raise DataError(
                    f"Column {'.'.join(column.path)} is encrypted",
                    where=self.name,
                    fix="write the file again without encryption",
                )
            about = entry[3]
            start, length = number(about, 9, _MOST), number(about, 7, _MOST)
            dictionary = about.get(11)
            if type(dictionary) is int and 0 < dictionary < start:
                start = dictionary
            chunk = Chunk(start, start + length, number(about, 4), number(about, 5, _MOST))
            if [part.decode() for part in about[3]] != list(column.path):
                raise ValueError(f"another column there: {about[3]}")
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            raise damaged(
                self.name, f"row group {group} with {type(error).__name__}: {error}", at=self.begin
            ) from error
        if chunk.num_values and not 4 <= chunk.start <= chunk.stop <= self.begin:
            raise damaged(
                self.name, f"row group {group} in bytes {chunk.start}..{chunk.stop}", f"within 4..{self.begin}"
            )
        return chunk


def read_footer(read: Read, size: int, name: str = "") -> Footer:
    """Read the footer of a file of `size` bytes, mostly by one range; raises DataError."""
    tail = read_exactly(read, max(0, size - _TAIL_BYTES), size, name) if size else b""
    if tail[-4:] == b"PARE":
        raise DataError("The Parquet file is encrypted", where=name, fix="write it again without encryption")
    if size < 12 or tail[-4:] != _MAGIC:
        raise DataError(
            "Not a Parquet file, or cut short",
            got=f"{size} bytes that end in {tail[-4:]!r}",
            expected=f"{_MAGIC!r}",
            where=name,
            fix="copy or download the file again",
        )
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if length > size - 4:
        raise damaged(name, f"a footer of {length} bytes", f"at most {size - 4}", at=size - 8)
    if length > len(tail):
        tail = read_exactly(read, size - length, size - len(tail), name) + tail
    try:
        fields, _ = read_struct(tail[-length:-8])
        footer = Footer(size - length, name, _columns(fields[2]), fields[4])
        num_rows = sum(map(footer.num_rows, range(len(footer.row_groups))))
        if num_rows != number(fields, 3, _MOST):
            raise ValueError(f"{fields[3]} rows, {num_rows} in its row groups")
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise damaged(name, f"a footer with {type(error).__name__}: {error}", at=size - length) from error
    return footer


def _columns(elements: list[dict]) -> list[Column]:
    """Return the leaves of the schema, which is stored as a tree written depth first."""
    columns: list[Column] = []
    above = [[number(elements[0], 5), (), 0, 0]]  # children to come, path, definition level, repetition level
    for element in elements[1:]:
        while above[-1][0] == 0:
            above.pop()
        above[-1][0] -= 1
        _, path, definition, repetition = above[-1]
        path, repeats = (*path, element[4].decode()), number(element, 3)
        definition, repetition = definition + (repeats != 0), repetition + (repeats == 2)
        if element.get(5):
            above.append([number(element, 5), path, definition, repetition])
        else:
            columns.append(Column(len(columns), path, element.get(1), definition, repetition))
    return columns


def type_name(kind: int | None) -> str:
    """Return the name of a physical type."""
    return _TYPES[kind] if kind in range(len(_TYPES)) else f"type {kind}"
