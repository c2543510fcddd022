"""Tests of colabkit.colab.drive: a synced folder shown as MyDrive, what exists not touched, a VM not kept waiting."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from colabkit.colab import drive
from colabkit.core.mounts import Look
from colabkit.core.runtime import detect


@pytest.fixture
def synced(tmp_path, monkeypatch):
    """A folder that a program keeps in step with Drive, named by COLABKIT_DRIVE."""
    folder = tmp_path / "synced"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    monkeypatch.setenv("COLABKIT_DRIVE", str(folder))
    monkeypatch.setattr(drive, "_mounted", {})
    return folder


@pytest.fixture
def point(tmp_path):
    return tmp_path / "drive"


def test_the_folder_appears_as_mydrive_and_goes_again(synced, point, capsys):
    drive.mount(str(point))
    assert (point / "MyDrive" / "notes.txt").read_text() == "mine"
    (point / "MyDrive" / "new.txt").write_text("x")
    assert (synced / "new.txt").read_text() == "x"
    drive.mount(str(point))
    drive.flush_and_unmount()
    assert not point.exists() and sorted(os.listdir(synced)) == ["new.txt", "notes.txt"]
    drive.flush_and_unmount()
    out = capsys.readouterr().out.splitlines()
    assert out == [
        f"Mounted at {point}",
        f"Drive already mounted at {point}; to attempt to forcibly remount, "
        f'call drive.mount("{point}", force_remount=True).',
        "Drive not mounted, so nothing to flush and unmount.",
    ]


def test_an_empty_folder_is_used_and_left(synced, point):
    point.mkdir()
    drive.mount(point)
    assert (point / "MyDrive" / "notes.txt").exists()
    drive.flush_and_unmount()
    assert os.listdir(point) == []


def test_drive_for_desktop_keeps_own_files_beside_shared_drives(synced, point):
    (synced / "My Drive").mkdir()
    (synced / "My Drive" / "own.txt").write_text("x")
    drive.mount(str(point))
    assert (point / "MyDrive" / "own.txt").exists()


def test_a_mount_of_an_earlier_process_is_known(synced, point, monkeypatch, capsys):
    drive.mount(str(point))
    monkeypatch.setattr(drive, "_mounted", {})
    drive.mount(str(point))
    assert "already mounted" in capsys.readouterr().out
    drive.flush_and_unmount()
    assert os.listdir(point) == [], "its link goes, its folder may be older than both"


def test_another_folder_replaces_the_link_only_by_force(synced, point, tmp_path, monkeypatch):
    drive.mount(str(point))
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setenv("COLABKIT_DRIVE", str(other))
    with pytest.raises(ValueError, match="must not already contain files"):
        drive.mount(str(point))
    drive.mount(str(point), force_remount=True)
    assert os.readlink(point / "MyDrive") == str(other) and (synced / "notes.txt").exists()


def put_file(point: Path):
    point.write_text("x")


def put_full_folder(point: Path):
    point.mkdir()
    (point / "x").write_text("x")


def put_own_mydrive(point: Path):
    (point / "MyDrive").mkdir(parents=True)
    (point / "MyDrive" / "precious").write_text("x")


def put_link(point: Path):
    point.symlink_to(point.parent)


def put_dead_link(point: Path):
    point.symlink_to("nowhere")


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    "put, words",
    [
        (put_file, "must either be a directory or not exist"),
        (put_full_folder, "must not already contain files"),
        (put_own_mydrive, "must not already contain files"),
        (put_link, "must not be a symlink"),
        (put_dead_link, "must not be a symlink"),
    ],
)
def test_what_exists_is_never_touched(synced, point, put, words, force):
    put(point)
    before = sorted(str(p) for p in point.parent.rglob("*"))
    with pytest.raises(ValueError, match=words):
        drive.mount(str(point), force_remount=force)
    assert sorted(str(p) for p in point.parent.rglob("*")) == before


def test_refusals(synced, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="must not contain a space"):
        drive.mount(str(tmp_path / "my drive"))
    with pytest.raises(ValueError, match="directory that exists"):
        drive.mount(str(tmp_path / "no" / "drive"))
    for named in (tmp_path / "absent", synced / "notes.txt"):
        monkeypatch.setenv("COLABKIT_DRIVE", str(named))
        with pytest.raises(ValueError, match="mount failed"):
            drive.mount(str(tmp_path / "drive"))
    monkeypatch.delenv("COLABKIT_DRIVE")
    with pytest.raises(NotImplementedError, match="COLABKIT_DRIVE"):
        drive.mount(str(tmp_path / "drive"))
    assert not (tmp_path / "drive").exists()


def test_a_folder_where_nothing_may_be_written(synced, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "symlink_to", refuse)  # root may write everywhere: no folder refuses by itself
    with pytest.raises(ValueError, match="Permission denied"):
        drive.mount(str(tmp_path / "drive"))
    assert not (tmp_path / "drive").exists()


def test_a_folder_that_does_not_answer_is_refused(synced, point, monkeypatch):
    monkeypatch.setattr(drive, "look_at_all", lambda paths: [Look(fault="no answer within 2 seconds") for _ in paths])
    with pytest.raises(ValueError, match="mount failed: no answer"):
        drive.mount(str(point))


def test_files_of_the_user_in_the_folder_survive_unmounting(synced, point):
    drive.mount(str(point))
    (point / "mine.txt").write_text("x")
    drive.flush_and_unmount()
    assert (point / "mine.txt").exists() and (point / "MyDrive" / "notes.txt").exists(), (
        "changed since: not ours any more"
    )


# On a Colab VM


@pytest.fixture
def vm(tmp_path, monkeypatch):
    """A Colab VM with its files below a temporary folder; gives it and what the real google.colab.drive is asked."""
    root, asked = tmp_path / "root", []
    (root / "content").mkdir(parents=True)
    (root / "var/colab").mkdir(parents=True)
    (root / "var/colab/hostname").write_text("vm")
    colab = SimpleNamespace(mount=lambda *a, **k: asked.append((a, k)), flush_and_unmount=lambda **k: asked.append(k))
    request = {"content": {"allow_stdin": True}, "metadata": {"colab": {"cell_id": "x"}}}

    def become(answers: bool):
        shell = SimpleNamespace(kernel=SimpleNamespace(get_parent=lambda: request), user_ns={}) if answers else None
        monkeypatch.setattr(drive, "here", lambda: detect({}, root, shell))
        monkeypatch.setattr(drive, "real", lambda name, runtime, answered=True: colab if answered else None)
        return root, asked

    return become


def test_on_a_vm_a_mounted_drive_is_seen_before_the_page_is_asked(vm, capsys, monkeypatch):
    root, asked = vm(answers=True)
    (root / "content/drive/MyDrive").mkdir(parents=True)
    place = str(root / "content/drive")
    drive.mount(place)
    assert asked == [] and capsys.readouterr().out.startswith(f"Drive already mounted at {place};")
    drive.mount(place + "/", force_remount=True)
    assert asked == [((place + "/",), {"force_remount": True, "timeout_ms": 120000, "readonly": False})]


def test_on_a_vm_everything_else_is_handed_on(vm):
    root, asked = vm(answers=True)
    drive.mount("/content/elsewhere", timeout_ms=5, readonly=True)
    drive.flush_and_unmount(timeout_ms=7)
    assert asked == [
        (("/content/elsewhere",), {"force_remount": False, "timeout_ms": 5, "readonly": True}),
        {"timeout_ms": 7},
    ]


def test_headless_on_a_vm_the_refusal_comes_at_once(vm):
    root, asked = vm(answers=False)
    began = time.monotonic()
    with pytest.raises(ValueError, match="mount failed: nobody is there"):
        drive.mount(str(root / "content/drive"))
    assert time.monotonic() - began < 5 and asked == []
