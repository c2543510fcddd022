"""Members of a tar, front to back by ranged reads: whole names, and where the bytes of each begin.

By hand, because tarfile passes over what is wrong in an extended header, and a sample would get another name or no
bytes (test_extended_headers_that_cannot_be_read_are_told), and takes a prefix for a name's that is GNU tar's times
(test_old_archives_without_a_magic_and_a_prefix_that_is_something_else).

Source: POSIX.1-2001 pax and ustar, GNU long names, as GNU tar and Python's tarfile write them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from colabkit.core.errors import DataError

BLOCK = 512
_FILES = (b"0", b"\0", b"7")
_PACKED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ\0")  # how gzip, zstd, bzip2 and xz begin
_LARGEST_HEADER = 1 << 20  # of a pax or long-name member: more is nonsense, not a name
_MOST_DIGITS = 20
_PADDING_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Member:
    """One file in the archive: its bytes are [offset, offset + size)."""

    name: str
    offset: int
    size: int


def walk(read: Callable[[int, int], bytes], size: int, where: str) -> Iterator[Member]:
    """Yield the files of a tar of `size` bytes in order. `read(start, stop)` returns bytes of it.

    Raises: DataError for an archive that is compressed, cut short or damaged.
    """
    position, longname, pax, global_pax, seen_end = 0, None, {}, {}, False
    while position + BLOCK <= size:
        header = read(position, position + BLOCK)
        if not header.strip(b"\0"):
            seen_end = True
            break
        _require_header(header, position, where)
        kind, member_size = header[156:157], _number(header[124:136], position, where)
        if kind in (b"x", b"g", b"L", b"K"):
            if member_size > _LARGEST_HEADER:
                raise _damaged(where, f"an extended header of {member_size} bytes at byte {position}")
            _require_inside(position + BLOCK + member_size, size, where, "an extended header")
            content = read(position + BLOCK, position + BLOCK + member_size)
            if kind == b"L":
                longname = _text(content.rstrip(b"\0"))
            elif kind == b"x":
                pax = _records(content, where)
            elif kind == b"g":
                global_pax |= _records(content, where)
        else:
            known = global_pax | pax
            if "size" in known:
                member_size = _decimal(known["size"], where)
            member_size = member_size if kind in _FILES else 0
            name = known.get("path") or longname or _name(header)
            longname, pax = None, {}
            if kind in _FILES and not name.endswith("/"):
                _require_inside(position + BLOCK + member_size, size, where, name)
                yield Member(name, position + BLOCK, member_size)
        position += BLOCK + -(-member_size // BLOCK) * BLOCK
    if not seen_end or longname or pax:
        raise _damaged(where, f"it ends at byte {min(position, size)}, without its closing blocks")
    while position < size:  # zeros alone: a header that was lost must not hide what follows it
        padding = read(position, min(position + _PADDING_BYTES, size))
        if padding.strip(b"\0"):
            raise _damaged(where, f"more data behind the closing blocks at byte {position}")
        position += len(padding)


def _require_header(header: bytes, position: int, where: str) -> None:
    stored = header[148:156].strip(b" \0")
    total = sum(header[:148]) + 8 * 32 + sum(header[156:])
    try:
        if int(stored or b"0", 8) == total:
            return
    except ValueError:
        pass
    if position == 0 and header.startswith(_PACKED):
        raise DataError(
            "Cannot read single samples of a compressed tar",
            got="a compressed archive",
            expected="a plain tar",
            where=where,
            fix="unpack the compression, as with gunzip: audio in it is compressed already",
        )
    raise _damaged(where, f"no member's header at byte {position}")


def _require_inside(end: int, size: int, where: str, name: str) -> None:
    if end > size:
        raise _damaged(where, f"{name} ends at byte {end}, the file at {size}")


def _damaged(where: str, got: str) -> DataError:
    return DataError(
        "The tar is cut short or damaged",
        got=got,
        expected="a whole tar",
        where=where,
        fix="copy or upload this shard again, or remove it from the source",
    )


def _number(field: bytes, position: int, where: str) -> int:
    if field[0] & 0x80:  # base 256, of files over 8 GiB
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    digits = field.strip(b" \0") or b"0"
    if digits.strip(b"01234567"):
        raise _damaged(where, f"a size that is no number at byte {position}")
    return int(digits, 8)


def _decimal(text: str, where: str) -> int:
    if not text.isdecimal() or len(text) > _MOST_DIGITS:
        raise _damaged(where, "a number in an extended header that is none")
    return int(text)


def _name(header: bytes) -> str:
    name = header[:100].partition(b"\0")[0]
    prefix = header[345:500].partition(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return _text(prefix + b"/" + name if prefix else name)


def _records(content: bytes, where: str) -> dict[str, str]:
    """Read pax records: "LENGTH KEY=VALUE\\n", the length counting all of the line."""
    records, position = {}, 0
    while position < len(content) and content[position]:
        space = content.find(b" ", position, position + _MOST_DIGITS + 1)
        end = position + _decimal(_text(content[position:space]) if space > 0 else "", where)
        key, equals, value = content[space + 1 : end - 1].partition(b"=")
        if not equals or content[end - 1 : end] != b"\n":
            raise _damaged(where, "an extended header that cannot be read")
        records[_text(key)] = _text(value)
        position = end
    return records


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
