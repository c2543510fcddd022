"""Parquet files made by hand, with pages and footers that pyarrow does not write."""

from __future__ import annotations

import struct

import pytest

from colabkit.core.errors import DataError
from colabkit.io.samples.parquet.snappy_blocks import preamble
from colabkit.io.samples.parquet.values import fetch_value, scan_values

DATA, INDEX, DICTIONARY, DATA_V2 = range(4)


PLAIN, RLE, BIT_PACKED, RLE_DICTIONARY, BYTE_STREAM_SPLIT = 0, 3, 4, 8, 9


def thrift(fields: dict) -> bytes:
    """Write a struct of Thrift's compact protocol from {field number: int, bool, bytes, list or dict}."""
    out = b""
    for field, value in fields.items():
        kind = {bool: 1 if value else 2, int: 6, bytes: 8, list: 9, dict: 12}[type(value)]
        out += bytes([kind]) + preamble(field << 1) + (b"" if kind < 3 else thrift_value(value))
    return out + b"\0"


def thrift_value(value) -> bytes:
    if isinstance(value, int):
        return preamble(value << 1 if value >= 0 else (-value << 1) - 1)
    if isinstance(value, bytes):
        return preamble(len(value)) + value
    if isinstance(value, list):
        kind = {int: 6, bytes: 8, dict: 12}[type(value[0])] if value else 6
        return bytes([0xF0 | kind]) + preamble(len(value)) + b"".join(map(thrift_value, value))
    return thrift(value)


def plain(*values: bytes) -> bytes:
    """Write values in the plain encoding: length and content."""
    return b"".join(struct.pack("<I", len(value)) + value for value in values)


def page(
    kind: int,
    body: bytes,
    num_values: int = 0,
    *,
    inflated: int | None = None,
    stored: int | None = None,
    encoding: int = PLAIN,
    levels: int = RLE,
    **more,
) -> bytes:
    about = {1: num_values, 2: encoding, 3: levels, 4: RLE}
    if kind == DATA_V2:
        about = {
            1: num_values,
            2: 0,
            3: num_values,
            4: encoding,
            5: more.pop("definition", 0),
            6: 0,
            7: more.pop("packed", True),
        }
    header = {1: kind, 2: len(body) if inflated is None else inflated, 3: len(body) if stored is None else stored}
    return thrift({**header, {DATA: 5, INDEX: 6, DICTIONARY: 7, DATA_V2: 8}.get(kind, 9): about}) + body


def parquet_file(
    *pages: bytes,
    num_rows: int,
    codec: int = 0,
    optional: int = 0,
    column: dict | None = None,
    chunk: dict | None = None,
    root: dict | None = None,
) -> bytes:
    chunk_bytes = b"".join(pages)
    about = {1: 6, 2: [0], 3: [b"audio"], 4: codec, 5: num_rows, 6: 0, 7: len(chunk_bytes), 9: 4} | (column or {})
    footer = thrift(
        {
            1: 1,
            2: [{4: b"schema", 5: 1}, {1: 6, 3: optional, 4: b"audio"}],
            3: num_rows,
            4: [{1: [{2: 4, 3: about} | (chunk or {})], 2: 0, 3: num_rows}],
        }
        | (root or {})
    )
    return b"PAR1" + chunk_bytes + footer + struct.pack("<I", len(footer)) + b"PAR1"


def scan(content: bytes, column: tuple[str, ...] = ("audio",)) -> list:
    """Return the values of a column, each of which its address brings again."""

    def read(start, stop):
        assert 0 <= start < stop <= len(content)
        return content[start:stop]

    found = list(scan_values(read, len(content), column, name="a.parquet"))
    for address, value in found:
        assert value is None or fetch_value(read, address) == value
    return [value for _, value in found]


A = page(DATA, plain(b"a"), 1)


def refusal(*pages: bytes, **options) -> str:
    """Return what is told of a file with these pages, which cannot be read."""
    with pytest.raises(DataError) as caught:
        scan(parquet_file(*pages, **({"num_rows": 1} | options)))
    assert "a.parquet" in str(caught.value) and caught.value.fix
    return str(caught.value)
