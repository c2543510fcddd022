"""Snappy fragment by fragment: walked over from anywhere, read whole where fragments need each other."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from colabkit.io.samples.parquet.snappy_blocks import preamble, walk
from colabkit.io.samples.parquet.values import scan_values
from tests.io.samples.parquet.by_hand import (
    DATA,
    page,
    parquet_file,
    plain,
    refusal,
    scan,
)

_NONSENSE = {
    "snappy of false size": (
        [page(DATA, preamble(9) + b"\x10aaaaa", 1, inflated=5)],
        {"codec": 1},
        "snappy data of 9 bytes",
    ),
    "snappy that grows too much": (
        [page(DATA, preamble(1 << 30) + b"\0a", 1, inflated=1 << 30)],
        {"codec": 1},
        "from 7 stored",
    ),
    "snappy without a start": (
        [page(DATA, preamble(9) + b"\x05\x01" * 3, 1, inflated=9)],
        {"codec": 1},
        "does not decompress",
    ),
    "snappy that ends at once": ([page(DATA, preamble(9), 1, inflated=9)], {"codec": 1}, "does not decompress"),
}


@pytest.mark.parametrize("name", _NONSENSE)
def test_nonsense_is_named(name):
    pages, options, told = _NONSENSE[name]
    assert told in refusal(*pages, **options)


def _literal(data: bytes) -> bytes:
    return b"\xf8" + (len(data) - 1).to_bytes(3, "little") + data


@pytest.mark.parametrize(("cut", "num_copies"), [(65_536, 900), (65_536, 1000), (30_000, 900)])
def test_snappy_that_looks_back_further_than_a_fragment_is_read_whole(cut, num_copies):
    """As the format allows: what follows the first fragment is made of copies from it, or elements cross its end."""
    small, large = b"small", np.random.default_rng(0).bytes(70_000)
    begin = plain(small, large, bytes(64 * num_copies))[: 4 + 5 + 4 + 70_000 + 4]
    body = _literal(begin[:cut]) + _literal(begin[cut:]) + (b"\xff" + (70_004).to_bytes(4, "little")) * num_copies
    size = len(begin) + 64 * num_copies
    content = parquet_file(page(DATA, preamble(size) + body, 3, inflated=size), num_rows=3, codec=1)
    assert scan(content) == [small, large, large[: 64 * num_copies]]
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
