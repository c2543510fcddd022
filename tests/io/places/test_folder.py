"""A folder as a store, between processes: kills amid writes, races, full disks, disks without hard links."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from colabkit.core.errors import StateError
from colabkit.io.places import Taken, folder, open_place

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
