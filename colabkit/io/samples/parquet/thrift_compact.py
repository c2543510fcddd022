"""Read structs of Thrift's compact protocol, in which Parquet writes its footer and page headers.

Source: https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from __future__ import annotations

_MOST_NESTED = 32


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number that begins at `at`, 7 bits a byte from the lowest, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number that does not end")


def read_struct(data: bytes, at: int = 0, depth: int = 0) -> tuple[dict, int]:
    """Return {field number: int, bool, bytes, list or dict} and where the struct ends.

    Raises IndexError where the data ends before the struct, ValueError where it is none.
    """
    fields, field = {}, 0
    while True:
        head = data[at]
        at += 1
        if head == 0:
            return fields, at
        if head >> 4:
            field += head >> 4
        else:
            number, at = read_varint(data, at)
            field = (number >> 1) ^ -(number & 1)
        if head & 15 in (1, 2):  # the type of a field says true or false
            fields[field] = head & 15 == 1
        else:
            fields[field], at = _value(data, at, head & 15, depth)


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[object, int]:
    if kind in (4, 5, 6):
        number, at = read_varint(data, at)
        return (number >> 1) ^ -(number & 1), at
    if kind == 12:
        if depth == _MOST_NESTED:
            raise ValueError("structs nested too deep")
        return read_struct(data, at, depth + 1)
    if kind in (9, 10):
        return _list(data, at, depth)
    if kind == 8:
        length, at = read_varint(data, at)
    else:
        length = {1: 1, 2: 1, 3: 1, 7: 8, 13: 16}.get(kind)  # booleans in a list, bytes, doubles and UUIDs, as they are
    if length is None:
        raise ValueError(f"a field of type {kind}")
    if at + length > len(data):
        raise IndexError
    return data[at : at + length], at + length


def _list(data: bytes, at: int, depth: int) -> tuple[list, int]:
    if depth == _MOST_NESTED:
        raise ValueError("lists nested too deep")
    length, kind = data[at] >> 4, data[at] & 15
    at += 1
    if length == 15:
        length, at = read_varint(data, at)
    values = []
    for _ in range(length):  # each takes a byte at least, so a false length ends with the data
        value, at = _value(data, at, kind, depth + 1)
        values.append(value)
    return values, at


def number(fields: dict, field: int, most: int = (1 << 31) - 1) -> int:
    """Return a field that is a number from 0 to `most`; ValueError where it is missing or something else."""
    value = fields.get(field)
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"field {field} = {value!r}")
    return value
