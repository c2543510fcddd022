"""Unpack zip and tar files from strangers: nothing lands outside, is cut short, or grows past a budget."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import posixpath
import re
import secrets
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from colabkit.core.disk import disk_fault, in_units
from colabkit.core.errors import DataError, StateError

_CHUNK_BYTES = 1 << 20
_CORRUPT = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError,
            struct.error, ValueError, KeyError, IndexError, OverflowError, RuntimeError)  # readers raise all


class _StrictMember(tarfile.TarInfo):
    """A tar header that fails where tarfile would take a broken or missing one for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tar):
        try:
            return super().fromtarfile(tar)
        except (tarfile.EmptyHeaderError, tarfile.TruncatedHeaderError, tarfile.InvalidHeaderError) as error:
            raise tarfile.ReadError(f"archive ends without its end mark ({error})") from error


def extract_archive(archive: str | os.PathLike, destination: str | os.PathLike, *,
                    budget_bytes: int = 64 << 30, budget_files: int = 5_000_000) -> list[Path]:
    """Unpack a zip or tar (plain, .gz, .xz, .bz2) into a new or empty folder and return its files, sorted.

    All or nothing: members are written beside `destination` and moved in at the end. A link to a file inside
    the archive becomes a copy (Drive folders hold no links). Raises DataError for absolute names, '..', other
    links, devices, encryption, a cut or corrupt archive, or more than the budget; budgets count what is
    really unpacked, not what headers claim. StateError for a destination with something in it or a bad disk.
    """
    archive, destination = Path(archive), Path(os.path.abspath(destination))
    if not archive.is_file():
        raise DataError("Cannot unpack", got=str(archive), expected="a zip or tar file",
                        fix="check the path, or download the archive again")
    if os.path.lexists(destination) and not (destination.is_dir() and not any(destination.iterdir())):
        raise StateError(f"Cannot unpack {archive.name}", got="something already there",
                         expected="a new or empty folder", where=destination,
                         fix=f"move it away: mv '{destination}' '{destination}.moved'; or name another")
    staging = destination.with_name(f".colabkit-extract-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        staging.mkdir(parents=True)
        members = _zip_members(archive) if zipfile.is_zipfile(archive) else _tar_members(archive)
        names = _unpack(members, staging, archive, budget_bytes, budget_files)
        if destination.exists():
            destination.rmdir()
        os.replace(staging, destination)
    except (*_CORRUPT, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # bz2 and gzip give no number
            raise disk_fault(error, destination, f"unpack {archive.name}") from error
        raise DataError("Cannot unpack: the archive is cut, corrupt or of an unknown kind", got=str(error),
                        expected="a whole zip, tar, tar.gz or tar.xz", where=archive,
                        fix="download or make the archive again") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return sorted(destination / name for name in names)


def _unpack(members: Iterator[tuple[str, IO[bytes] | None]], staging: Path, archive: Path,
            budget_bytes: int, budget_files: int) -> set[str]:
    names: set[str] = set()
    num_bytes = num_members = 0
    for raw_name, content in members:
        name = _safe_name(raw_name, archive)
        num_members += 1
        if num_members > budget_files:
            raise _over_budget(archive, f"more than {budget_files} members", "budget_files")
        if content is None:
            (staging / name).mkdir(parents=True, exist_ok=True)
            continue
        if not name:
            raise _refusal(archive, raw_name, "a file without a name")
        target = staging / name
        if target.is_dir() or any((staging / parent).is_file() for parent in Path(name).parents):
            raise _refusal(archive, raw_name, "a file where the archive also has a folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        with content, open(target, "wb") as out:
            while chunk := content.read(_CHUNK_BYTES):
                num_bytes += len(chunk)
                if num_bytes > budget_bytes:
                    raise _over_budget(archive, f"more than {in_units(budget_bytes)}", "budget_bytes")
                out.write(chunk)
        names.add(name)
    return names


def _zip_members(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    with zipfile.ZipFile(archive) as opened:
        infos = opened.infolist()
        for info in infos:
            _safe_name(info.filename, archive)  # refuse before the first byte is written
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refusal(archive, info.filename, "a link or device")
            if info.flag_bits & 0x1:
                raise _refusal(archive, info.filename, "an encrypted file",
                               fix="unpack it with its password and pack it again without one")
        for info in infos:
            yield info.filename, None if info.is_dir() else opened.open(info)


def _tar_members(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    links: list[tuple[str, str]] = []
    regular: dict[str, tarfile.TarInfo] = {}
    with (_decompressed(archive) as stream,
          tarfile.open(fileobj=stream, mode="r:", tarinfo=_StrictMember) as opened):
        for member in opened:
            name = _safe_name(member.name, archive)
            if member.isdir():
                yield member.name, None
            elif member.isreg():
                regular[name] = member
                yield member.name, opened.extractfile(member)
            elif member.issym() or member.islnk():
                start = posixpath.dirname(name) if member.issym() else ""
                if member.linkname.startswith("/"):
                    raise _refusal(archive, member.name, f"a link out of it, to {member.linkname!r}")
                links.append((member.name, posixpath.normpath(posixpath.join(start, member.linkname))))
            else:
                raise _refusal(archive, member.name, "a device, pipe or other special file")
        _read_to_the_end(stream)
        for name, target in links:
            if target not in regular:
                raise _refusal(archive, name, f"a link to {target!r}, which is no file of the archive")
            yield name, opened.extractfile(regular[target])


def _decompressed(archive: Path) -> IO[bytes]:
    with open(archive, "rb") as opened:
        start = opened.read(6)
    for magic, open_kind in ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open)):
        if start.startswith(magic):
            return open_kind(archive, "rb")
    return open(archive, "rb")


def _read_to_the_end(stream: IO[bytes]) -> None:
    """Read what follows the archive's end mark: the compression's checksum over everything comes last."""
    for _ in range(64):
        if not stream.read(_CHUNK_BYTES):
            return
    raise tarfile.ReadError("more than 64 MiB follow its end mark")


def _safe_name(raw: str, archive: Path) -> str:
    """Return the member's name as a relative path with '/', or refuse it."""
    name = raw.replace("\\", "/")
    if name.startswith("/") or re.match(r"[A-Za-z]:", name) or "\0" in name:
        raise _refusal(archive, raw, "an absolute or impossible name")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise _refusal(archive, raw, "a name that climbs out with '..'")
    return "/".join(parts)


def _refusal(archive: Path, member: str, what: str, fix: str = "") -> DataError:
    fix = fix or "get the archive from a source you trust, or pack it again: tar -czhf new.tar.gz folder"
    return DataError("Cannot unpack: the archive holds " + what, got=member, expected="files and folders",
                     where=archive, fix=fix)


def _over_budget(archive: Path, what: str, setting: str) -> DataError:
    return DataError("Cannot unpack: the archive unpacks to more than allowed", got=what, where=archive,
                     fix=f"if you trust it, raise {setting}= of extract_archive")
