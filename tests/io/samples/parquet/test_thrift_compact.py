"""Structs of Thrift's compact protocol: values of every kind, and data that ends before them or never."""

from __future__ import annotations

import pytest

from colabkit.io.samples.parquet.snappy_blocks import preamble
from colabkit.io.samples.parquet.thrift_compact import number, read_struct, read_varint
from tests.io.samples.parquet.by_hand import refusal, thrift

_NONSENSE = {
    "text": ([b"<html>" * 20], {}, "a page header with"),
    "header without an end": ([b"\x19\xf8" + preamble(1 << 40) + b"\0" * 5000], {}, "a page header that does not end"),
    "structs without an end": ([b"\x1c" * 5000], {}, "nested too deep"),
    "lists without an end": ([b"\x19" * 5000], {}, "nested too deep"),
    "number without an end": ([b"\x15" + b"\xff" * 50], {}, "a number that does not end"),
}


@pytest.mark.parametrize("name", _NONSENSE)
def test_nonsense_is_named(name):
    pages, options, told = _NONSENSE[name]
    assert told in refusal(*pages, **options)


FIELDS = {
    1: 0,
    2: -1,
    3: 1 << 40,
    4: True,
    5: False,
    6: b"",
    7: "é".encode(),
    8: [1, -2, 3] * 9,
    9: {1: {2: b"x"}},
    40: 5,
}


def test_what_was_written_is_read():
    content = thrift(FIELDS)
    assert read_struct(content) == (FIELDS, len(content))
    assert read_struct(b"??" + content + b"?", 2) == (FIELDS, len(content) + 2)
    # a field that is no step of 15 from the one before; booleans in a list; a byte, a double and a UUID as they are
    assert read_struct(b"\x05\xa0\x06\x02\0") == ({400: 1}, 5)
    assert read_struct(b"\x19\x21\x01\x02\0") == ({1: [b"\x01", b"\x02"]}, 5)
    assert read_struct(b"\x13\x07\x17" + bytes(8) + b"\x1d" + bytes(16) + b"\0")[0] == {
        1: b"\x07",
        2: bytes(8),
        3: bytes(16),
    }


def test_what_is_cut_anywhere_ends_with_the_data():
    content = thrift(FIELDS)
    for cut in range(len(content)):
        with pytest.raises(IndexError):
            read_struct(content[:cut])


def test_a_kind_that_there_is_not():
    with pytest.raises(ValueError, match="a field of type 14"):
        read_struct(b"\x1e\0")


def test_numbers_of_seven_bits_a_byte():
    for value in (0, 127, 128, 300, (1 << 63) - 1):
        assert read_varint(b"?" + preamble(value) + b"?", 1) == (value, 1 + len(preamble(value)))


@pytest.mark.parametrize("value", [None, True, b"7", -1, 101])
def test_a_field_that_is_no_number_in_its_range(value):
    assert number({3: 100}, 3, 100) == 100
    with pytest.raises(ValueError, match=f"field 3 = {value!r}"):
        number({} if value is None else {3: value}, 3, 100)
