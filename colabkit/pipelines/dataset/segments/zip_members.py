"""Members of a zip: listed by zipfile from its end alone; read here without a copy, every size looked at before.

zipfile in the oldest Python that is supported reads overlapping members, and inflates whatever it is given.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipInfo

from colabkit.core.errors import DataError
from colabkit.io.samples.range_file import RangeFile

LOCAL_BYTES = 30  # of a member's own header, before its name
MOST_MEMBERS = 1_000  # a segment holds some ten arrays
MOST_BYTES = 256 << 20  # of a whole zip, inflated: 50 minutes of 24 kHz float32; more is no segment but a bomb
_MOST_DIRECTORY_BYTES = 1 << 20
_NAME_LENGTH, _EXTRA_LENGTH = slice(26, 28), slice(28, 30)
_ENCRYPTED = 0x1


def read_directory(
    read: Callable[[int, int], bytes], size: int, where: str, most_bytes: int = MOST_BYTES
) -> list[ZipInfo]:
    """Return the members of a zip of `size` bytes in the order of its directory; `read(start, stop)` gives its bytes.

    Raises: DataError for what is no zip, is cut, encrypted or compressed in a way that numpy does not write, for
    members that share bytes, and for more of them, or more bytes in all of them, than a segment has.
    """
    file = _Directory(read, size, where)
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError, OverflowError) as error:
        if file.failure is not None:  # zipfile takes every OSError for damage
            raise file.failure from None
        raise _damaged(where, str(error)) from error
    if len(members) > MOST_MEMBERS:
        raise _damaged(where, f"{len(members)} members")
    for member in members:
        _require_readable(member, where)
    _require_apart(members, size, where)
    if (total := sum(member.file_size for member in members)) > most_bytes:
        raise DataError(
            "The zip is too large for a segment",
            got=f"{total} bytes in {len(members)} members",
            expected=f"at most {most_bytes}",
            where=where,
            fix="cut long recordings into segments first",
        )
    return members


def read_member(payload: bytes, member: ZipInfo, where: str) -> bytes | memoryview:
    """Return a member's content, without a copy where it is stored as it is; its checksum is looked at.

    Raises: DataError when it is cut or damaged, or inflates to more than the directory says.
    """
    begin = data_offset(payload[member.header_offset : member.header_offset + LOCAL_BYTES], member, where)
    end = begin + member.compress_size
    if end > len(payload):
        raise _damaged(where, f"{member.filename} ends at byte {end}, the file at {len(payload)}")
    content = memoryview(payload)[begin:end]
    if member.compress_type == ZIP_DEFLATED:
        content = _inflate(content, member, member.file_size + 1, where)  # never more, whatever it would become
        if len(content) > member.file_size:
            raise _damaged(where, f"{member.filename} inflates to more than the {member.file_size} bytes it promises")
    if len(content) != member.file_size or zlib.crc32(content) != member.CRC:
        raise _damaged(where, f"a wrong checksum of {member.filename}")
    return content


def data_offset(local_header: bytes, member: ZipInfo, where: str) -> int:
    """Return where a member's stored bytes begin, from the fixed part of its own header (APPNOTE 6.3.10, 4.3.7)."""
    if len(local_header) < LOCAL_BYTES or local_header[:4] != b"PK\x03\x04":
        raise _damaged(where, f"no header of {member.filename} at byte {member.header_offset}")
    lengths = (int.from_bytes(local_header[place], "little") for place in (_NAME_LENGTH, _EXTRA_LENGTH))
    return member.header_offset + LOCAL_BYTES + sum(lengths)


def first_bytes(stored: bytes, member: ZipInfo, number: int, where: str) -> bytes:
    """Return the first bytes of a member's content from the first of its stored bytes. Raises: DataError for damage."""
    if member.compress_type == ZIP_STORED:
        return stored[:number]
    return _inflate(stored, member, number, where)


class _Directory(RangeFile):
    """The zip as zipfile reads it: a directory that would fill the memory is refused before it is fetched."""

    def __init__(self, read: Callable[[int, int], bytes], size: int, where: str):
        super().__init__(read, size, where, window_bytes=0)

    def read(self, count: int | None = -1) -> bytes:
        if count is not None and count > _MOST_DIRECTORY_BYTES:
            raise _damaged(self.name, f"a directory of {count} bytes")
        return super().read(count)


def _require_readable(member: ZipInfo, where: str) -> None:
    is_encrypted = member.flag_bits & _ENCRYPTED
    if is_encrypted or member.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        got = "encrypted content" if is_encrypted else f"compression method {member.compress_type}"
        raise DataError(
            "Cannot read this zip",
            got=f"{got} of {member.filename}",
            where=where,
            expected="stored or deflated, as numpy writes it",
            fix="write it again with numpy.savez",
        )


def _require_apart(members: list[ZipInfo], size: int, where: str) -> None:
    """Raise DataError for members that share bytes: a small file could stand for any amount."""
    end, before = 0, "the beginning"
    for member in sorted(members, key=lambda one: one.header_offset):
        if member.header_offset < end:
            raise _damaged(
                where, f"{member.filename} at byte {member.header_offset}, inside of {before}, which ends at byte {end}"
            )
        end, before = member.header_offset + LOCAL_BYTES + member.compress_size, member.filename
        if end > size:
            raise _damaged(where, f"{member.filename} ends at byte {end} of a file of {size}")


def _inflate(content: bytes | memoryview, member: ZipInfo, most_bytes: int, where: str) -> bytes:
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, most_bytes)
    except zlib.error as error:
        raise _damaged(where, f"{member.filename} does not inflate: {error}") from error


def _damaged(where: str, got: str) -> DataError:
    return DataError(
        "This is no whole npz file",
        got=got,
        expected="a zip of arrays, as numpy.savez writes it",
        where=where,
        fix="copy or download it again, or remove it",
    )
