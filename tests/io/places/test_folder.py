"""A folder as a place: what is listed and read, shaky mounts, kills amid writes, races, disks without hard links."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from colabkit.core.errors import DataError, StateError, UsageError
from colabkit.io.places import Folder, Pinned, Taken, folder, open_place
from tests.io.places.conftest import FILES, pinned

RACE = """
import sys, time
from colabkit.io.places import Taken, open_place
objects = open_place(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for race in range(30):
    try:
        objects.put(f"race/{race}", f"{sys.argv[2]} {race}".encode(), only_if_absent=True)
        print(race, flush=True)
    except Taken:
        pass
for _ in range(20):
    while True:
        content, version = objects.get_if_there("count")
        try:
            objects.put("count", b"%d" % (int(content) + 1), only_if_version=version)
            break
        except Taken:
            continue
"""

WRITE = """
import sys
from colabkit.io.places import open_place
objects, number = open_place(sys.argv[1]), 0
while True:
    number += 1
    objects.put(f"x{number % 3}", bytes([number % 251]) * 300_000)
    print(number, flush=True)
"""


def start(code: str, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("links", [True, False])
def test_of_several_processes_one_wins(tmp_path, links):
    objects = open_place(tmp_path / "store")
    objects.put("count", b"0")
    code = (
        RACE
        if links
        else (
            "import errno, os\ndef no_links(*_, **__): raise OSError(errno.EPERM, 'no links here')\n"
            "os.link = no_links\n" + RACE
        )
    )
    processes = [start(code, str(tmp_path / "store"), f"process {number}") for number in range(4)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    won = [
        (number, int(line))
        for number, process in enumerate(processes)
        for line in process.communicate(timeout=60)[0].split()
    ]
    assert sorted(race for _, race in won) == list(range(30)) and all(process.returncode == 0 for process in processes)
    for number, race in won:
        assert objects.get(f"race/{race}") == f"process {number} {race}".encode()
    assert objects.get("count") == b"80"


def test_killed_while_writing_no_object_is_a_part(tmp_path):
    objects = open_place(tmp_path / "store")
    for trial in range(6):
        process = start(WRITE, str(tmp_path / "store"))
        for _ in range(3):
            process.stdout.readline()
        time.sleep(0.002 * trial)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        listed = list(objects.list())
        assert {found.name for found in listed} <= {"x0", "x1", "x2"} and listed
        for found in listed:
            content = objects.get(found.name)
            assert len(content) == 300_000 == found.size and len(set(content)) == 1


def test_a_full_disk_is_told_and_leaves_what_was_there(tmp_path):
    place = tmp_path / "small"
    place.mkdir()
    if (
        os.name == "nt"
        or os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", place], capture_output=True).returncode
    ):
        pytest.skip("no right to mount a small disk")
    try:
        objects = open_place(place / "store")
        version = objects.put("x", b"1" * 600_000)
        with pytest.raises(StateError, match="full"):
            objects.put("x", b"2" * 600_000)
        assert objects.get("x", version=version) == b"1" * 600_000 and [f.name for f in objects.list()] == ["x"]
        assert not [name for name in os.listdir(place / "store") if name.endswith(".tmp")]
    finally:
        subprocess.run(["umount", place], check=True)


def test_times_that_the_system_tells_alike_are_told_apart(tmp_path):
    objects = open_place(tmp_path / "store")
    versions = [objects.put("x", b"same size") for _ in range(200)]
    assert len(set(versions)) == 200 and objects.find("x").version == versions[-1]


def test_where_nothing_may_be_written(tmp_path, monkeypatch):
    objects = open_place(tmp_path / "store")

    def refuse(*_):
        raise PermissionError(errno.EACCES, "no", "x")

    monkeypatch.setattr(folder.os, "replace", refuse)
    with pytest.raises(StateError, match="permission denied"):
        objects.put("x", b"x")
    assert not list(objects.list()) and not os.listdir(tmp_path / "store")


def test_links_and_order(tmp_path):
    objects = open_place(tmp_path / "store")
    for name in ("a/b", "a-b", "a.b/c", "aa"):
        objects.put(name, b"x")
    (tmp_path / "store" / "round").symlink_to(tmp_path / "store")
    (tmp_path / "store" / "nowhere").symlink_to(tmp_path / "not there")
    assert [found.name for found in objects.list()] == sorted(["a/b", "a-b", "a.b/c", "aa"])
    with pytest.raises(Taken):
        objects.put("aa", b"y", only_if_absent=True)


def test_folder_leaves_out_what_is_hidden_unfinished_or_no_file(at, tmp_path, caplog):
    root = at("folder")
    inside = tmp_path / "data"
    (inside / ".git").mkdir()
    (inside / ".git" / "x.wav").write_bytes(b"x")
    (inside / ".hidden.wav").write_bytes(b"x")
    (inside / ".colabkit-a.wav-1-abcd.tmp").write_bytes(b"x")
    (inside / "nowhere.wav").symlink_to(tmp_path / "absent.wav")
    os.mkfifo(inside / "pipe.wav")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "linked.wav").write_bytes(b"linked")
    (inside / "folder").symlink_to(elsewhere)
    (elsewhere / "round").symlink_to(inside)  # a circle
    store = Pinned(Folder(root))
    names = [o.name for o in store.list()]
    assert names == sorted([*FILES, "folder/linked.wav"])
    assert store.read("folder/linked.wav") == b"linked"
    assert "nowhere.wav" in caplog.text


def test_folder_that_is_missing_or_a_file(tmp_path):
    (tmp_path / "speech").mkdir()
    (tmp_path / "file.tar").write_bytes(b"x")
    with pytest.raises(UsageError, match="no such folder") as caught:
        pinned(tmp_path / "spech")
    assert "speech" in caught.value.fix
    with pytest.raises(UsageError, match="a file, not a folder"):
        pinned(tmp_path / "file.tar")
    with pytest.raises(UsageError) as caught:
        pinned("openslr/librispeech_asr")
    assert "hub:openslr/librispeech_asr" in caught.value.fix


def test_folder_sees_files_that_vanish_shrink_or_change(tmp_path):
    for name in "abcd":
        (tmp_path / name).write_bytes(bytes(1000))
    store = Pinned(Folder(tmp_path))
    store.list()
    (tmp_path / "a").unlink()
    with pytest.raises(DataError, match="vanished"):
        store.read("a", 0, 10)
    assert store.read("b", 0, 10) == bytes(10)
    os.truncate(tmp_path / "b", 100)
    with pytest.raises(DataError, match="shorter than the index says"):
        store.read("b", 90, 110)
    (tmp_path / "c").write_bytes(bytes(1001))
    with pytest.raises(DataError, match="changed"):
        store.read("c", 0, 10)
    for name in ("../c", "/etc/hostname", "x/../../c"):
        with pytest.raises(UsageError, match="leads out"):
            store.read(name, 0, 10)
    with pytest.raises(ValueError):
        store.read("d", 5, 4)


def test_folder_with_more_files_than_stay_open(tmp_path):
    for k in range(400):
        (tmp_path / f"{k}").write_bytes(k.to_bytes(4, "big") * 1000)
    store = Pinned(Folder(tmp_path))
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    def one(seed):
        dice = random.Random(seed)
        return all(
            store.read(str(k), 4 * i, 4 * i + 8) == k.to_bytes(4, "big") * 2
            for k, i in ((dice.randrange(400), dice.randrange(990)) for _ in range(500))
        )

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(one, range(16)))
    if before:
        assert len(os.listdir("/proc/self/fd")) - before <= 130
        store.close()
        assert len(os.listdir("/proc/self/fd")) <= before


def test_folder_with_names_that_are_not_utf8(tmp_path):
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.wav")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes no such names")
    with pytest.raises(DataError, match="UTF-8") as caught:
        Pinned(Folder(tmp_path)).list()
    assert "convmv" in caught.value.fix


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read all")
def test_folder_that_may_not_be_read(tmp_path):
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(DataError, match="Permission"):
        Pinned(Folder(tmp_path)).list()


def test_folder_on_a_shaky_mount(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"content")
    store, faults, true_pread = Pinned(Folder(tmp_path)), [errno.EIO, errno.ESTALE, errno.ENOTCONN], os.pread

    def shaky(*arguments):
        if faults:
            raise OSError(faults.pop(), "shaky")
        return true_pread(*arguments)

    monkeypatch.setattr(os, "pread", shaky)
    assert store.read("a") == b"content"
    faults.append(errno.EISDIR)
    with pytest.raises(DataError, match="shaky"):
        store.read("a")
