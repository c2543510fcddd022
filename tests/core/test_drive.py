"""Google Drive as a mount: absent, mounted, dead, a folder in its place; looked at only on a Colab VM."""

from __future__ import annotations

import errno
import os

import pytest

from colabkit.core import drive
from colabkit.core.errors import StateError
from colabkit.core.runtime import detect
from tests.core.places import COLAB, put


def test_drive_status_of_every_kind(tmp_path):
    mountpoint = drive.drive_mountpoint(tmp_path)
    assert drive.drive_status(tmp_path) == drive.DriveStatus("absent")
    mountpoint.mkdir(parents=True)
    assert drive.drive_status(tmp_path).kind == "absent"
    put(mountpoint / "stray.txt", "x")
    assert drive.drive_status(tmp_path).kind == "shadowed"
    (mountpoint / "MyDrive").mkdir()
    assert drive.drive_status(tmp_path).mounted
    assert drive.my_drive(tmp_path) == mountpoint / "MyDrive"
    (mountpoint / "MyDrive").rename(mountpoint / "My Drive")
    assert drive.drive_status(tmp_path).mounted and drive.my_drive(tmp_path) == mountpoint / "My Drive"


def test_a_folder_made_before_mounting_is_not_taken_for_drive(tmp_path):
    mountpoint = drive.drive_mountpoint(tmp_path)
    (mountpoint / "MyDrive").mkdir(parents=True)
    put(tmp_path / "proc/self/mounts", "overlay / overlay rw 0 0\nproc /proc proc rw 0 0\n")
    status = drive.drive_status(tmp_path)
    assert status.kind == "shadowed" and "own disk" in status.fault
    put(tmp_path / "proc/self/mounts", f"overlay / overlay rw 0 0\ndrive {mountpoint} fuse.drive rw 0\n")
    assert drive.drive_status(tmp_path).mounted
    put(tmp_path / "proc/self/mounts", f"drive {mountpoint}-other fuse.drive rw 0 0\n")
    assert not drive.drive_status(tmp_path).mounted


def test_a_dead_mount_is_told_with_its_reason(tmp_path, monkeypatch):
    def dead(*args):
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    monkeypatch.setattr(os, "listdir", dead)
    found = detect(COLAB, tmp_path, shell=None)
    assert not found.drive_mounted and "Transport endpoint" in found.drive_fault
    with pytest.raises(StateError, match="force_remount=True"):
        drive.require_drive(tmp_path, mount=lambda mountpoint: pytest.fail("mounted over a dead mount"))


def test_drive_is_looked_at_only_on_a_colab_vm(tmp_path, monkeypatch):
    monkeypatch.setattr("colabkit.core.runtime.drive_status", lambda root: pytest.fail("looked at Drive"))
    assert not detect({}, tmp_path, shell=None).drive_mounted
