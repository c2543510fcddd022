"""Members of a zip: those that Python's zipfile finds, from the whole or the end; what is cut, huge or odd is told."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from zipfile import ZipInfo

import numpy as np
import pytest

from colabkit.core.errors import DataError
from colabkit.pipelines.dataset.segments.zip_members import (
    LOCAL_BYTES,
    MOST_BYTES,
    data_offset,
    first_bytes,
    read_directory,
    read_member,
)
from tests.io.reads import Reads
from tests.pipelines.dataset.segments.archives import savez, wave_of

CONTENTS = {"a": b"x" * 1000, "é/日本": bytes(range(256)), "empty": b"", "large": b"abcdefgh" * 20_000}


def zipped(method: int = zipfile.ZIP_STORED, comment: bytes = b"", before: bytes = b"", contents=None) -> bytes:
    packed = io.BytesIO()
    packed.write(before)
    with zipfile.ZipFile(packed, "a" if before else "w", method) as archive:
        for name, content in (contents or CONTENTS).items():
            archive.writestr(name, content)
        archive.comment = comment
    return packed.getvalue()


def directory(payload: bytes, where: str = "t") -> list[ZipInfo]:
    return read_directory(Reads(payload), len(payload), where)


def contents_of(payload: bytes) -> dict[str, bytes]:
    return {m.filename: bytes(read_member(payload, m, "t")) for m in directory(payload)}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("comment", [b"", b"PK\x05\x06 not the end", b"c" * 65_000])
def test_members_are_those_that_zipfile_finds(method, comment):
    payload = zipped(method, comment=b"" if comment.startswith(b"PK") else comment)
    assert contents_of(payload) == CONTENTS
    with zipfile.ZipFile(io.BytesIO(payload)) as archive:
        assert [(i.filename, i.file_size, i.CRC) for i in archive.infolist()] == [
            (m.filename, m.file_size, m.CRC) for m in directory(payload)
        ]


def test_what_stands_before_the_zip_moves_its_members():
    assert contents_of(zipped(before=b"#!/bin/sh\nexit\n")) == CONTENTS


def test_the_zip64_fields_that_numpy_writes_are_read():
    payload = savez(audio=wave_of(), sr=16_000)
    assert len(contents_of(payload)["audio.npy"]) == 4 * len(wave_of()) + 128


def test_a_zip64_directory_is_read(monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)  # more members than that: the record of the end in 64 bits
    payload = zipped()
    assert b"PK\x06\x06" in payload and contents_of(payload) == CONTENTS


def test_the_end_alone_gives_the_members():
    payload = zipped(zipfile.ZIP_DEFLATED, contents={**CONTENTS, "noise": np.random.default_rng(0).bytes(100_000)})
    reads = Reads(payload)
    members = read_directory(reads, len(payload), "t")
    assert min(start for start, _ in reads.ranges) > len(payload) - 1000
    assert [member.filename for member in members] == [*CONTENTS, "noise"]
    for member in members[:4]:
        local = payload[member.header_offset : member.header_offset + LOCAL_BYTES]
        begin = data_offset(local, member, "t")
        assert first_bytes(payload[begin : begin + 200], member, 50, "here.npz") == CONTENTS[member.filename][:50]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_cut_anywhere_is_told(method):
    payload = zipped(method, contents={"a": b"abc" * 100, "b": bytes(100)})
    for stop in range(len(payload)):
        with pytest.raises(DataError) as caught:
            contents_of(payload[:stop])
        assert caught.value.fix


def test_every_flipped_bit_of_the_content_is_noticed_and_none_of_the_rest_crashes():
    payload = zipped(zipfile.ZIP_DEFLATED, contents={"a": b"abc" * 100, "b": b"d" * 100})
    unseen = 0
    for at in range(len(payload)):
        spoilt = bytearray(payload)
        spoilt[at] ^= 0x10
        try:
            unseen += (
                contents_of(bytes(spoilt)) != {"a": b"abc" * 100, "b": b"d" * 100}
                and bytes(spoilt[at : at + 1]) not in b"qr"
            )
        except DataError:
            pass
    assert unseen <= 2  # names of members, which nothing vouches for


def test_a_bomb_is_refused_before_it_inflates():
    payload = zipped(zipfile.ZIP_DEFLATED, contents={"a": bytes(10 << 20)})
    assert len(payload) < 20_000
    with pytest.raises(DataError, match="too large"):
        read_directory(Reads(payload), len(payload), "t", most_bytes=1 << 20)
    lying = directory(payload)[0]
    lying.file_size, lying.CRC = 1000, zlib.crc32(bytes(1000))
    with pytest.raises(DataError, match="1000 bytes it promises"):
        read_member(payload, lying, "t")
    assert MOST_BYTES < 1 << 30


def test_the_whole_of_many_small_members_counts():
    payload = zipped(zipfile.ZIP_DEFLATED, contents={str(number): bytes(1 << 19) for number in range(8)})
    assert len(read_directory(Reads(payload), len(payload), "t", most_bytes=4 << 20)) == 8
    with pytest.raises(DataError, match="too large") as caught:
        read_directory(Reads(payload), len(payload), "t", most_bytes=(4 << 20) - 1)
    assert "8 members" in str(caught.value)


def test_members_that_share_bytes_are_refused():
    """As many as one likes would inflate out of the same few bytes."""
    payload = bytearray(zipped(zipfile.ZIP_DEFLATED, contents={"a": b"abc" * 100, "b": b"abc" * 100}))
    second = payload.rindex(b"PK\x01\x02")
    payload[second + 42 : second + 46] = bytes(4)  # the second begins where the first does
    with pytest.raises(DataError, match="not a whole|no whole") as caught:
        directory(bytes(payload), "here.npz")
    assert "b at byte 0" in str(caught.value) and "here.npz" in str(caught.value)


def test_a_directory_that_would_fill_the_memory_is_not_fetched():
    size = 64 << 20
    reads = Reads(bytes(size) + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65_000, 65_000, size, 0, 0))
    with pytest.raises(DataError, match="directory of 67108864 bytes"):
        read_directory(reads, len(reads.content), "t")
    assert sum(stop - start for start, stop in reads.ranges) < 70_000


def test_what_the_reader_raises_is_not_taken_for_damage():
    def read(start: int, stop: int) -> bytes:
        raise ConnectionError("the network is down")

    with pytest.raises(ConnectionError):
        read_directory(read, 100_000, "t")


def test_encrypted_and_unknown_compression_are_refused():
    payload = bytearray(zipped(contents={"a": b"abc"}))
    at = payload.rindex(b"PK\x01\x02")
    payload[at + 8] |= 1
    with pytest.raises(DataError, match="encrypted"):
        contents_of(bytes(payload))
    with pytest.raises(DataError, match="method 14"):
        contents_of(zipped(zipfile.ZIP_LZMA, contents={"a": b"abc"}))


@pytest.mark.parametrize("content", [b"", b"PK", b"not a zip", b"RIFF" + bytes(100), b"PK\x05\x06" + b"\xff" * 18])
def test_what_is_no_zip_is_told(content):
    with pytest.raises(DataError) as caught:
        directory(content, "here.npz")
    assert "here.npz" in str(caught.value)
