"""Folders into a bucket: what is skipped and what is sent again, failures, kill -9 anywhere, two machines at once."""

from __future__ import annotations

import itertools
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import zlib

import pytest

from colabkit.core.errors import DataError, UsageError
from colabkit.io.places import open_place
from colabkit.io.transfer import manifest as manifests
from colabkit.io.transfer.upload import upload_folder
from colabkit.loopback.s3 import refuse
from tests.io.places.conftest import write_files

FILES = {"A/1.npz": 1000, "A/2.npz": 2000, "B/3.npz": 0, "B/deep/4.npz": 4000, "C_5.npz": 50, "notes.txt": 7}


def asked(server) -> dict[str, int]:
    counts = dict(server.counts)
    server.counts.clear()
    return counts


@pytest.fixture
def folder(tmp_path):
    source = write_files(tmp_path / "source", FILES)
    for path in source.rglob("*"):  # older than anything in the store
        os.utime(path, (time.time() - 3600, time.time() - 3600))
    return source


def test_all_is_sent_once_and_told_by_the_manifest(folder, objects, server):
    done = upload_folder(folder, objects)
    assert (done.num_files, done.num_sent, done.num_skipped, done.num_bytes) == (6, 6, 0, sum(FILES.values()))
    assert {found.name: found.size for found in objects.list()} == {
        **FILES,
        manifests.NAME: objects.find(manifests.NAME).size,
    }
    written = manifests.read_manifest(objects)
    assert written.names.to_pylist() == sorted(FILES) and written.sizes.tolist() == [
        FILES[name] for name in sorted(FILES)
    ]
    for name, crc32, version in zip(sorted(FILES), written.crc32, written.versions.to_pylist(), strict=True):
        assert zlib.crc32((folder / name).read_bytes()) == crc32 and objects.find(name).version == version
    asked(server)
    again = upload_folder(folder, objects)
    assert (again.num_sent, again.num_skipped) == (0, 6) and asked(server) == {"get": 1}
    assert "there already" in str(again.table())


def test_a_changed_file_is_sent_again(folder, objects, server):
    upload_folder(folder, objects)
    (folder / "A/1.npz").write_bytes(b"x" * 1000)  # the same size, another time
    (folder / "A/new.npz").write_bytes(b"new")
    done = upload_folder(folder, objects)
    assert (done.num_sent, done.num_skipped) == (2, 5) and objects.get("A/1.npz") == b"x" * 1000
    asked(server)
    assert upload_folder(folder, objects).num_sent == 0 and asked(server) == {"get": 1}


def test_without_the_manifest_a_listing_tells(folder, objects, server):
    upload_folder(folder, objects)
    objects.delete(manifests.NAME)
    os.utime(folder / "A/1.npz", (time.time() + 60, time.time() + 60))
    asked(server)
    done = upload_folder(folder, objects)
    assert (done.num_sent, done.num_skipped) == (1, 5)
    assert asked(server) == {"get": 1, "list": 1, "put": 2}  # the file that is newer than its object, and the manifest
    assert upload_folder(folder, objects).num_sent == 0 and asked(server) == {"get": 1}


def test_what_happened_in_the_store_is_told_and_mended(folder, objects, server, capsys):
    upload_folder(folder, objects)
    objects.put("A/1.npz", b"somebody else's")
    objects.delete("A/2.npz")
    done = upload_folder(folder, objects, check=True)
    assert done.changed_there == ("A/1.npz",) and done.num_sent == 1
    assert objects.get("A/2.npz") == (folder / "A/2.npz").read_bytes()
    assert "1 objects changed in the store" in capsys.readouterr().out and objects.get("A/1.npz") == b"somebody else's"
    assert upload_folder(folder, objects, skip_existing=False).num_sent == 6
    assert objects.get("A/1.npz") == (folder / "A/1.npz").read_bytes()


def test_filters_limit_and_dry_run(folder, objects, server, capsys):
    done = upload_folder(folder, objects, dry_run=True)
    assert done.num_left == 6 and "dry run: 6 of 6" in capsys.readouterr().out and not list(objects.list())
    assert upload_folder(folder, objects, pattern="*.npz", limit=2).num_sent == 2
    assert [found.name for found in objects.list()] == ["A/1.npz", "A/2.npz", manifests.NAME]
    assert upload_folder(folder, objects, channels=["A", "C"]).num_sent == 1
    assert manifests.read_manifest(objects).names.to_pylist() == ["A/1.npz", "A/2.npz", "C_5.npz"]
    with pytest.raises(UsageError, match="No file is of this channel"):
        upload_folder(folder, objects, channels=["D"])
    with pytest.raises(UsageError, match="no such folder"):
        upload_folder(folder / "not there", objects)


def test_failures_are_counted_and_the_others_go_on(folder, objects, server, capsys):
    (folder / "A/2.npz").unlink()
    (folder / "A/2.npz").symlink_to("/proc/self/mem")  # there, and cannot be read
    if os.stat(folder / "A/2.npz").st_size != 0:
        pytest.skip("needs a file that cannot be read")
    with pytest.raises(DataError, match="1 of 6 could not be uploaded") as caught:
        upload_folder(folder, objects)
    assert "A/2.npz" in str(caught.value) and "failed: A/2.npz" in capsys.readouterr().out
    assert len(list(objects.list())) == 5 and objects.find(manifests.NAME) is None
    (folder / "A/2.npz").unlink()
    asked(server)
    assert upload_folder(folder, objects).num_sent == 0 and asked(server)["put"] == 1  # the manifest alone


def test_missing_rights_end_it_at_once(folder, objects, server):
    server.before = lambda request: refuse("AccessDenied", "") if request.method == "PUT" else None
    with pytest.raises(UsageError, match="no right to write"):
        upload_folder(folder, objects, workers=1)
    assert not list(objects.list())


def test_two_machines_upload_at_once(tmp_path, objects, profile):
    one = write_files(tmp_path / "one", {f"one/{n}": 10 for n in range(40)})
    two = write_files(tmp_path / "two", {f"two/{n}": 10 for n in range(40)})
    threads = [
        threading.Thread(target=upload_folder, args=(folder, open_place("s3://bucket/some/prefix", profile=profile)))
        for folder in (one, two)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(manifests.read_manifest(objects)) == 80
    assert upload_folder(one, objects).num_sent == 0 == upload_folder(two, objects).num_sent


def test_into_a_folder(folder, tmp_path):
    there = open_place(tmp_path / "there")
    assert upload_folder(folder, there).num_sent == 6 and upload_folder(folder, there).num_sent == 0
    assert (tmp_path / "there" / "B/deep/4.npz").read_bytes() == (folder / "B/deep/4.npz").read_bytes()


RUN = """
import pickle, sys
from colabkit.io.places import open_place
from colabkit.io.transfer.upload import upload_folder
profile, folder = pickle.load(sys.stdin.buffer)
print("sent", upload_folder(folder, open_place("s3://bucket/some/prefix", profile=profile)).num_sent)
"""


def test_killed_anywhere_nothing_is_lost_and_little_is_sent_twice(tmp_path, objects, server, profile):
    source = write_files(tmp_path / "source", {f"{n % 3}/{n:03d}.npz": 20_000 + n for n in range(120)})
    for path in source.rglob("*.npz"):
        os.utime(path, (time.time() - 3600, time.time() - 3600))
    arrived, numbers, kills = [], itertools.count(1), 0

    def wait(request):
        if request.method == "PUT":
            arrived.append(request.path)
            number = next(numbers)
            time.sleep(0.01)
            if number % 25 == 0:
                process.send_signal(signal.SIGKILL)

    server.before = wait
    while True:
        process = subprocess.Popen([sys.executable, "-c", RUN], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        told, _ = process.communicate(pickle.dumps((profile, source)))
        if process.returncode == 0:
            break
        kills += 1
        assert process.returncode == -signal.SIGKILL
    assert kills >= 4
    names = [path.rpartition("prefix/")[2] for path in arrived]
    assert {name for name in names if name.endswith(".npz")} == {
        found.name for found in objects.list() if ".npz" in found.name
    }
    assert all(objects.get(path.relative_to(source).as_posix()) == path.read_bytes() for path in source.rglob("*.npz"))
    assert len(names) <= 120 + 1 + kills * 9  # what was on its way in the threads, and the manifest
    assert len(manifests.read_manifest(objects)) == 120
