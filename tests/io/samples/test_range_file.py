"""A file over byte ranges: behaves as any file, asks for windows and not for crumbs, and keeps what went wrong."""

from __future__ import annotations

import io
import os
import random

import numpy as np
import pytest
import soundfile

from colabkit.core.errors import DataError
from colabkit.io.audio import read_audio
from colabkit.io.samples.range_file import RangeFile
from tests.io.reads import Reads

CONTENT = random.Random(0).randbytes(10_000)


def opened(content: bytes = CONTENT, window_bytes: int = 1_000) -> tuple[RangeFile, Reads]:
    reads = Reads(content)
    return RangeFile(reads, len(content), "name", window_bytes=window_bytes), reads


@pytest.mark.parametrize("window_bytes", [1, 7, 1_000, 10_000, 1 << 20])
@pytest.mark.parametrize("seed", range(5))
def test_any_sequence_of_calls_gives_what_a_file_in_memory_gives(window_bytes, seed):
    rng, plain, (file, _) = random.Random(seed), io.BytesIO(CONTENT), opened(window_bytes=window_bytes)
    for _ in range(300):
        what, place, size = (
            rng.randrange(7),
            rng.randrange(12_000),
            rng.choice([0, 1, 3, 100, 999, 1_000, 1_001, 5_000, 20_000]),
        )
        if what == 0:
            assert file.seek(place) == plain.seek(place)
        elif what == 1:
            back = -rng.randrange(10_000)
            assert file.seek(back, os.SEEK_END) == plain.seek(back, os.SEEK_END)
        elif what == 2:
            step = max(rng.randrange(-500, 500), -plain.tell())
            assert file.seek(step, os.SEEK_CUR) == plain.seek(step, os.SEEK_CUR)
        elif what == 3:
            ours, theirs = bytearray(size), bytearray(size)
            assert file.readinto(ours) == plain.readinto(theirs) and ours == theirs
        elif what == 4 and rng.random() < 0.1:
            assert file.read() == plain.read()
        elif what == 5:
            assert file.between(place, min(place + size, 10_000)) == CONTENT[place : place + size]
        else:
            assert file.read(size) == plain.read(size)
        assert file.tell() == plain.tell()


def test_all_ways_to_read_to_the_end():
    for read in (
        RangeFile.read,
        RangeFile.readall,
        lambda f: f.read(-1),
        lambda f: f.read(None),
        lambda f: f.read(1 << 40),
    ):
        file, _ = opened()
        file.seek(9_000)
        assert read(file) == CONTENT[9_000:] and read(file) == b"" and file.tell() == 10_000


def test_behind_the_end_there_is_nothing_and_nothing_is_asked():
    file, reads = opened()
    assert file.seek(50_000) == 50_000 and file.read(10) == b"" == file.read() and file.readinto(bytearray(5)) == 0
    assert file.between(20, 20) == file.between(20, 10) == b"" and file.read(0) == b"" and reads.ranges == []
    empty, reads = opened(b"")
    assert empty.read() == b"" and empty.seek(0, os.SEEK_END) == 0 and reads.ranges == []


def test_places_before_the_start_and_unknown_ways_are_refused_and_move_nothing():
    file, _ = opened()
    file.seek(10)
    for offset, whence in ((-1, os.SEEK_SET), (-11, os.SEEK_CUR), (-10_001, os.SEEK_END), (0, 9)):
        with pytest.raises(ValueError):
            file.seek(offset, whence)
    assert file.tell() == 10 and file.readable() and file.seekable() and not file.writable()


def test_small_reads_forward_ask_once_a_window_and_none_reaches_behind_the_end():
    file, reads = opened(window_bytes=3_000)
    while file.read(7):
        pass
    assert len(reads.ranges) <= 5 and reads.ranges[0] == (0, 3_000) and max(stop for _, stop in reads.ranges) == 10_000
    assert sum(stop - start for start, stop in reads.ranges) < 10_000 + 7 * len(reads.ranges)


def test_what_is_in_the_window_is_not_asked_for_again():
    file, reads = opened(window_bytes=1_000)
    file.between(100, 110)
    assert file.between(100, 1_100) == CONTENT[100:1_100] and file.between(1_099, 1_100) and file.between(100, 101)
    assert reads.ranges == [(100, 1_100)]
    file.between(99, 100)
    assert reads.ranges[1:] == [(99, 1_099)]


def test_a_large_read_asks_for_exactly_that_and_keeps_the_window():
    file, reads = opened(window_bytes=1_000)
    file.between(0, 10)
    assert file.between(5_000, 8_000) == CONTENT[5_000:8_000] and file.between(500, 510) == CONTENT[500:510]
    assert reads.ranges == [(0, 1_000), (5_000, 8_000)]


def test_what_reading_raises_arrives_is_kept_and_the_next_try_asks_again():
    faults = [TimeoutError("later"), None]

    def read(start, stop):
        fault = faults.pop(0)
        if fault:
            raise fault
        return CONTENT[start:stop]

    file = RangeFile(read, len(CONTENT), "name", window_bytes=1_000)
    with pytest.raises(TimeoutError) as caught:
        file.read(10)
    assert file.failure is caught.value and file.tell() == 0 and file.read(10) == CONTENT[:10]


@pytest.mark.parametrize(
    "kind, subtype", [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")]
)
def test_audio_decodes_from_it_as_from_memory(kind, subtype):
    wave = np.sin(np.arange(16_000) * 0.05).astype(np.float32) / 2
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, 16_000, format=kind, subtype=subtype)
    for window_bytes in (100, 4_096, 1 << 20):
        file, _ = opened(buffer.getvalue(), window_bytes)
        assert np.array_equal(read_audio(file), read_audio(buffer.getvalue()))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_decoder_hides_what_reading_raises_and_the_file_tells_it():
    buffer = io.BytesIO()
    soundfile.write(
        buffer, np.random.default_rng(0).integers(-9_000, 9_000, 160_000).astype(np.int16), 16_000, format="FLAC"
    )
    content, reads = buffer.getvalue(), [0]

    def read(start, stop):
        reads[0] += 1
        if reads[0] > 2:
            raise TimeoutError("the network is down")
        return content[start:stop]

    file = RangeFile(read, len(content), "name", window_bytes=4_096)
    with pytest.raises(DataError):
        read_audio(file)
    assert isinstance(file.failure, TimeoutError)


def test_archives_and_tables_open_from_it():
    import zipfile

    import pyarrow
    import pyarrow.parquet

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.txt", "hello")
    assert zipfile.ZipFile(opened(buffer.getvalue())[0]).read("a.txt") == b"hello"
    buffer, table = io.BytesIO(), pyarrow.table({"a": range(5_000)})
    pyarrow.parquet.write_table(table, buffer)
    file, reads = opened(buffer.getvalue(), window_bytes=500)
    assert pyarrow.parquet.ParquetFile(file, pre_buffer=False).read() == table and len(reads.ranges) < 20
