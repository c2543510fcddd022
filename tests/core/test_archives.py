"""Tests of colabkit.core.archives: nothing lands outside, nothing is cut short, bombs stop at the budget."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import shutil
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from colabkit.core import files
from colabkit.core.errors import DataError, StateError


def names_in(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


CONTENT = {"data/a.txt": b"alpha", "data/b/c.bin": bytes(range(256)) * 40, "top": b""}


def tar_bytes(entries, mode="w"):
    """Pack (TarInfo or name, content) pairs."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as tar:
        for entry, content in entries:
            info = entry if isinstance(entry, tarfile.TarInfo) else tarfile.TarInfo(entry)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def zip_bytes(entries):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as opened:
        for entry, content in entries:
            opened.writestr(entry, content)
    return packed.getvalue()


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def refused(tmp_path, content, kind=DataError, **budget):
    """Unpack `content`, expect a refusal, and see that nothing at all was left behind."""
    place = tmp_path / "place"
    place.mkdir(exist_ok=True)
    (tmp_path / "archive").write_bytes(content)
    with pytest.raises(kind) as caught:
        files.extract_archive(tmp_path / "archive", place / "out", **budget)
    assert names_in(place) == [] and names_in(tmp_path) == ["archive", "place"]
    assert caught.value.fix
    return str(caught.value)


@pytest.mark.parametrize("kind", ["zip", "w", "w:gz", "w:xz", "w:bz2"])
def test_archives_of_every_kind_unpack_whole(tmp_path, kind):
    entries = list(CONTENT.items())
    (tmp_path / "a").write_bytes(zip_bytes(entries) if kind == "zip" else tar_bytes(entries, kind))
    (tmp_path / "out").mkdir()  # an empty folder is fine
    made = files.extract_archive(tmp_path / "a", tmp_path / "out")
    assert made == sorted(tmp_path / "out" / name for name in CONTENT)
    assert {str(path.relative_to(tmp_path / "out")): path.read_bytes() for path in made} == CONTENT
    assert names_in(tmp_path) == ["a", "out"]


BAD_NAMES = ["/etc/passwd", "../x", "a/../../x", "..\\x", "C:\\x", "C:x", "\\\\server\\x", "a/..", ".."]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_leave_the_folder_are_refused(tmp_path, name):
    refused(tmp_path, tar_bytes([("good", b"1"), (name, b"2")]))
    refused(tmp_path, zip_bytes([("good", b"1"), (name, b"2")]))


@pytest.mark.parametrize("entry", [
    link("l", "/etc/passwd"), link("l", "../x"), link("a/l", "../../x"), link("l", "missing"),
    link("l", "../../../etc/passwd", tarfile.LNKTYPE), link("l", "/etc/passwd", tarfile.LNKTYPE),
    link("l", "l"), link("p", "", tarfile.FIFOTYPE), link("d", "", tarfile.CHRTYPE),
    link("d", "", tarfile.BLKTYPE)],
    ids=lambda info: f"{info.type.decode()}-{info.linkname}")
def test_links_outside_and_devices_are_refused(tmp_path, entry):
    told = refused(tmp_path, tar_bytes([("good", b"1"), (entry, b"")]))
    assert "holds a link" in told or "special file" in told


def test_writing_through_a_link_is_impossible(tmp_path):
    refused(tmp_path, tar_bytes([(link("d", ".."), b""), ("d/x", b"2")]))
    refused(tmp_path, tar_bytes([(link("d", "sub"), b""), (link("d/e", ".."), b""), ("sub/e/x", b"2")]))
    info = zipfile.ZipInfo("l")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    refused(tmp_path, zip_bytes([(info, b"/etc/passwd")]))


def test_links_inside_become_copies(tmp_path):
    entries = [("d/a", b"alpha"), (link("d/soft", "a"), b""), (link("hard", "d/a", tarfile.LNKTYPE), b""),
               (link("e/up", "../d/a"), b"")]
    (tmp_path / "a.tar").write_bytes(tar_bytes(entries))
    made = files.extract_archive(tmp_path / "a.tar", tmp_path / "out")
    assert [path.read_bytes() for path in made] == [b"alpha"] * 4
    assert not any(path.is_symlink() for path in made)


def test_bombs_stop_at_the_budget(tmp_path):
    bomb = [("z", b"\0" * 3_000_000)]
    assert "budget_bytes" in refused(tmp_path, zip_bytes(bomb), budget_bytes=2_000_000)
    assert "budget_bytes" in refused(tmp_path, tar_bytes(bomb, "w:gz"), budget_bytes=2_000_000)
    after_the_end = gzip.compress(tar_bytes([("a", b"1")]) + b"\0" * (70 << 20), 1)
    assert "end mark" in refused(tmp_path, after_the_end)
    many = [(str(number), b"") for number in range(50)]
    assert "budget_files" in refused(tmp_path, tar_bytes(many), budget_files=49)


def test_a_zip_that_lies_about_its_size_is_caught(tmp_path):
    honest = zip_bytes([("z", b"\0" * 3_000_000)])
    size = (3_000_000).to_bytes(4, "little")
    assert honest.count(size) == 2
    refused(tmp_path, honest.replace(size, (10).to_bytes(4, "little")), budget_bytes=1000)


def test_conflicting_members_are_refused(tmp_path):
    refused(tmp_path, tar_bytes([("a", b"file"), ("a/b", b"below a file")]))
    refused(tmp_path, tar_bytes([("a/b", b"1"), ("a", b"over a folder")]))


@pytest.mark.parametrize("pack", [lambda: zip_bytes(CONTENT.items()), lambda: tar_bytes(CONTENT.items()),
                                  lambda: tar_bytes(CONTENT.items(), "w:gz"),
                                  lambda: tar_bytes(CONTENT.items(), "w:xz"),
                                  lambda: tar_bytes(CONTENT.items(), "w:bz2")],
                         ids=["zip", "tar", "gz", "xz", "bz2"])
def test_a_cut_archive_is_never_taken_for_whole(tmp_path, pack):
    whole = pack()
    needed = len(whole)
    if len(whole) > 10_000:  # plain tar: the padding after its first end mark may go
        needed = max(index + 1 for index, byte in enumerate(whole) if byte) + 512
    cuts = {0, 1, 511, 512, 513, 1024, 1536, 2048, needed // 2, needed - 600, needed - 513, needed - 1}
    for cut in sorted(cut for cut in cuts if 0 <= cut < needed):
        refused(tmp_path, whole[:cut])


def test_damaged_archives_end_in_one_clear_error(tmp_path):
    dice = random.Random(0)
    packs = [zip_bytes(CONTENT.items()), tar_bytes(CONTENT.items()), tar_bytes(CONTENT.items(), "w:gz"),
             tar_bytes(CONTENT.items(), "w:xz"), tar_bytes(CONTENT.items(), "w:bz2")]
    (tmp_path / "place").mkdir()
    failures = 0
    for number in range(300):
        damaged = bytearray(packs[number % len(packs)])
        for _ in range(dice.choice((1, 3, 30))):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        (tmp_path / "a").write_bytes(damaged)
        try:
            out = tmp_path / "place" / "out"
            made = files.extract_archive(tmp_path / "a", out, budget_bytes=10_000_000)
            if number % len(packs) > 1:  # a compressed tar has a checksum over everything
                assert {str(path.relative_to(out)): path.read_bytes() for path in made} == CONTENT
        except (DataError, StateError) as error:
            assert error.fix
            failures += 1
        assert set(names_in(tmp_path / "place")) <= {"out"} and names_in(tmp_path) == ["a", "place"]
        shutil.rmtree(tmp_path / "place" / "out", ignore_errors=True)
    assert 100 < failures < 300


def test_what_is_no_archive(tmp_path):
    packed = [kind.compress(b"no tar") for kind in (gzip, lzma, bz2)]
    for content in (b"", b"hello", *packed):
        assert "unknown kind" in refused(tmp_path, content)
    with pytest.raises(DataError, match="zip or tar"):
        files.extract_archive(tmp_path / "nowhere", tmp_path / "out")


def test_encrypted_zip_is_refused(tmp_path):
    plain = bytearray(zip_bytes([("a", b"secret")]))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        plain[plain.index(mark) + offset] |= 1
    assert "encrypted" in refused(tmp_path, bytes(plain))


def test_a_destination_in_use_is_kept(tmp_path):
    (tmp_path / "a").write_bytes(zip_bytes(CONTENT.items()))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_bytes(b"mine")
    for place in (tmp_path / "out", tmp_path / "out" / "mine"):
        with pytest.raises(StateError, match="already there"):
            files.extract_archive(tmp_path / "a", place)
    assert names_in(tmp_path / "out") == ["mine"]
