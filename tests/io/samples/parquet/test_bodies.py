"""Bodies of pages, by codec: what is announced and is not there, what does not decompress."""

from __future__ import annotations

import pyarrow as pa
import pytest

from colabkit.core.errors import DataError
from colabkit.io.samples.parquet.bodies import fetch_place, open_body
from colabkit.io.samples.parquet.pages import FileRun
from tests.io.samples.parquet.by_hand import DATA, A, page, plain, refusal

_NONSENSE = {
    "value past the page": ([page(DATA, b"\x05\0\0\0a", 1), A], {}, "5 bytes announced"),
    "value of 4 GiB": ([page(DATA, b"\xff\xff\xff\xffa", 1), A], {}, "4294967295 bytes announced"),
    "length cut": ([page(DATA, b"\x05\0", 1), A], {}, "4 bytes announced"),
    "bytes left over in a page": ([page(DATA, plain(b"a") + b"?", 1)], {}, "1 bytes left over in a page"),
    "zstd that is none": ([page(DATA, b"not zstd", 1, inflated=2000)], {"codec": 6}, "zstd data"),
    "lz4 that grows too much": ([page(DATA, b"lz4", 1, inflated=1 << 30)], {"codec": 7}, "lz4 data"),
}


@pytest.mark.parametrize("name", _NONSENSE)
def test_nonsense_is_named(name):
    pages, options, told = _NONSENSE[name]
    assert told in refusal(*pages, **options)


CODECS = {"": None, "snappy": "snappy", "zstd": "zstd", "gzip": "gzip", "brotli": "brotli", "lz4": "lz4_raw"}
DATA_OF_PAGE = bytes(range(256)) * 300


def _opened(codec: str):
    """Return a body in the middle of a file, the run that it lies in, and what reads the file."""
    stored = pa.Codec(CODECS[codec]).compress(DATA_OF_PAGE, asbytes=True) if codec else DATA_OF_PAGE
    content = b"before" + stored + b"behind"

    def read(start: int, stop: int) -> bytes:
        return content[start:stop]

    run = FileRun(read, 6, len(content), window_bytes=1000, name="a.parquet")
    return open_body(run, 6 + len(stored), codec, len(DATA_OF_PAGE)), run, read


@pytest.mark.parametrize("codec", CODECS)
def test_a_body_is_taken_front_to_back_and_values_are_had_again(codec):
    body, run, read = _opened(codec)
    assert body.left == len(DATA_OF_PAGE) and body.take(10) == DATA_OF_PAGE[:10]
    place, value = body.take_value(70_000)
    assert value == DATA_OF_PAGE[10:70_010] == fetch_place(read, place, "a.parquet")
    assert body.take_value(0)[1] == b"" and body.left == len(DATA_OF_PAGE) - 70_010
    with pytest.raises(DataError, match="a.parquet"):
        body.take(body.left + 1)
    assert body.take(body.left) == DATA_OF_PAGE[70_010:]
    body.finish()
    assert run.take(6) == b"behind"


@pytest.mark.parametrize("codec", CODECS)
def test_what_is_left_of_a_body_is_damage(codec):
    body, _, _ = _opened(codec)
    body.take(len(DATA_OF_PAGE) - 1)
    with pytest.raises(DataError, match="left over"):
        body.finish()


@pytest.mark.parametrize("codec", [codec for codec in CODECS if codec])
def test_a_place_in_another_file_is_told(codec):
    body, _, _ = _opened(codec)
    place, _ = body.take_value(5000)
    other = b"?" * 200_000
    with pytest.raises(DataError, match="damaged") as caught:
        fetch_place(lambda start, stop: other[start:stop], place, "a.parquet")
    assert f"a.parquet, byte {place[0]}" in str(caught.value)
