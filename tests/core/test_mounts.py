"""Tests of colabkit.core.mounts: what is local, what is not there, and a real mount that never answers."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time

import pytest

from colabkit.core import mounts
from colabkit.core.mounts import is_local, look, look_at_all
from tests.core.frozen_mount import frozen

TABLE = [
    ("/", "overlay"),
    ("/proc", "proc"),
    ("/content/drive", "fuse.drive"),
    ("/nfs", "nfs4"),
    ("/nfs/local", "tmpfs"),
    ("/twice", "ext4"),
    ("/twice", "cifs"),
    ("/a b", "fuse.x"),
]


@pytest.mark.parametrize(
    ("path", "local"),
    [
        ("/", True),
        ("/home/x", True),
        ("/content/drive", False),
        ("/content/drive/MyDrive/x", False),
        ("/content/driven", True),
        ("/nfs/x", False),
        ("/nfs/local/x", False),
        ("/twice/x", False),
        ("/a b/c", False),
        ("/x/../nfs/y", False),
    ],
)
def test_the_table_of_mounts_says_what_is_local(path, local):
    assert is_local(path, table=TABLE) == local


def test_without_a_table_nothing_is_taken_for_local(tmp_path):
    assert not is_local("/", root=tmp_path)


def test_links_are_followed_without_touching_what_they_lead_to(tmp_path):
    table = [("/", "ext4"), (f"{tmp_path}/far", "fuse.frozen")]
    (tmp_path / "near").mkdir()
    (tmp_path / "link").symlink_to("near/../far/x")
    (tmp_path / "near/up").symlink_to("../link")
    (tmp_path / "here").symlink_to(tmp_path / "near")
    (tmp_path / "loop").symlink_to("loop")
    for name, local in (
        ("link", False),
        ("link/below", False),
        ("near/up", False),
        ("here", True),
        ("here/up", False),
        ("loop", True),
        ("near/none/x", True),
    ):
        assert is_local(tmp_path / name, table=table) == local, name


@pytest.mark.parametrize("asked_by_another_process", [False, True])
def test_what_is_found(tmp_path, monkeypatch, asked_by_another_process):
    if asked_by_another_process:
        monkeypatch.setattr(mounts, "mounted", lambda root: [])
    (tmp_path / "ä file").write_text("x")
    folder, missing, file, below_file = look_at_all(
        [tmp_path, tmp_path / "no/where", tmp_path / "ä file", tmp_path / "ä file/x"], timeout_seconds=20
    )
    assert folder.exists and folder.is_folder and folder.can_write and folder.free_bytes > 0 and folder.fault == ""
    assert not missing.exists and missing.free_bytes > 0 and missing.can_write and missing.fault == ""
    assert file.exists and not file.is_folder and file.fault == ""
    assert below_file.fault == os.strerror(errno.ENOTDIR)


def test_a_dead_mount_is_not_taken_for_a_missing_folder(monkeypatch, tmp_path):
    def dead(path, *args):
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    monkeypatch.setattr(os, "stat", dead)
    found = look(tmp_path)
    assert "the mount is dead" in found.fault and not found.exists


def test_a_process_that_finds_no_end_is_left_behind(monkeypatch, tmp_path):
    monkeypatch.setattr(mounts, "mounted", lambda root: [])
    monkeypatch.setattr(mounts, "_script", lambda: "import time; time.sleep(60)")
    began = time.monotonic()
    first, second = look_at_all([tmp_path, tmp_path], timeout_seconds=0.3)
    assert first.fault == second.fault == "no answer within 0.3 seconds" and time.monotonic() - began < 5


@pytest.mark.parametrize("script", ["raise SystemExit(3)", "print('rubbish')", "import os; os.kill(os.getpid(), 9)"])
def test_a_process_that_fails_is_a_fault(monkeypatch, tmp_path, script):
    monkeypatch.setattr(mounts, "mounted", lambda root: [])
    monkeypatch.setattr(mounts, "_script", lambda: script)
    assert look(tmp_path, timeout_seconds=20).fault == "could not be looked at"


def test_no_process_to_be_had_is_a_fault(monkeypatch, tmp_path):
    monkeypatch.setattr(mounts, "mounted", lambda root: [])
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    assert "could not be looked at" in look(tmp_path).fault


@pytest.fixture
def frozen_folder(tmp_path):
    """Yield a folder that hangs whoever touches it."""
    with frozen(tmp_path / "frozen") as refused:
        if refused:
            pytest.skip(f"this machine lets nobody mount: {refused}")
        yield tmp_path / "frozen"


def test_check_on_a_frozen_mount_ends_in_time(frozen_folder, tmp_path):
    """The whole command, its end included: a thread stuck in the mount would keep the process for ever."""
    (tmp_path / "link").symlink_to(frozen_folder / "deep")
    for state in (frozen_folder / "state", tmp_path / "link/x"):
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "colabkit", "check", "--state", str(state)],
            capture_output=True,
            text=True,
            timeout=30,
            env=os.environ | {"TMPDIR": str(frozen_folder)},
        )
        took = time.monotonic() - began
        assert done.returncode == 1 and done.stderr.count("\n") == 4 and took < 5, (took, done.stderr)
        assert "Runs cannot keep their state here" in done.stderr and "fix:   name another folder" in done.stderr
        # scratch and state, asked at the same time
        assert done.stdout.count("no answer within 2 seconds") == 2, done.stdout


def test_detect_with_a_frozen_drive_ends_in_time(tmp_path):
    code = (
        "import sys; from colabkit.core.runtime import detect, describe\n"
        "found = detect({'COLAB_RELEASE_TAG': 'x', 'TBE_RUNTIME_ADDR': 'y'}, sys.argv[1], shell=None)\n"
        "print(found.drive_mounted, found.drive_fault)\n"
        "for row in describe(found, env={}): print(row)"
    )
    with frozen(tmp_path / "content/drive") as refused:
        if refused:
            pytest.skip(f"this machine lets nobody mount: {refused}")
        began = time.monotonic()
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=30)
        assert done.returncode == 0 and time.monotonic() - began < 5, done.stderr
    assert done.stdout.startswith("False no answer within 2 seconds\n") and "force_remount=True" in done.stdout
    assert "('state disk', 'cannot be used', 'no answer within 2 seconds" in done.stdout
