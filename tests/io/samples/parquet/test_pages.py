"""Pages made by hand, as pyarrow does not write them: headers, levels, dictionaries, packed numbers."""

from __future__ import annotations

import numpy as np
import pytest

from colabkit.core.errors import DataError
from colabkit.io.samples.parquet.pages import FileRun, decode_runs, read_page_header
from colabkit.io.samples.parquet.snappy_blocks import preamble
from tests.io.samples.parquet.by_hand import (
    BIT_PACKED,
    BYTE_STREAM_SPLIT,
    DATA,
    DATA_V2,
    DICTIONARY,
    INDEX,
    PLAIN,
    RLE,
    RLE_DICTIONARY,
    A,
    page,
    parquet_file,
    plain,
    refusal,
    scan,
    thrift,
)


def _indices(width: int, *runs: bytes) -> bytes:
    return bytes([width]) + b"".join(runs)


def test_what_is_made_by_hand_is_read():
    two = page(DATA, plain(b"a", b"bc"), 2)
    assert scan(parquet_file(two, num_rows=2)) == [b"a", b"bc"]
    levels = b"\x02\0\0\0" + b"\x03\x05"  # one packed group of 8: 1, 0, 1
    assert scan(parquet_file(page(DATA, levels + plain(b"a", b"b"), 3), num_rows=3, optional=1)) == [b"a", None, b"b"]


def test_pages_of_unknown_kinds_are_passed_over():
    assert scan(
        parquet_file(
            page(INDEX, b"??"),
            page(DATA, plain(b"a"), 1),
            page(7, b"???"),
            page(DATA, plain(b"b"), 1),
            num_rows=2,
        )
    ) == [b"a", b"b"]


def test_version_2_page_that_is_not_compressed_after_all():
    assert scan(
        parquet_file(
            page(DATA_V2, b"\x02\x01" + plain(b"a"), 1, definition=2, packed=False),
            page(DATA_V2, b"\x04\x00", 2, definition=2),
            num_rows=3,
            codec=1,
            optional=1,
        )
    ) == [b"a", None, None]


def test_dictionary_in_another_order_than_the_rows():
    dictionary = page(DICTIONARY, plain(b"zero", b"", b"two"), 3)
    one = page(DATA, _indices(2, b"\x02\x02", b"\x03\x04\x00", b"\x04\x01"), 11, encoding=RLE_DICTIONARY)
    assert scan(parquet_file(dictionary, one, num_rows=11)) == [b"two", b"zero", b"", *[b"zero"] * 6, b"", b""]


def test_page_header_larger_than_a_first_look():
    one = page(DATA, plain(b"a"), 1)
    statistics = {1: bytes(100_000), 2: bytes(9000)}
    long = thrift({1: DATA, 2: 5, 3: 5, 5: {1: 1, 2: PLAIN, 3: RLE, 4: RLE, 5: statistics}}) + plain(b"b")
    assert scan(parquet_file(one, long, one, num_rows=3)) == [b"a", b"b", b"a"]


@pytest.mark.parametrize("width", [1, 2, 3, 7, 8, 13, 20, 32])
def test_packed_numbers(width):
    numbers = np.random.default_rng(width).integers(0, 1 << width, 20_000)
    bits = (numbers[:, None] >> np.arange(width)) & 1
    packed = np.packbits(bits.astype(np.uint8).reshape(-1), bitorder="little").tobytes()
    run = FileRun(lambda start, stop: b"", 0, 0, window_bytes=0, name="a")
    data = preamble(2500 << 1 | 1) + packed + preamble(5 << 1) + int(numbers[0]).to_bytes((width + 7) // 8, "little")
    assert list(decode_runs(data, width, 20_003, run)) == [*numbers.tolist(), *numbers[:1].tolist() * 3]
    with pytest.raises(DataError, match="damaged"):
        list(decode_runs(data, width, 20_006, run))


A_DICTIONARY = page(DICTIONARY, plain(b"a"), 1)
_NONSENSE = {
    "bytes left over in a chunk": ([A, b"?"], {}, "1 bytes left over behind"),
    "page past the chunk": ([page(DATA, plain(b"a"), 1, stored=2000)], {}, "a page of 2000 bytes"),
    "page of less than nothing": ([page(DATA, b"", 1, stored=-1)], {}, "field 3 = -1"),
    "more values than rows": ([page(DATA, plain(b"a", b"b"), 2)], {}, "a page of 2 values"),
    "fewer values than rows": ([A], {"num_rows": 2}, "a page header that does not end"),
    "no pages": ([], {}, "a page header that does not end"),
    "no dictionary": ([page(DATA, b"\x01\x02\0", 1, encoding=RLE_DICTIONARY)], {}, "needs a dictionary"),
    "two dictionaries": ([A_DICTIONARY, A_DICTIONARY], {}, "a second dictionary"),
    "entry past the dictionary": (
        [A_DICTIONARY, page(DATA, b"\x01\x02\x01", 1, encoding=RLE_DICTIONARY)],
        {},
        "entry 1",
    ),
    "dictionary of false size": (
        [page(DICTIONARY, plain(b"a"), 2), page(DATA, b"\x01\x02\x01", 1, encoding=RLE_DICTIONARY)],
        {},
        "4 bytes announced",
    ),
    "wide indices": ([A_DICTIONARY, page(DATA, b"\x21\x02\0", 1, encoding=RLE_DICTIONARY)], {}, "indices of 33 bits"),
    "indices cut": ([A_DICTIONARY, page(DATA, b"\x01", 1, encoding=RLE_DICTIONARY)], {}, "1 levels or indices too few"),
    "levels cut": ([page(DATA, b"\0\0\0\0" + plain(b"a"), 1)], {"optional": 1}, "1 levels or indices too few"),
    "levels past the page": ([page(DATA, b"\xff\0\0\0" + plain(b"a"), 1)], {"optional": 1}, "255 bytes announced"),
    "levels past a page of version 2": (
        [page(DATA_V2, plain(b"a"), 1, definition=50)],
        {},
        "levels larger than the page",
    ),
    "other encoding": ([page(DATA, plain(b"a"), 1, encoding=BYTE_STREAM_SPLIT)], {}, "'BYTE_STREAM_SPLIT'"),
    "unheard-of encoding": ([page(DATA, plain(b"a"), 1, encoding=77)], {}, "got 77"),
    "levels of old": ([page(DATA, b"\xff" + plain(b"a"), 1, levels=BIT_PACKED)], {"optional": 1}, "'BIT_PACKED'"),
}


@pytest.mark.parametrize("name", _NONSENSE)
def test_nonsense_is_named(name):
    pages, options, told = _NONSENSE[name]
    assert told in refusal(*pages, **options)


def test_header_that_lies_at_the_end_of_a_window():
    window_bytes = 1 << 16
    content = b"?" * (window_bytes - 9) + A
    run = FileRun(lambda start, stop: content[start:stop], 0, len(content), window_bytes=window_bytes, name="a")
    assert run.take(window_bytes - 9) == content[: window_bytes - 9]
    assert read_page_header(run).stored_bytes == 5
    assert run.take(5) == plain(b"a")
