"""Parquet files made by hand, with pages and footers that pyarrow does not write."""

from __future__ import annotations

import io
import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from colabkit.core.errors import DataError
from colabkit.io.samples.parquet.pages import FileRun, decode_runs, read_page_header
from colabkit.io.samples.parquet.snappy_blocks import preamble, walk
from colabkit.io.samples.parquet.values import fetch_value, scan_values

DATA, INDEX, DICTIONARY, DATA_V2 = range(4)
PLAIN, RLE, BIT_PACKED, RLE_DICTIONARY, BYTE_STREAM_SPLIT = 0, 3, 4, 8, 9


def _thrift(fields: dict) -> bytes:
    """Write a struct of Thrift's compact protocol from {field number: int, bool, bytes, list or dict}."""
    out = b""
    for field, value in fields.items():
        kind = {bool: 1 if value else 2, int: 6, bytes: 8, list: 9, dict: 12}[type(value)]
        out += bytes([kind]) + preamble(field << 1) + (b"" if kind < 3 else _thrift_value(value))
    return out + b"\0"


def _thrift_value(value) -> bytes:
    if isinstance(value, int):
        return preamble(value << 1 if value >= 0 else (-value << 1) - 1)
    if isinstance(value, bytes):
        return preamble(len(value)) + value
    if isinstance(value, list):
        kind = {int: 6, bytes: 8, dict: 12}[type(value[0])] if value else 6
        return bytes([0xF0 | kind]) + preamble(len(value)) + b"".join(map(_thrift_value, value))
    return _thrift(value)


def _plain(*values: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(value)) + value for value in values)


def _page(
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
    return _thrift({**header, {DATA: 5, INDEX: 6, DICTIONARY: 7, DATA_V2: 8}.get(kind, 9): about}) + body


def _file(
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
    footer = _thrift(
        {
            1: 1,
            2: [{4: b"schema", 5: 1}, {1: 6, 3: optional, 4: b"audio"}],
            3: num_rows,
            4: [{1: [{2: 4, 3: about} | (chunk or {})], 2: 0, 3: num_rows}],
        }
        | (root or {})
    )
    return b"PAR1" + chunk_bytes + footer + struct.pack("<I", len(footer)) + b"PAR1"


def _scan(content: bytes) -> list:
    def read(start, stop):
        assert 0 <= start < stop <= len(content)
        return content[start:stop]

    found = list(scan_values(read, len(content), ("audio",), name="a.parquet"))
    for address, value in found:
        assert value is None or fetch_value(read, address) == value
    return [value for _, value in found]


def _indices(width: int, *runs: bytes) -> bytes:
    return bytes([width]) + b"".join(runs)


def test_what_is_made_by_hand_is_read():
    two = _page(DATA, _plain(b"a", b"bc"), 2)
    assert _scan(_file(two, num_rows=2)) == [b"a", b"bc"]
    levels = b"\x02\0\0\0" + b"\x03\x05"  # one packed group of 8: 1, 0, 1
    assert _scan(_file(_page(DATA, levels + _plain(b"a", b"b"), 3), num_rows=3, optional=1)) == [b"a", None, b"b"]


def test_pages_of_unknown_kinds_are_passed_over():
    assert _scan(
        _file(
            _page(INDEX, b"??"),
            _page(DATA, _plain(b"a"), 1),
            _page(7, b"???"),
            _page(DATA, _plain(b"b"), 1),
            num_rows=2,
        )
    ) == [b"a", b"b"]


def test_version_2_page_that_is_not_compressed_after_all():
    assert _scan(
        _file(
            _page(DATA_V2, b"\x02\x01" + _plain(b"a"), 1, definition=2, packed=False),
            _page(DATA_V2, b"\x04\x00", 2, definition=2),
            num_rows=3,
            codec=1,
            optional=1,
        )
    ) == [b"a", None, None]


def test_dictionary_in_another_order_than_the_rows():
    dictionary = _page(DICTIONARY, _plain(b"zero", b"", b"two"), 3)
    page = _page(DATA, _indices(2, b"\x02\x02", b"\x03\x04\x00", b"\x04\x01"), 11, encoding=RLE_DICTIONARY)
    assert _scan(_file(dictionary, page, num_rows=11)) == [b"two", b"zero", b"", *[b"zero"] * 6, b"", b""]


def test_page_header_larger_than_a_first_look():
    page = _page(DATA, _plain(b"a"), 1)
    statistics = {1: bytes(100_000), 2: bytes(9000)}
    long = _thrift({1: DATA, 2: 5, 3: 5, 5: {1: 1, 2: PLAIN, 3: RLE, 4: RLE, 5: statistics}}) + _plain(b"b")
    assert _scan(_file(page, long, page, num_rows=3)) == [b"a", b"b", b"a"]


def _literal(data: bytes) -> bytes:
    return b"\xf8" + (len(data) - 1).to_bytes(3, "little") + data


@pytest.mark.parametrize(("cut", "num_copies"), [(65_536, 900), (65_536, 1000), (30_000, 900)])
def test_snappy_that_looks_back_further_than_a_fragment_is_read_whole(cut, num_copies):
    """As the format allows: what follows the first fragment is made of copies from it, or elements cross its end."""
    small, large = b"small", np.random.default_rng(0).bytes(70_000)
    begin = _plain(small, large, bytes(64 * num_copies))[: 4 + 5 + 4 + 70_000 + 4]
    body = _literal(begin[:cut]) + _literal(begin[cut:]) + (b"\xff" + (70_004).to_bytes(4, "little")) * num_copies
    size = len(begin) + 64 * num_copies
    content = _file(_page(DATA, preamble(size) + body, 3, inflated=size), num_rows=3, codec=1)
    assert _scan(content) == [small, large, large[: 64 * num_copies]]
    addresses = [address for address, _ in scan_values(lambda a, b: content[a:b], len(content), ("audio",))]
    assert [address.inflated for address in addresses] == [65_536 if cut == 65_536 else size, size, size]


def test_walk_over_snappy_goes_on_wherever_the_window_ended():
    # their lengths in 0, 3 and 1 bytes behind the tag
    literals = b"\x04ab", _literal(bytes(300)), b"\xf0\x45" + bytes(70)
    elements = literals[0] + b"\x01\x02" + literals[1] + b"\xfa\x03\x00" + literals[2] + b"\xff\x09\0\0\0"
    made = 2 + 4 + 300 + 63 + 70 + 64
    assert len(pa.Codec("snappy").decompress(preamble(made) + elements, made)) == made
    assert walk(elements, 0, 0, made) == (len(elements), made)
    for cut in range(len(elements)):
        assert walk(elements, *walk(elements[:cut], 0, 0, made), made) == (len(elements), made)


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


_A = _page(DATA, _plain(b"a"), 1)
_DICTIONARY = _page(DICTIONARY, _plain(b"a"), 1)
_NONSENSE = {
    "value past the page": ([_page(DATA, b"\x05\0\0\0a", 1), _A], {}, "5 bytes announced"),
    "value of 4 GiB": ([_page(DATA, b"\xff\xff\xff\xffa", 1), _A], {}, "4294967295 bytes announced"),
    "length cut": ([_page(DATA, b"\x05\0", 1), _A], {}, "4 bytes announced"),
    "bytes left over in a page": ([_page(DATA, _plain(b"a") + b"?", 1)], {}, "1 bytes left over in a page"),
    "bytes left over in a chunk": ([_A, b"?"], {}, "1 bytes left over behind"),
    "page past the chunk": ([_page(DATA, _plain(b"a"), 1, stored=2000)], {}, "a page of 2000 bytes"),
    "page of less than nothing": ([_page(DATA, b"", 1, stored=-1)], {}, "field 3 = -1"),
    "more values than rows": ([_page(DATA, _plain(b"a", b"b"), 2)], {}, "a page of 2 values"),
    "fewer values than rows": ([_A], {"num_rows": 2}, "a page header that does not end"),
    "no pages": ([], {}, "a page header that does not end"),
    "text": ([b"<html>" * 20], {}, "a page header with"),
    "header without an end": ([b"\x19\xf8" + preamble(1 << 40) + b"\0" * 5000], {}, "a page header that does not end"),
    "structs without an end": ([b"\x1c" * 5000], {}, "nested too deep"),
    "lists without an end": ([b"\x19" * 5000], {}, "nested too deep"),
    "number without an end": ([b"\x15" + b"\xff" * 50], {}, "a number that does not end"),
    "no dictionary": ([_page(DATA, b"\x01\x02\0", 1, encoding=RLE_DICTIONARY)], {}, "needs a dictionary"),
    "two dictionaries": ([_DICTIONARY, _DICTIONARY], {}, "a second dictionary"),
    "entry past the dictionary": (
        [_DICTIONARY, _page(DATA, b"\x01\x02\x01", 1, encoding=RLE_DICTIONARY)],
        {},
        "entry 1",
    ),
    "dictionary of false size": (
        [_page(DICTIONARY, _plain(b"a"), 2), _page(DATA, b"\x01\x02\x01", 1, encoding=RLE_DICTIONARY)],
        {},
        "4 bytes announced",
    ),
    "wide indices": ([_DICTIONARY, _page(DATA, b"\x21\x02\0", 1, encoding=RLE_DICTIONARY)], {}, "indices of 33 bits"),
    "indices cut": ([_DICTIONARY, _page(DATA, b"\x01", 1, encoding=RLE_DICTIONARY)], {}, "1 levels or indices too few"),
    "levels cut": ([_page(DATA, b"\0\0\0\0" + _plain(b"a"), 1)], {"optional": 1}, "1 levels or indices too few"),
    "levels past the page": ([_page(DATA, b"\xff\0\0\0" + _plain(b"a"), 1)], {"optional": 1}, "255 bytes announced"),
    "levels past a page of version 2": (
        [_page(DATA_V2, _plain(b"a"), 1, definition=50)],
        {},
        "levels larger than the page",
    ),
    "snappy of false size": (
        [_page(DATA, preamble(9) + b"\x10aaaaa", 1, inflated=5)],
        {"codec": 1},
        "snappy data of 9 bytes",
    ),
    "snappy that grows too much": (
        [_page(DATA, preamble(1 << 30) + b"\0a", 1, inflated=1 << 30)],
        {"codec": 1},
        "from 7 stored",
    ),
    "snappy without a start": (
        [_page(DATA, preamble(9) + b"\x05\x01" * 3, 1, inflated=9)],
        {"codec": 1},
        "does not decompress",
    ),
    "snappy that ends at once": ([_page(DATA, preamble(9), 1, inflated=9)], {"codec": 1}, "does not decompress"),
    "zstd that is none": ([_page(DATA, b"not zstd", 1, inflated=2000)], {"codec": 6}, "zstd data"),
    "lz4 that grows too much": ([_page(DATA, b"lz4", 1, inflated=1 << 30)], {"codec": 7}, "lz4 data"),
    "other encoding": ([_page(DATA, _plain(b"a"), 1, encoding=BYTE_STREAM_SPLIT)], {}, "'BYTE_STREAM_SPLIT'"),
    "unheard-of encoding": ([_page(DATA, _plain(b"a"), 1, encoding=77)], {}, "got 77"),
    "levels of old": ([_page(DATA, b"\xff" + _plain(b"a"), 1, levels=BIT_PACKED)], {"optional": 1}, "'BIT_PACKED'"),
    "lz4 of Hadoop": ([_A], {"codec": 5}, "LZ4 in Hadoop"),
    "unheard-of compression": ([_A], {"codec": 39}, "got 39"),
    "chunk past the file": ([_A], {"column": {9: 1 << 40}}, "within 4"),
    "chunk before the file": ([_A], {"column": {9: -4}}, "field 9 = -4"),
    "chunk of another column": ([_A], {"column": {3: [b"path"]}}, "another column"),
    "values and rows differ": ([_A], {"column": {5: 2}}, "2 values"),
    "rows differ": ([_A], {"root": {3: 7}}, "7 rows"),
    "no schema": ([_A], {"root": {2: []}}, "a footer with"),
    "numbers for row groups": ([_A], {"root": {4: [1, 2]}}, "a footer with"),
    "encrypted column": ([_A], {"chunk": {8: {1: {}}}}, "Column audio is encrypted"),
}


@pytest.mark.parametrize("name", _NONSENSE)
def test_nonsense_is_named(name):
    pages, options, told = _NONSENSE[name]
    with pytest.raises(DataError) as caught:
        _scan(_file(*pages, **({"num_rows": 1} | options)))
    assert told in str(caught.value) and "a.parquet" in str(caught.value) and caught.value.fix


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PAR1",
        b"PAR1PAR1",
        b"x" * 5000,
        b"PAR1" + b"\xff" * 4 + b"PAR1",
        b"PAR1" * 4,
        _file(_A, num_rows=1)[:-4] + b"PARE",
        _file(_A, num_rows=1)[:-1],
    ],
)
def test_files_that_are_not_parquet(content):
    with pytest.raises(DataError) as caught:
        _scan(content)
    assert "a.parquet" in str(caught.value) and caught.value.fix


def test_header_that_lies_at_the_end_of_a_window():
    window_bytes = 1 << 16
    content = b"?" * (window_bytes - 9) + _A
    run = FileRun(lambda start, stop: content[start:stop], 0, len(content), window_bytes=window_bytes, name="a")
    assert run.take(window_bytes - 9) == content[: window_bytes - 9]
    assert read_page_header(run).stored_bytes == 5
    assert run.take(5) == _plain(b"a")


def test_encrypted_by_pyarrow():
    encryption = pytest.importorskip("pyarrow.parquet.encryption")

    class Keys(encryption.KmsClient):
        def wrap_key(self, key_bytes, master_key_identifier):
            return key_bytes.hex()

        def unwrap_key(self, wrapped_key, master_key_identifier):
            return bytes.fromhex(wrapped_key)

    factory = encryption.CryptoFactory(lambda config: Keys())
    for plaintext_footer in (True, False):
        how = encryption.EncryptionConfiguration(
            footer_key="f", column_keys={"c": ["audio"]}, plaintext_footer=plaintext_footer
        )
        sink = io.BytesIO()
        properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), how)
        pq.write_table(pa.table({"audio": [b"a"]}), sink, encryption_properties=properties)
        with pytest.raises(DataError, match="is encrypted"):
            _scan(sink.getvalue())
