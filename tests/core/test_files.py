"""Tests of colabkit.core.files and core/disk.py below it: crashes, full disks, cut files, fingerprints."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from colabkit.core import disk, files
from colabkit.core.errors import DataError, StateError


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    """A disk that fails for good is asked as often, but at once."""
    monkeypatch.setattr(disk, "RETRY_SECONDS", (0.0, 0.0, 0.0))


OLD, NEW = b"old content", b"new content, longer than the old one" * 100
MENDS = ("free ", "make room", "--state", "chmod", "drive.mount", "run the same", "mv ", "colabkit check")
CODES = [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.ENOTCONN]


def names_in(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def fail_with(code: int):
    def failing(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    return failing


# Atomic writing


def test_write_atomic_replaces_whole_and_leaves_no_temporary_file(tmp_path):
    target = tmp_path / "ledger.json"
    files.write_atomic(target, OLD)
    files.write_atomic(target, "Ünïcode")
    assert target.read_text(encoding="utf-8") == "Ünïcode"
    assert names_in(tmp_path) == ["ledger.json"]


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("boundary", ["open", "write", "write_second", "fsync", "close", "replace"])
def test_a_fault_at_any_boundary_keeps_the_old_file(tmp_path, monkeypatch, boundary, code):
    target = tmp_path / "manifest.json"
    target.write_bytes(OLD)
    real_write, real_close = os.write, os.close
    calls = []

    def short_then_failing(handle, data):
        calls.append(len(data))
        if len(calls) > 1:
            raise OSError(code, os.strerror(code))
        return real_write(handle, data[:7])

    def closing_and_failing(handle):
        real_close(handle)
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        if boundary == "write_second":
            patch.setattr(os, "write", short_then_failing)
        else:
            patch.setattr(os, boundary, closing_and_failing if boundary == "close" else fail_with(code))
        with pytest.raises(StateError) as caught:
            files.write_atomic(target, NEW)
    assert target.read_bytes() == OLD
    assert names_in(tmp_path) == ["manifest.json"]
    assert caught.value.errno == code
    assert any(mend in caught.value.fix for mend in MENDS), caught.value.fix
    assert isinstance(caught.value.__cause__, OSError)


def test_short_writes_are_continued(tmp_path, monkeypatch):
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda handle, data: real(handle, data[:5]))
        files.write_atomic(tmp_path / "a", NEW)
    assert (tmp_path / "a").read_bytes() == NEW


def test_a_fault_after_the_rename_is_told_and_the_file_is_whole(tmp_path, monkeypatch):
    target = tmp_path / "a"
    target.write_bytes(OLD)
    real = os.fsync

    def only_folders_fail(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EIO, "input/output error")
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", only_folders_fail)
        with pytest.raises(StateError):
            files.write_atomic(target, NEW)
        assert target.read_bytes() == NEW
        files.write_atomic(target, OLD, durable=False)  # asks nothing of the disk
    assert target.read_bytes() == OLD


def test_a_file_system_without_fsync_is_good_enough(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", fail_with(errno.EINVAL))
    files.write_atomic(tmp_path / "a", NEW)
    assert (tmp_path / "a").read_bytes() == NEW


def test_interrupt_while_writing_leaves_no_temporary_file(tmp_path, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            files.write_atomic(tmp_path / "a", NEW)
    assert names_in(tmp_path) == []


def test_a_missing_folder_is_never_made(tmp_path):
    with pytest.raises(StateError, match="not there"):
        files.write_atomic(tmp_path / "unmounted" / "a", NEW)
    assert names_in(tmp_path) == []


def test_a_path_below_a_file_and_one_too_long_are_state_errors(tmp_path):
    (tmp_path / "file").write_bytes(OLD)
    with pytest.raises(StateError):
        files.write_atomic(tmp_path / "file" / "a", NEW)
    with pytest.raises(StateError, match="too long"):
        files.write_atomic(tmp_path / ("x" * 300), NEW)
    longest = tmp_path / ("ü" * 127)
    files.write_atomic(longest, NEW)
    assert longest.read_bytes() == NEW


def test_a_symlink_stays_a_symlink(tmp_path):
    (tmp_path / "real").write_bytes(OLD)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    files.write_atomic(tmp_path / "link", NEW)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_bytes() == NEW


def test_killed_writers_never_leave_a_part(tmp_path):
    target = tmp_path / "ledger.json"
    code = (
        "import sys; from colabkit.core.files import write_atomic\n"
        "print('go', flush=True)\n"
        "while True:\n"
        "    for letter in 'abc': write_atomic(sys.argv[1], letter * 300_000, durable=False)\n"
    )
    for delay in (0.01, 0.03, 0.05):
        writer = subprocess.Popen([sys.executable, "-c", code, str(target)], stdout=subprocess.PIPE)
        writer.stdout.readline()
        time.sleep(delay)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        if target.exists():
            content = target.read_text()
            assert len(content) == 300_000 and len(set(content)) == 1
    assert target.exists()
    leftovers = [name for name in names_in(tmp_path) if name != "ledger.json"]
    assert all(name.startswith(files.TEMPORARY_PREFIX) for name in leftovers)


def test_a_really_full_disk(tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    mounted = (
        shutil.which("mount")
        and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(full)], capture_output=True
        ).returncode
        == 0
    )
    if not mounted:
        pytest.skip("mounting a small disk needs root")
    try:
        files.write_atomic(full / "a", OLD)
        with pytest.raises(StateError) as caught:
            files.write_atomic(full / "a", b"x" * 200_000)
        assert "full" in caught.value.what and "free 195.3 KiB" in caught.value.fix
        assert "free" in caught.value.got
        assert (full / "a").read_bytes() == OLD and names_in(full) == ["a"]
        with pytest.raises(StateError, match="too little free disk"):
            files.require_free(full / "not" / "yet", 10 << 20, "make shards")
    finally:
        subprocess.run(["umount", str(full)], check=True)


# JSON


def test_json_round_trip_keeps_order_and_turns_nan_into_null(tmp_path):
    import numpy

    path = tmp_path / "a.json"
    files.write_json(
        path,
        {
            "z": 1,
            "a": [float("nan"), float("inf"), 1.5],
            "t": (1, True),
            "p": Path("x/y"),
            "n": numpy.float32("nan"),
            "i": numpy.int64(3),
            "ü": None,
        },
    )
    assert list(files.read_json(path)) == ["z", "a", "t", "p", "n", "i", "ü"]
    assert files.read_json(path) == {
        "z": 1,
        "a": [None, None, 1.5],
        "t": [1, True],
        "p": str(Path("x/y")),
        "n": None,
        "i": 3,
        "ü": None,
    }
    assert "NaN" not in path.read_text() and '\n "a"' in path.read_text()


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path):
    files.write_json(tmp_path / "a.json", {"good": 1})
    with pytest.raises(TypeError):
        files.write_json(tmp_path / "a.json", {"bad": object()})
    assert files.read_json(tmp_path / "a.json") == {"good": 1} and names_in(tmp_path) == ["a.json"]


def test_every_cut_of_a_json_file_is_told_with_its_name(tmp_path):
    path = tmp_path / "led ger.json"
    files.write_json(path, {"steps": {"made": [1, 2, 3]}, "note": "größer"})
    whole = path.read_bytes().rstrip()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(StateError) as caught:
            files.read_json(path)
        assert "led ger.json" in str(caught.value) and f"mv '{path}'" in caught.value.fix


@pytest.mark.parametrize("content", [b"\0" * 64, b"\xff\xfe{}", b"[" * 100_000, b"{} {}"])
def test_corrupt_json_is_a_state_error(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(StateError, match="cut or corrupt"):
        files.read_json(tmp_path / "a.json")


def test_missing_json_and_a_folder_in_its_place(tmp_path):
    with pytest.raises(StateError, match="not there"):
        files.read_json(tmp_path / "a.json")
    with pytest.raises(StateError):
        files.read_json(tmp_path)


# Faults


@pytest.mark.parametrize("code", sorted(errno.errorcode))
def test_every_os_error_becomes_a_state_error_with_a_mend(code, tmp_path):
    fault = disk.disk_fault(OSError(code, os.strerror(code)), tmp_path / "a", "write a", needed_bytes=5)
    assert fault.what.startswith("Cannot write a: ") and fault.fix and str(tmp_path) in str(fault)
    assert len(str(fault).splitlines()) <= 5 and fault.errno == code


def test_disk_fault_without_a_number(tmp_path):
    assert "odd" in str(disk.disk_fault(OSError("odd"), tmp_path, "read a"))


def test_require_free_passes_when_there_is_room(tmp_path):
    files.require_free(tmp_path, 1, "work")
    assert files.free_bytes(tmp_path / "not" / "yet") > 0
    with pytest.raises(StateError) as caught:
        files.require_free(tmp_path, 1 << 60, "make shards")
    assert "Cannot make shards" in str(caught.value) and "1073741824.0 GiB" in caught.value.expected


# Fingerprints


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "data"
    (root / "a").mkdir(parents=True)
    (root / "a" / "one.wav").write_bytes(b"1" * 200_000)
    (root / "two.txt").write_bytes(b"2")
    return root


def test_fingerprint_of_a_file_is_its_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert (
        files.fingerprint(tmp_path / "a")
        == files.sha256_file(tmp_path / "a")
        == ("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    )


@pytest.mark.parametrize("measure", [files.fingerprint, files.quick_fingerprint])
def test_fingerprint_sees_changes_and_only_changes(tree, measure):
    before = measure(tree)
    (tree / ".colabkit-x.tmp").write_bytes(b"unfinished")
    (tree / ".colabkit-staging").mkdir()
    (tree / ".colabkit-staging" / "part").write_bytes(b"unfinished")
    (tree / ".DS_Store").write_bytes(b"looked at")
    (tree / ".ipynb_checkpoints").mkdir()
    (tree / ".ipynb_checkpoints" / "two.txt").write_bytes(b"looked at")
    os.utime(tree / "two.txt", (1, 1))
    assert measure(tree) == before
    assert measure(shutil.copytree(tree, tree.parent / "copy")) == before
    seen = {before}
    for change in (
        lambda: (tree / "two.txt").write_bytes(b"3"),
        lambda: (tree / "two.txt").rename(tree / "three.txt"),
        lambda: (tree / "a" / "one.wav").rename(tree / "one.wav"),
        lambda: (tree / "empty").write_bytes(b""),
        lambda: (tree / "three.txt").unlink(),
    ):
        change()
        seen.add(measure(tree))
    assert len(seen) == 6


@pytest.mark.parametrize("measure", [files.fingerprint, files.quick_fingerprint])
def test_names_and_contents_cannot_be_confused(tmp_path, measure):
    for name, parts in {"x": {"ab": b"c"}, "y": {"a": b"bc"}, "z": {"a": b"b", "c": b""}}.items():
        (tmp_path / name).mkdir()
        for part, content in parts.items():
            (tmp_path / name / part).write_bytes(content)
    assert len({measure(tmp_path / name) for name in "xyz"}) == 3


def test_quick_fingerprint_reads_both_ends_and_not_the_middle(tree):
    target = tree / "a" / "one.wav"
    before = files.quick_fingerprint(tree), files.fingerprint(tree)

    def change(position):
        with open(target, "r+b") as opened:
            opened.seek(position)
            opened.write(b"X")
        return files.quick_fingerprint(tree), files.fingerprint(tree)

    middle = change(100_000)
    assert middle[0] == before[0] and middle[1] != before[1]
    assert change(199_999)[0] != before[0]
    assert files.quick_fingerprint(target) != files.sha256_file(target)


def test_fingerprint_follows_links_survives_loops_and_pipes(tree):
    before = files.fingerprint(tree)
    (tree / "a" / "up").symlink_to(tree)
    assert files.fingerprint(tree) == before
    outside = tree.parent / "outside"
    outside.mkdir()
    (outside / "w").write_bytes(b"w")
    (outside / "back").symlink_to(tree)
    (tree / "linked").symlink_to(outside)
    linked = files.fingerprint(tree)
    assert linked != before
    (outside / "w").write_bytes(b"v")
    assert files.fingerprint(tree) != linked
    os.mkfifo(tree / "pipe")
    assert files.fingerprint(tree) and files.quick_fingerprint(tree)


def test_fingerprint_of_nothing_is_a_data_error(tmp_path):
    for measure in (files.fingerprint, files.quick_fingerprint):
        with pytest.raises(DataError, match="Cannot fingerprint"):
            measure(tmp_path / "nowhere")


def test_a_broken_link_or_unreadable_file_is_a_state_error(tree):
    (tree / "broken").symlink_to(tree / "gone")
    with pytest.raises(StateError, match="broken"):
        files.fingerprint(tree)


# Removal


def test_remove_generation_empties_before_it_unlinks_manifest_first(tmp_path, monkeypatch):
    generation = tmp_path / "gen-000007"
    (generation / "deep").mkdir(parents=True)
    sizes = {"model.safetensors": 5000, "deep/optimizer.safetensors": 700, "manifest.json": 20}
    for name, size in sizes.items():
        (generation / name).write_bytes(b"x" * size)
    removed, real = [], os.unlink

    def watching(path, **kwargs):
        removed.append((Path(path).name, os.lstat(path).st_size))
        real(path, **kwargs)

    monkeypatch.setattr(os, "unlink", watching)
    assert files.remove_generation(generation) == 5720
    assert names_in(tmp_path) == []
    assert removed[0][0] == "manifest.json" and len(removed) == 3
    assert all(size == 0 for _, size in removed)


def test_remove_generation_never_follows_links(tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "data").write_bytes(b"precious")
    generation = tmp_path / "gen"
    generation.mkdir()
    (generation / "to_file").symlink_to(precious / "data")
    (generation / "to_folder").symlink_to(precious)
    os.link(precious / "data", generation / "hard")
    assert files.remove_generation(generation) == 0
    assert (precious / "data").read_bytes() == b"precious" and not generation.exists()
    (tmp_path / "link").symlink_to(precious)
    files.remove_generation(tmp_path / "link")
    assert (precious / "data").read_bytes() == b"precious" and names_in(tmp_path) == ["precious"]


def test_remove_generation_of_nothing_and_of_one_file(tmp_path):
    assert files.remove_generation(tmp_path / "gone") == 0
    (tmp_path / "file").write_bytes(b"123")
    assert files.remove_generation(tmp_path / "file") == 3 and names_in(tmp_path) == []


def test_remove_generation_tells_what_the_disk_refuses(tmp_path, monkeypatch):
    (tmp_path / "g").mkdir()
    (tmp_path / "g" / "f").write_bytes(b"1")
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", fail_with(errno.EROFS))
        with pytest.raises(StateError, match="read-only"):
            files.remove_generation(tmp_path / "g")


def test_files_offers_what_its_neighbours_make():
    assert files.disk_fault is disk.disk_fault
