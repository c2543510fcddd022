"""Find the members of a zip by its central directory: from the whole of it, or from its end alone.

Source: PKWARE APPNOTE 6.3.10, 4.3.7 (local header), 4.3.12 (central directory), 4.3.14-4.3.16 (its end, zip64 too).
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from colabkit.core.errors import DataError

_END, _END_64, _PLACE_64 = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q"), struct.Struct("<4sLQL")
_CENTRAL, _LOCAL = struct.Struct("<4s6H3L5H2L"), struct.Struct("<4s5H3L2H")
_STORED, _DEFLATED = 0, 8
_FULL_16, _FULL_32 = 0xFFFF, 0xFFFFFFFF  # the true value stands in a zip64 record
_LONGEST_COMMENT = 65_535
_ENCRYPTED = 0x1
MOST_MEMBERS = 1_000  # a segment holds some ten arrays
MOST_BYTES = 256 << 20  # inflated: 50 minutes of 24 kHz float32; more is no segment but a bomb


class NeedsMoreError(Exception):
    """The end of the zip that was given does not reach back to its directory; `args[0]` bytes from its end do."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a zip: its local header begins at `offset`, `stored` bytes of it inflate to `size`."""

    name: str
    offset: int
    stored: int
    size: int
    crc32: int
    is_deflated: bool


def read_directory(tail: bytes, where: str, size: int | None = None) -> list[Member]:
    """Return the members of a zip of `size` bytes from its last bytes, or from the whole of it.

    Raises: DataError for what is no zip, is cut, encrypted or compressed in a way that numpy does not write; NeedsMoreError
    when `tail` is not the whole and the directory begins before it.
    """
    size = len(tail) if size is None else size
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + _END.size > len(tail):
        if len(tail) < min(size, _LONGEST_COMMENT + _END.size):
            raise NeedsMoreError(min(size, _LONGEST_COMMENT + _END.size))
        raise _damaged(where, "no directory at the end" if tail[:2] == b"PK" or len(tail) < size else
                       f"it begins with {bytes(tail[:8])!r}")
    _, _, _, _, number, directory_size, offset, _ = _END.unpack_from(tail, at)
    before = size - len(tail)  # bytes of the file that are not in `tail`
    has_place_64 = tail[max(0, at - _PLACE_64.size): at].startswith(b"PK\x06\x07")
    if has_place_64 or number == _FULL_16 or _FULL_32 in (directory_size, offset):
        at, number, directory_size, offset = _read_end_64(tail, at, before, where)
    begin = at - directory_size  # what stands before the zip moves all offsets alike
    shift = before + begin - offset
    if begin < 0:
        if before > 0 and before + begin >= 0:
            raise NeedsMoreError(min(size, len(tail) - begin))
        raise _damaged(where, f"a directory of {directory_size} bytes before byte {before + at}")
    if number > MOST_MEMBERS:
        raise _damaged(where, f"{number} members")
    return _read_members(tail, begin, number, shift, size, where)


def read_member(payload: bytes, member: Member, where: str, most_bytes: int = MOST_BYTES) -> bytes | memoryview:
    """Return a member's content, without a copy where it is stored as it is; its checksum is looked at.

    Raises: DataError when it is cut or damaged, or inflates to more than the directory says or `most_bytes`.
    """
    begin = data_offset(payload[member.offset: member.offset + _LOCAL.size], member, where)
    if begin + member.stored > len(payload):
        raise _damaged(where, f"{member.name} ends at byte {begin + member.stored}, the file at {len(payload)}")
    if member.size > most_bytes:
        raise DataError("A member of the zip is too large for a segment", got=f"{member.name} of {member.size} bytes",
                        expected=f"at most {most_bytes}", where=where, fix="cut long recordings into segments first")
    content = memoryview(payload)[begin: begin + member.stored]
    if member.is_deflated:
        content = _inflate(content, member, where)
    if len(content) != member.size or zlib.crc32(content) != member.crc32:
        raise _damaged(where, f"a wrong checksum of {member.name}")
    return content


def data_offset(local_header: bytes, member: Member, where: str) -> int:
    """Return where a member's stored bytes begin, from the fixed part of its local header."""
    if len(local_header) < _LOCAL.size or local_header[:4] != b"PK\x03\x04":
        raise _damaged(where, f"no header of {member.name} at byte {member.offset}")
    fields = _LOCAL.unpack(local_header)
    return member.offset + _LOCAL.size + fields[9] + fields[10]


def first_bytes(stored: bytes, member: Member, number: int) -> bytes:
    """Return the first bytes of a member's content from the first of its stored bytes."""
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(stored, number) if member.is_deflated else stored[:number]


def _inflate(content: memoryview, member: Member, where: str) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = inflater.decompress(content, member.size + 1)  # never more, whatever it would become
    except zlib.error as error:
        raise _damaged(where, f"{member.name} does not inflate: {error}") from error
    if len(inflated) > member.size:
        raise _damaged(where, f"{member.name} inflates to more than the {member.size} bytes it promises")
    return inflated


def _read_end_64(tail: bytes, at: int, before: int, where: str) -> tuple[int, int, int, int]:
    """Return where the zip64 record of the end lies in `tail`, the number of members, and the directory's size and offset."""
    if at < _PLACE_64.size or tail[at - _PLACE_64.size: at - _PLACE_64.size + 4] != b"PK\x06\x07":
        raise _damaged(where, "a zip64 directory without its place")
    place = _PLACE_64.unpack_from(tail, at - _PLACE_64.size)[2] - before
    if place < 0 or place + _END_64.size > len(tail) or tail[place: place + 4] != b"PK\x06\x06":
        raise _damaged(where, "a zip64 directory that is not where it should be")
    fields = _END_64.unpack_from(tail, place)
    return place, fields[7], fields[8], fields[9]


def _read_members(tail: bytes, at: int, number: int, shift: int, size: int, where: str) -> list[Member]:
    members = []
    for _ in range(number):
        if at + _CENTRAL.size > len(tail) or tail[at: at + 4] != b"PK\x01\x02":
            raise _damaged(where, f"a directory that ends after {len(members)} of {number} members")
        (_, _, _, flags, method, _, _, crc32, stored, inflated, name_size, extra_size, comment_size, _, _, _,
         offset) = _CENTRAL.unpack_from(tail, at)
        name = tail[at + _CENTRAL.size: at + _CENTRAL.size + name_size].decode("utf-8", "replace")
        extra = tail[at + _CENTRAL.size + name_size: at + _CENTRAL.size + name_size + extra_size]
        inflated, stored, offset = _widened(extra, (inflated, stored, offset))
        if flags & _ENCRYPTED or method not in (_STORED, _DEFLATED):
            raise DataError("Cannot read this zip", got="an encrypted member" if flags & _ENCRYPTED else
                            f"compression method {method} of {name}", expected="stored or deflated, as numpy writes it",
                            where=where, fix="write it again with numpy.savez")
        if offset + shift < 0 or offset + shift + stored > size:
            raise _damaged(where, f"{name} at byte {offset + shift} of a file of {size}")
        members.append(Member(name, offset + shift, stored, inflated, crc32, method == _DEFLATED))
        at += _CENTRAL.size + name_size + extra_size + comment_size
    return members


def _widened(extra: bytes, values: tuple[int, int, int]) -> list[int]:
    """Replace values that do not fit 32 bits by those of the zip64 field (APPNOTE 4.5.3)."""
    wide = list(values)
    if _FULL_32 not in wide:
        return wide
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            found = extra[at + 4: at + 4 + length]
            for i, value in enumerate(wide):
                if value == _FULL_32 and len(found) >= 8:
                    wide[i], found = int.from_bytes(found[:8], "little"), found[8:]
        at += 4 + length
    return wide


def _damaged(where: str, got: str) -> DataError:
    return DataError("This is no whole npz file", got=got, expected="a zip of arrays, as numpy.savez writes it", where=where,
                     fix="copy or download it again, or remove it")
