"""Values of Parquet columns by byte range: all layouts that writers make, memory, damage."""

from __future__ import annotations

import contextlib
import gc
import io
import itertools
import os
import random
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from colabkit.core.errors import DataError, UsageError
from colabkit.io.samples.parquet.values import fetch_value, scan_values
from tests.io.reads import Reads

AUDIO = ("audio", "bytes")
CODECS = ("none", "snappy", "zstd", "gzip", "lz4", "brotli")
WINDOW_BYTES = 1 << 20


def _values(seed: int, num: int = 40) -> list[bytes | None]:
    """Empty and missing ones, noise, waves and silence, some larger than a window, some twice."""
    rng = np.random.default_rng(seed)
    sizes = rng.choice([0, 1, 7, 100, 5000, 70_000, 200_000], num)
    kinds = (rng.bytes, lambda n: np.cumsum(rng.integers(-3, 4, n // 2 + 1)).astype("<i2").tobytes()[:n], bytes)
    values = [None if rng.random() < 0.15 else kinds[rng.integers(3)](int(size)) for size in sizes]
    return [*values, *values[:3]]


def _parquet(values: list[bytes | None], *, struct: bool = True, **options) -> bytes:
    column = pa.array(values, pa.binary())
    if struct:
        paths = pa.array([f"{row}.wav" for row in range(len(values))])
        # the struct, or its bytes
        missing = pa.array([value is None and row % 2 == 0 for row, value in enumerate(values)])
        column = pa.StructArray.from_arrays([column, paths], names=["bytes", "path"], mask=missing)
    sink = io.BytesIO()
    pq.write_table(pa.table({"id": range(len(values)), "audio": column}), sink, **options)
    return sink.getvalue()


def _scan(content: bytes, column=AUDIO, **options) -> list:
    return list(scan_values(Reads(content), len(content), column, **options))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_every_layout_reads_as_pyarrow_reads_it(codec, version):
    choices = random.Random(f"{codec} {version}")
    all_at_once = 8 << 20
    for seed, (dictionary, index, struct) in enumerate(itertools.product([True, False], repeat=3)):
        content = _parquet(
            _values(seed),
            struct=struct,
            compression=codec,
            data_page_version=version,
            use_dictionary=dictionary,
            write_page_index=index,
            row_group_size=choices.choice([7, 1000]),
            write_batch_size=choices.choice([1, 5, 1024]),
            data_page_size=choices.choice([1000, 1 << 20]),
            dictionary_pagesize_limit=choices.choice([1000, 100_000, 1 << 20]),
        )
        expected = pq.read_table(io.BytesIO(content), columns=["audio"])["audio"].to_pylist()
        expected = [row and row["bytes"] if struct else row for row in expected]
        read, window_bytes = Reads(content), choices.choice([1 << 16, all_at_once])
        found = list(scan_values(read, len(content), AUDIO if struct else AUDIO[:1], window_bytes=window_bytes))
        assert [value for _, value in found] == expected
        if window_bytes == all_at_once:  # nothing is read twice
            assert sum(stop - start for start, stop in read.ranges) <= len(content) + (64 << 10)
        for row, (address, value) in enumerate(found):
            if value is None:
                assert address is None
                continue
            assert (address.row, address.size) == (row, len(value))
            assert fetch_value(Reads(content), address) == value
            if codec == "none":
                assert content[address.offset : address.offset + address.length] == value and address.codec == ""


def test_required_column_and_empty_files():
    schema = pa.schema([pa.field("audio", pa.binary(), nullable=False)])
    for values in ([], [b""], [b"a", b"", b"bc"]):
        sink = io.BytesIO()
        pq.write_table(pa.table({"audio": pa.array(values, pa.binary())}, schema=schema), sink)
        assert [value for _, value in _scan(sink.getvalue(), ("audio",))] == values


def test_hugging_face_writer(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    rows = [{"bytes": value, "path": None} for value in _values(1, 20)]
    data = datasets.Dataset.from_dict({"audio": rows})
    for written in (data, data.cast_column("audio", datasets.Audio(decode=False))):
        written.to_parquet(tmp_path / "a.parquet")
        assert [value for _, value in _scan((tmp_path / "a.parquet").read_bytes())] == [row["bytes"] for row in rows]


def test_row_groups_can_be_chosen():
    values = [b"%d" % row for row in range(20)]
    content = _parquet(values, row_group_size=6)
    found = _scan(content, row_groups=[3, 1])
    assert [(address.row, value) for address, value in found] == [(row, values[row]) for row in (18, 19, *range(6, 12))]
    with pytest.raises(UsageError, match="row group"):
        _scan(content, row_groups=[4])


def test_snappy_addresses_hold_little_more_than_the_value():
    rng = np.random.default_rng(0)
    values = [np.round(rng.normal(0, 3, size)).astype("<i2").tobytes() for size in (10, 400_000, 30_000, 1_000_000, 5)]
    content = _parquet(values, compression="snappy", use_dictionary=False)
    assert pq.read_metadata(io.BytesIO(content)).row_group(0).column(1).encodings == ("RLE", "PLAIN")
    for (address, value), wanted in zip(_scan(content, window_bytes=1 << 16), values, strict=True):
        assert value == wanted == fetch_value(Reads(content), address)
        assert address.inflated <= len(value) + 2 * 65_536 and address.skip < 65_536


@pytest.mark.parametrize("codec", ["none", "snappy", "zstd"])
@pytest.mark.parametrize("dictionary", [True, False])
def test_memory_does_not_grow_with_the_page(codec, dictionary, tmp_path):
    size = 4 << 20
    wave = np.random.default_rng(0).bytes(size)
    path = tmp_path / "a.parquet"
    path.write_bytes(_parquet([bytes([row]) + wave for row in range(16)], compression=codec, use_dictionary=dictionary))
    pages = pq.read_metadata(path).row_group(0).column(1).total_compressed_size
    assert pages > 16 * size
    pool_before = pa.total_allocated_bytes()
    longest = 0
    with open(path, "rb") as file, _traced() as peak:

        def read(start, stop):
            nonlocal longest
            longest = max(longest, stop - start)
            return os.pread(file.fileno(), stop - start, start)

        scan = scan_values(read, path.stat().st_size, AUDIO, window_bytes=WINDOW_BYTES)
        for row in range(16):
            _, value = next(scan)
            assert value[0] == row and value[1:5] == wave[:4]
            assert pa.total_allocated_bytes() - pool_before < 4 * WINDOW_BYTES
            del value
        assert peak() < size + 4 * WINDOW_BYTES
    assert longest <= WINDOW_BYTES


@contextlib.contextmanager
def _traced():
    """Give the most bytes that Python held at once since the beginning."""
    gc.collect()
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_dictionary_values_that_come_back_late_are_read_again():
    rng = np.random.default_rng(0)
    values = [rng.bytes(50_000) for _ in range(20)]
    values += [values[0], values[19], values[7], values[0]]
    for codec in CODECS:
        content = _parquet(values, compression=codec)
        assert [value for _, value in _scan(content, window_bytes=1 << 16)] == values


def test_failures_of_reading_come_through_as_they_are():
    for codec, kind in itertools.product(CODECS, (ConnectionResetError, ValueError, IndexError, KeyError)):
        content = _parquet(_values(3), compression=codec, use_dictionary=codec == "zstd")
        num_read = itertools.count()

        def read(start, stop, content=content, kind=kind, num_read=num_read):
            if next(num_read) == 4:
                raise kind("lost")
            return content[start:stop]

        with pytest.raises(kind, match="lost"):
            list(scan_values(read, len(content), AUDIO, window_bytes=1 << 16))


def test_a_file_cut_anywhere_is_refused():
    choices = random.Random(0)
    for codec in CODECS:
        content = _parquet(_values(4), compression=codec)
        for _ in range(60):
            cut = content[: choices.choice([choices.randrange(len(content)), choices.randrange(16), len(content) - 1])]
            with pytest.raises(DataError):
                _scan(cut)


def test_a_file_that_gives_fewer_bytes_than_it_has_is_refused():
    content = _parquet(_values(5), compression="none")
    with pytest.raises(DataError, match="damaged or cut short"):
        list(
            scan_values(
                lambda start, stop: content[start : stop - 1] if start < 9000 else content[start:stop],
                len(content),
                AUDIO,
                window_bytes=1 << 16,
            )
        )


@pytest.mark.timeout(60)
@pytest.mark.parametrize("codec", CODECS)
def test_damage_gives_values_or_a_data_error(codec):
    """Whatever is flipped, lost or zeroed: no other error, no reading past the file."""
    choices, num_refused, num_trials = random.Random(codec), 0, 0
    for seed in range(6):
        values = _values(seed, 12)
        content = _parquet(
            values,
            compression=codec,
            row_group_size=choices.choice([5, 100]),
            write_batch_size=choices.choice([1, 9]),
            data_page_version=choices.choice(["1.0", "2.0"]),
            use_dictionary=choices.random() < 0.5,
        )
        for damage in itertools.islice(itertools.cycle((_flip_header, _flip_footer, _lose, _clear)), 40):
            damaged = bytearray(content)
            damage(damaged, choices)
            num_trials += 1
            try:
                found = _scan(bytes(damaged), name="a.parquet")
            except DataError as error:
                assert error.fix
                num_refused += 1
            else:
                assert len(found) == len(values)
    assert num_refused > num_trials / 3


def _footer_bytes(content: bytearray) -> int:
    return int.from_bytes(content[-8:-4], "little") + 8


def _flip_header(content: bytearray, choices: random.Random) -> None:
    footer = pq.read_metadata(io.BytesIO(content))
    chunk = footer.row_group(choices.randrange(footer.num_row_groups)).column(1)
    content[(chunk.dictionary_page_offset or chunk.data_page_offset) + choices.randrange(20)] ^= 1 << choices.randrange(
        8
    )


def _flip_footer(content: bytearray, choices: random.Random) -> None:
    content[-choices.randint(1, _footer_bytes(content))] ^= 1 << choices.randrange(8)


def _lose(content: bytearray, choices: random.Random) -> None:
    begin = choices.randrange(4, len(content) - _footer_bytes(content))
    del content[begin : min(begin + choices.randint(1, 1000), len(content) - _footer_bytes(content))]


def _clear(content: bytearray, choices: random.Random) -> None:
    begin = choices.randrange(4, len(content) - _footer_bytes(content))
    end = min(begin + 500, len(content) - _footer_bytes(content))
    content[begin:end] = bytes(end - begin)


def test_an_address_of_another_file_is_refused():
    one, other = _values(6), [value and bytes(len(value)) for value in _values(7)]
    for codec in CODECS[1:]:
        content = _parquet(other, compression=codec)
        for address, value in _scan(_parquet(one, compression=codec)):
            if not value or address.offset + address.length > len(content):
                continue
            with pytest.raises(DataError, match="damaged"):
                assert fetch_value(Reads(content), address, "b.parquet") == value


@pytest.mark.parametrize("encoding", ["DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"])
def test_other_encodings_are_named(encoding):
    content = _parquet([b"a", b"b"], struct=False, use_dictionary=False, column_encoding={"audio": encoding})
    with pytest.raises(DataError) as caught:
        _scan(content, ("audio",))
    assert f"'{encoding}'" in str(caught.value) and "pq.write_table" in str(caught.value)
