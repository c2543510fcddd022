"""Tar members: the same as Python's tarfile finds, for every way to write one; damage is told, whatever it is."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import shutil
import subprocess
import tarfile

import pytest

from colabkit.core.errors import DataError
from colabkit.io.samples.tar import BLOCK, Member, walk

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
NAMES = [
    "a.wav",
    "dir/b.c.d.flac",
    "Zoë/日本語.json",
    "🎤.txt",
    "./with/dot.wav",
    "/absolute.wav",
    " space .wav",
    "BZhang-1.flac",
    "\x1f\x8b.wav",
    "no suffix",
    "../above.wav",
    "new\nline.wav",
    "d" * 60 + "/" + "e" * 90 + ".wav",
    "/".join(["long"] * 18) + "/é.wav",
]
TOO_LONG = ["/".join(["d" * 50] * 8) + "/x.wav", "n" * 240 + ".wav", "é" * 150 + ".wav"]  # for ustar
SIZES = [0, 1, 511, 512, 513, 5_000]


class Reads:
    """A file in memory that counts what is read of it and refuses to read past its ends."""

    def __init__(self, content: bytes):
        self.content, self.num_bytes = content, 0

    def __call__(self, start: int, stop: int) -> bytes:
        assert 0 <= start <= stop <= len(self.content)
        self.num_bytes += stop - start
        return self.content[start:stop]


def found_in(content: bytes, where: str = "x.tar") -> list[Member]:
    return list(walk(Reads(content), len(content), where))


def files_of(content: bytes) -> dict[str, bytes]:
    return {m.name: content[m.offset : m.offset + m.size] for m in found_in(content)}


def as_python_sees_it(content: bytes) -> list[Member]:
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
        return [Member(m.name, m.offset_data, m.size) for m in archive if m.isreg()]


def tar_of(files: dict[str, bytes], kind: int = tarfile.PAX_FORMAT, **how) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=kind, encoding="utf-8", errors="surrogateescape", **how
    ) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def sample_files(names=NAMES, seed: int = 0) -> dict[str, bytes]:
    rng = random.Random(seed)
    return {name: rng.randbytes(rng.choice(SIZES)) for name in names}


def with_checksum(header: bytes) -> bytes:
    """Return a header with the checksum that belongs to it."""
    total = sum(header[:148]) + 8 * 32 + sum(header[156:])
    return header[:148] + b"%06o\0 " % total + header[156:]


def header_of(name: str = "a.wav", size: bytes = b"00000000000\0", kind: bytes = b"0") -> bytes:
    plain = tar_of({name: b""})[:BLOCK]
    return with_checksum(plain[:124] + size + plain[136:156] + kind + plain[157:])


END = b"\0" * 2 * BLOCK


def told(content: bytes) -> DataError:
    with pytest.raises(DataError) as caught:
        found_in(content, "s3://bucket/00007.tar")
    assert caught.value.where == "s3://bucket/00007.tar" and caught.value.fix
    return caught.value


@pytest.mark.parametrize("kind", FORMATS)
def test_what_python_writes_is_found_as_python_finds_it(kind):
    files = sample_files(NAMES if kind == "ustar" else NAMES + TOO_LONG)
    content = tar_of(files, FORMATS[kind])
    assert files_of(content) == files and found_in(content) == as_python_sees_it(content)


@pytest.mark.parametrize("seed", range(20))
def test_any_mixture_of_formats_names_and_sizes(seed):
    rng = random.Random(seed)
    letters = ["a", "Z", ".", "/b", "é", "話", "\udcfe", "-", "_"]
    lengths = [1, 5, 98, 99, 100, 101, 155, 256, 400]
    names = sorted({"k" + "".join(rng.choices(letters, k=rng.choice(lengths))) + "q" for _ in range(12)})
    content = tar_of(sample_files(names, seed), FORMATS[rng.choice(["gnu", "pax"])])
    assert files_of(content) == sample_files(names, seed) and found_in(content) == as_python_sees_it(content)


def test_only_what_is_asked_for_is_read():
    content = tar_of({f"{i}.wav": bytes(100_000) for i in range(20)})
    reads = Reads(content)
    assert len(list(walk(reads, len(content), "x"))) == 20 and reads.num_bytes < 21 * BLOCK + 2 * tarfile.RECORDSIZE


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_no_file_is_passed_over(kind):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=FORMATS[kind]) as archive:
        for number, what in enumerate(
            [
                tarfile.DIRTYPE,
                tarfile.SYMTYPE,
                tarfile.LNKTYPE,
                tarfile.CHRTYPE,
                tarfile.BLKTYPE,
                tarfile.FIFOTYPE,
                tarfile.CONTTYPE,
                tarfile.AREGTYPE,
            ]
        ):
            member = tarfile.TarInfo(f"{'d' * 90}/{number}" if kind != "ustar" else f"d/{number}")
            member.type, member.linkname = what, "t" * 99 + ("/more" if kind != "ustar" else "")
            archive.addfile(member)
            archive.addfile(tarfile.TarInfo(f"between-{number}"))
    names = [m.name for m in found_in(buffer.getvalue())]
    assert [n for n in names if "between" in n] == [f"between-{i}" for i in range(8)]
    assert sorted(n[-1] for n in names if "between" not in n) == ["6", "7"]
    assert names == [m.name for m in as_python_sees_it(buffer.getvalue())]


def test_global_headers_count_for_all_that_follow_and_own_ones_for_one():
    content = tar_of({"a.wav": b"1", "é" * 80: b"2", "c.wav": b"3"}, pax_headers={"comment": "ü" * 500})
    assert files_of(content) == {"a.wav": b"1", "é" * 80: b"2", "c.wav": b"3"}
    content = tar_of({"a.wav": b"1", "é" * 80: b"2"}, pax_headers={"path": "all.wav"})
    assert [m.name for m in found_in(content)] == ["all.wav", "é" * 80] and found_in(content) == as_python_sees_it(
        content
    )


def test_links_have_no_content_whatever_size_they_name():
    after = tar_of({"after.wav": b"x"})
    for kind in (b"1", b"2", b"5"):
        content = header_of("link/", size=b"00000005000\0", kind=kind) + after
        assert found_in(content) == as_python_sees_it(content) == [Member("after.wav", 2 * BLOCK, 1)]


def test_sizes_over_8_gib_are_read_from_base_256_and_from_pax():
    size = (9 << 30) + 5
    padded = -(-size // BLOCK) * BLOCK
    for kind in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        member = tarfile.TarInfo("large.wav")
        member.size = size
        head = member.tobuf(kind)
        tail = tar_of({"after.wav": b"x"})
        whole = len(head) + padded + len(tail)

        def read(start, stop, head=head, tail=tail, data=len(head) + padded):
            return head[start:stop] if start < len(head) else tail[start - data : stop - data]

        members = list(walk(read, whole, "x"))
        assert members == [Member("large.wav", len(head), size), Member("after.wav", len(head) + padded + BLOCK, 1)]


def test_old_archives_without_a_magic_and_a_prefix_that_is_something_else():
    header = bytearray(tar_of({"old.wav": b""})[:BLOCK])
    header[257:512] = bytes(255)
    header[345:350] = b"12345"  # GNU tar keeps times here
    assert files_of(with_checksum(bytes(header)) + END) == {"old.wav": b""}


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress], ids=["gzip", "bzip2", "xz"])
def test_a_compressed_tar_is_refused_by_name(pack):
    rng = random.Random(0)
    error = told(pack(tar_of({"a.wav": rng.randbytes(5_000)})))
    assert "compressed" in error.what and "unpack" in error.fix


def test_zstandard_is_refused_by_name():
    import pyarrow

    content = pyarrow.Codec("zstd").compress(tar_of(sample_files()), asbytes=True)
    assert "compressed" in told(content).what


@pytest.mark.parametrize("kind", FORMATS)
def test_truncation_anywhere_is_told(kind):
    """Also at the end of a member, where nothing else would show it."""
    files = sample_files(
        ["a.wav", "b.json", "c.wav"] if kind == "ustar" else ["a.wav", "n" * 150 + ".wav", "é" * 70, "c.wav"]
    )
    content = tar_of(files, FORMATS[kind])
    end = found_in(content)[-1]
    closing = end.offset + -(-end.size // BLOCK) * BLOCK
    for size in sorted({*range(0, closing, 37), *range(0, closing + 1, BLOCK), closing + 1, closing + BLOCK - 1}):
        told(content[:size])
    assert files_of(content[: closing + 2 * BLOCK]) == files


def test_each_flipped_byte_of_a_header_is_told_or_changes_nothing_but_the_header():
    content = tar_of({"a.wav": b"x" * 600, "b.wav": b"y"})
    for place in range(BLOCK):
        broken = bytearray(content)
        broken[place] ^= 0x41
        if 148 <= place < 156 and bytes(broken[148:156]).strip(b" \0") == content[148:156].strip(b" \0"):
            continue
        told(bytes(broken))


def test_a_header_that_was_zeroed_does_not_hide_what_follows():
    content = bytearray(tar_of({"a.wav": b"x" * 600, "b.wav": b"y" * 600, "c.wav": b"z"}))
    content[3 * BLOCK : 4 * BLOCK] = bytes(BLOCK)
    told(bytes(content))
    content[3 * BLOCK : 6 * BLOCK] = bytes(3 * BLOCK)  # and all its data with it
    told(bytes(content))


def test_two_archives_put_together_are_not_taken_for_the_first_alone():
    told(tar_of({"a.wav": b"1"}) + tar_of({"b.wav": b"2"}))


def test_empty_archives_have_no_members_and_an_empty_file_is_none():
    assert found_in(tar_of({})) == [] and found_in(END) == []
    told(b"")


@pytest.mark.parametrize(
    "size",
    [b"-0000000001\0", b"-0000001000\0", b"77777777777\0", b"hello world\0", b"\xff" * 12, b"\x80" + b"\xff" * 11],
)
def test_sizes_that_cannot_be_are_told(size):
    """A size below zero must not send the reader back, for ever."""
    told(header_of(size=size) + END)
    told(header_of(size=size, kind=b"x") + END)


@pytest.mark.parametrize(
    "records",
    [
        b"13 size=-512\n",
        b"12 size=abc\n",
        b"19 path=abc\n",
        b"5 path=abc\n",
        b"x path=abc\n",
        b"1x path=abc\n",
        b"12 path_abc\n",
        b"12 path=abc" + b"\n12 size=9",
        b"0 path=abc\n",
        b"9" * 5_000 + b" path=abc\n",
        b"12 path=abcd",
    ],
)
def test_extended_headers_that_cannot_be_read_are_told(records):
    content = header_of(size=b"%011o\0" % len(records), kind=b"x") + records + bytes(-len(records) % BLOCK)
    told(content + header_of() + END)


def test_an_extended_header_for_nobody_or_without_end_is_told():
    pax = header_of(size=b"00000000014\0", kind=b"x") + b"12 path=abc\n" + bytes(500)
    assert files_of(pax + header_of() + END) == {"abc": b""}
    told(pax)
    told(pax + END)
    told(tar_of({"n" * 150: b""}, tarfile.GNU_FORMAT)[: 2 * BLOCK] + END)
    told(header_of(size=b"00777777777\0", kind=b"L") + bytes(BLOCK))
    told(header_of(size=b"00000010000\0", kind=b"L") + bytes(BLOCK))


def test_random_bytes_are_told():
    rng = random.Random(0)
    for size in [1, 511, 512, 513, 1_024, 10_240] * 20:
        told(rng.randbytes(size))


@pytest.mark.timeout(20)
def test_random_damage_never_hangs_nor_leaves_the_file():
    content = tar_of(sample_files(NAMES + TOO_LONG))
    rng = random.Random(0)
    for _ in range(300):
        broken = bytearray(content[: rng.randrange(len(content) + 1)])
        for _ in range(rng.randrange(4)):
            if broken:
                broken[rng.randrange(len(broken))] = rng.randrange(256)
        try:
            for member in found_in(bytes(broken)):
                assert 0 <= member.offset <= member.offset + member.size <= len(broken)
        except DataError as error:
            assert error.where == "x.tar"


def test_what_a_reader_raises_is_not_taken_for_damage():
    def read(start, stop):
        raise TimeoutError("the network is down")

    with pytest.raises(TimeoutError):
        list(walk(read, 10_240, "x"))


@pytest.mark.skipif(shutil.which("tar") is None, reason="no tar here")
@pytest.mark.parametrize("kind", ["v7", "oldgnu", "gnu", "ustar", "pax"])
def test_what_tar_writes_is_found(kind, tmp_path):
    names = ["a.wav", "sub/b.c.wav", "sub/é.json"] + ([] if kind == "v7" else ["s" * 60 + "/" + "t" * 60 + ".wav"])
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(name.encode() * 99)
    os.symlink("a.wav", tmp_path / "in" / "link.wav")
    os.link(tmp_path / "in" / "a.wav", tmp_path / "in" / "zz-second-name.wav")
    made = subprocess.run(
        ["tar", "-c", f"--format={kind}", "-f", tmp_path / "x.tar", "-C", tmp_path / "in", "."], capture_output=True
    )
    assert made.returncode == 0, made.stderr
    content = (tmp_path / "x.tar").read_bytes()
    found = files_of(content)
    assert found_in(content) == as_python_sees_it(content)
    linked = {"./a.wav", "./zz-second-name.wav"} & set(found)
    assert len(linked) == 1 and set(found) - linked == {f"./{n}" for n in names} - {"./a.wav"}
    assert all(
        content == os.fsencode(name.removeprefix("./")) * 99 for name, content in found.items() if name not in linked
    )
