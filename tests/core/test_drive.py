"""Google Drive on a Colab VM: is it mounted, asked without hanging, and mounting it when it is not."""

from __future__ import annotations

import pytest

from colabkit.core import drive


def test_a_drive_whose_mount_does_not_answer_is_dead_and_is_not_touched(tmp_path, monkeypatch):
    monkeypatch.setattr(drive.mounts, "look", lambda path, seconds, root: drive.mounts.Look(fault=f"no answer in {seconds:g} s"))
    monkeypatch.setattr(drive, "_look", lambda root: pytest.fail("touched it"))
    assert drive.drive_status(tmp_path, timeout_seconds=0.1) == drive.DriveStatus("dead", "no answer in 0.1 s")
