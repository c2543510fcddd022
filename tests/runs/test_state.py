"""Tests of colabkit.runs.state: a fake Colab VM in a folder, links in the way, full disks, run folders."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from colabkit.core.errors import StateError, UsageError
from colabkit.core.runtime import detect
from colabkit.runs import state
from colabkit.runs.ownership import MARKER
from colabkit.runs.state import list_runs, open_run, state_root

COLAB = {"COLAB_RELEASE_TAG": "release", "TBE_RUNTIME_ADDR": "172.28.0.1:8011"}


@pytest.fixture
def vm(tmp_path):
    """A Colab VM's file system without Drive."""
    (tmp_path / "content").mkdir()
    return tmp_path


@pytest.fixture
def drive_vm(vm):
    """A Colab VM with Drive mounted."""
    (vm / "content/drive/MyDrive").mkdir(parents=True)
    return vm


def colab(root, **extra):
    return detect(COLAB | extra, root, shell=None)


def snapshot(root):
    return sorted(
        (str(path.relative_to(root)), os.readlink(path) if path.is_symlink() else path.is_dir() or path.read_bytes())
        for path in root.rglob("*")
    )


def never_mount(mountpoint):
    pytest.fail("asked to mount Drive")


# Choosing the root


def test_order_explicit_then_environment_then_place(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    here = detect({}, tmp_path, shell=None)
    env = {"COLABKIT_STATE": str(tmp_path / "env")}
    chosen = state_root(str(tmp_path / "mine"), here, env=env)
    assert chosen.path == tmp_path / "mine" and "--state" in chosen.reason
    chosen = state_root(None, here, env=env)
    assert chosen.path == tmp_path / "env" and "COLABKIT_STATE" in chosen.reason
    chosen = state_root(None, here, env={"COLABKIT_STATE": ""})
    assert chosen.path == tmp_path / "home" / "colabkit" and os.fspath(chosen) == str(chosen.path)
    assert state_root("~/x", here, env={}).path == tmp_path / "home" / "x"
    monkeypatch.chdir(tmp_path)
    assert state_root("relative", here, env={}).path == tmp_path / "relative"
    assert chosen.reason.endswith(".") and os.listdir(chosen.path) == []


def test_on_colab_runs_live_on_drive_behind_a_link(drive_vm):
    for _ in range(2):  # a second start keeps the link
        chosen = state_root(None, colab(drive_vm), env={}, mount_drive=never_mount)
        assert chosen.path == drive_vm / "content/colabkit" and "Drive" in chosen.reason
        assert os.readlink(chosen.path) == str(drive_vm / "content/drive/MyDrive/colabkit")
    with open_run(chosen, "asr", "first") as run:
        (run.path / "x").write_text("x")
    assert (drive_vm / "content/drive/MyDrive/colabkit/asr/first/x").read_text() == "x"


def test_drive_is_mounted_once_when_absent(vm):
    asked = []

    def mount(mountpoint):
        asked.append(mountpoint)
        (Path(mountpoint) / "MyDrive").mkdir(parents=True)

    state_root(None, colab(vm), env={}, mount_drive=mount)
    state_root(None, colab(vm), env={}, mount_drive=mount)
    assert asked == [str(vm / "content/drive")]


@pytest.mark.parametrize(
    "mount",
    [
        lambda mountpoint: None,
        lambda mountpoint: (_ for _ in ()).throw(ValueError("mount failed")),
        lambda mountpoint: (_ for _ in ()).throw(NotImplementedError()),
        None,
    ],
)
@pytest.mark.parametrize("explicit", [None, "content/drive/MyDrive/mine"])
def test_without_drive_nothing_is_made_and_the_mend_is_told(vm, mount, explicit):
    before = snapshot(vm)
    with pytest.raises(StateError) as caught:
        state_root(explicit and vm / explicit, colab(vm), env={}, mount_drive=mount)
    assert "drive.mount(" in caught.value.fix and "COLABKIT_STATE=/content/state" in caught.value.fix
    assert snapshot(vm) == before


def test_nobody_is_asked_in_a_headless_run(vm):
    with pytest.raises(StateError, match="not asked to mount it: no notebook kernel"):
        state_root(None, colab(vm), env={})


def test_the_escape_works_without_drive(vm):
    env = {"COLABKIT_STATE": str(vm / "content/state")}
    chosen = state_root(None, colab(vm), env=env, mount_drive=never_mount)
    assert chosen.path.is_dir() and not os.path.lexists(vm / "content/colabkit")


def test_a_path_that_reaches_drive_through_a_link_needs_drive(vm):
    (vm / "content/short").symlink_to(vm / "content/drive/MyDrive")
    before = snapshot(vm)
    with pytest.raises(StateError, match="not mounted"):
        state_root(vm / "content/short/state", colab(vm), env={})
    assert snapshot(vm) == before


def test_a_shadow_of_drive_is_not_used(drive_vm):
    (drive_vm / "proc/self").mkdir(parents=True)
    (drive_vm / "proc/self/mounts").write_text("overlay / overlay rw 0 0\n")
    before = snapshot(drive_vm)
    with pytest.raises(StateError) as caught:
        state_root(None, colab(drive_vm), env={}, mount_drive=never_mount)
    assert "own disk" in caught.value.got and f"mv '{drive_vm}/content/drive'" in caught.value.fix
    assert snapshot(drive_vm) == before


def test_enterprise_has_no_drive(vm, monkeypatch):
    monkeypatch.setenv("HOME", str(vm / "home"))
    chosen = state_root(None, colab(vm, VERTEX_PRODUCT="COLAB_ENTERPRISE"), env={}, mount_drive=never_mount)
    assert chosen.path == vm / "home/colabkit" and "lost with the VM" in chosen.reason


# What is in the way


def in_the_way(root, drive_folder):
    link, elsewhere = root / "content/colabkit", root / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "data").write_text("precious")
    return link, elsewhere


@pytest.mark.parametrize("kind", ["folder", "empty folder", "file", "link elsewhere", "dangling elsewhere"])
def test_nothing_real_is_ever_overwritten(drive_vm, kind):
    link, elsewhere = in_the_way(drive_vm, None)
    if kind == "folder":
        shutil.copytree(elsewhere, link)
    elif kind == "empty folder":
        link.mkdir()
    elif kind == "file":
        link.write_text("precious")
    else:
        link.symlink_to(elsewhere if kind == "link elsewhere" else drive_vm / "gone")
    (drive_vm / "content/drive/MyDrive/colabkit").mkdir()
    before = snapshot(drive_vm)
    with pytest.raises(StateError) as caught:
        state_root(None, colab(drive_vm), env={})
    assert snapshot(drive_vm) == before
    command = caught.value.fix.partition(": ")[2].partition(" and run")[0]
    assert command.split()[0] in {"mv", "rm"}
    subprocess.run(command, shell=True, check=True)  # the mend really mends
    assert state_root(None, colab(drive_vm), env={}).path == link
    assert (elsewhere / "data").read_text() == "precious"


@pytest.mark.parametrize("target", ["content/drive/MyDrive/old_colabkit", "drive/My Drive/colabkit"])
def test_a_dangling_link_into_this_drive_is_led_anew(drive_vm, target):
    link = drive_vm / "content/colabkit"
    link.symlink_to(drive_vm / target if target.startswith("content") else target)
    assert state_root(None, colab(drive_vm), env={}).path == link
    assert os.readlink(link) == str(drive_vm / "content/drive/MyDrive/colabkit")
    assert sorted(os.listdir(drive_vm / "content")) == ["colabkit", "drive"]


def test_another_spelling_of_the_same_folder_is_kept(drive_vm):
    (drive_vm / "content/drive/My Drive").symlink_to("MyDrive")
    (drive_vm / "content/drive/MyDrive/colabkit").mkdir()
    link = drive_vm / "content/colabkit"
    link.symlink_to(drive_vm / "content/drive/My Drive/colabkit")
    state_root(None, colab(drive_vm), env={})
    assert "My Drive" in os.readlink(link)


def test_a_file_in_the_place_of_the_drive_folder(drive_vm):
    (drive_vm / "content/drive/MyDrive/colabkit").write_text("mine")
    with pytest.raises(StateError, match="something else has this name"):
        state_root(None, colab(drive_vm), env={})
    assert (drive_vm / "content/drive/MyDrive/colabkit").read_text() == "mine"


# Disks that refuse


@pytest.mark.parametrize(
    "code, word",
    [
        (errno.EROFS, "read-only"),
        (errno.ENOSPC, "full"),
        (errno.EDQUOT, "full"),
        (errno.EACCES, "permission"),
        (errno.ENOTCONN, "does not answer"),
    ],
)
def test_a_disk_that_cannot_be_written_is_found_at_the_start(tmp_path, monkeypatch, code, word):
    real = open

    def refusing(path, mode="r", *args, **kwargs):
        if "w" in mode and ".colabkit-probe-" in str(path):
            raise OSError(code, os.strerror(code))
        return real(path, mode, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", refusing)
        with pytest.raises(StateError, match=word):
            state_root(tmp_path / "s", detect({}, tmp_path, shell=None), env={})
    assert os.listdir(tmp_path / "s") == []


@pytest.mark.parametrize("options, word", [("size=4k,ro", "read-only"), ("size=4k", "full")])
def test_real_read_only_and_full_disks(tmp_path, options, word):
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        with pytest.raises(StateError, match=word):
            state_root(place, detect({}, tmp_path, shell=None), env={})
        assert os.listdir(place) == []
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_path_below_a_file_is_a_state_error(tmp_path):
    (tmp_path / "file").write_text("x")
    for place in ("file", "file/below"):
        with pytest.raises(StateError):
            state_root(tmp_path / place, detect({}, tmp_path, shell=None), env={})
    assert (tmp_path / "file").read_text() == "x"


def test_a_disk_that_lies_is_not_trusted(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "read_bytes", lambda self: b"\0" * len(state._PROBE))
    with pytest.raises(StateError, match="other bytes"):
        state_root(tmp_path / "s", detect({}, tmp_path, shell=None), env={})


def test_looking_writes_nothing(drive_vm):
    before = snapshot(drive_vm)
    with pytest.raises(StateError, match="there is none"):
        state_root(None, colab(drive_vm), read_only=True, env={}, mount_drive=never_mount)
    assert snapshot(drive_vm) == before
    state_root(None, colab(drive_vm), env={})
    before = snapshot(drive_vm)
    looked = state_root(None, colab(drive_vm), read_only=True, env={}, mount_drive=never_mount)
    assert os.path.samefile(looked, drive_vm / "content/colabkit") and snapshot(drive_vm) == before


# Runs


def test_open_run_makes_the_folder_and_scratch_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "fast"))
    (tmp_path / "fast").mkdir()
    (tmp_path / "root").mkdir()
    with open_run(tmp_path / "root", "asr", "a.b-c_1") as run:
        assert run.path == tmp_path / "root/asr/a.b-c_1" and run.path.is_dir()
        assert (run.pipeline, run.name, os.fspath(run)) == ("asr", "a.b-c_1", str(run.path))
        assert not run.read_only
        assert os.listdir(tmp_path / "fast") == []  # scratch comes on demand
        scratch = run.scratch
        assert scratch.is_dir() and scratch.is_relative_to(tmp_path / "fast") and scratch == run.scratch
        assert scratch.stat().st_mode & 0o077 == 0
        run.ensure_held()
    run.close()
    with open_run(tmp_path / "root", "asr", "other") as other:
        assert other.scratch != scratch
    with open_run(tmp_path / "root", "asr", "a.b-c_1") as again:
        assert again.scratch == scratch
    assert list_runs(tmp_path / "root", "asr") == ["a.b-c_1", "other"]
    assert list_runs(tmp_path / "root", "x") == []


def test_scratch_that_somebody_else_prepared_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "trap").mkdir()
    (tmp_path / f"colabkit-{os.getuid()}").symlink_to(tmp_path / "trap")
    with open_run(tmp_path, "asr", "run") as run, pytest.raises(StateError, match="TMPDIR"):
        print(run.scratch)
    assert os.listdir(tmp_path / "trap") == []


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/abs", "a b", "-x", ".hidden", "x" * 65, "a\n", "ü", "a.", "a\0b", None]
)
def test_bad_names_are_usage_errors_with_a_better_one(tmp_path, name):
    with pytest.raises(UsageError) as caught:
        open_run(tmp_path, "asr", name)
    better = caught.value.fix.split("--run ")[1]
    open_run(tmp_path, "asr", better).close()
    with pytest.raises(UsageError):
        open_run(tmp_path, name, "run", read_only=True)
    assert sorted(os.listdir(tmp_path)) == [MARKER, "asr"]


def test_a_vanished_root_is_never_made_anew(tmp_path):
    with pytest.raises(StateError, match="not there"):
        open_run(tmp_path / "unmounted", "asr", "run")
    assert os.listdir(tmp_path) == []


def test_a_file_in_the_place_of_a_run(tmp_path):
    (tmp_path / "asr").mkdir()
    (tmp_path / "asr" / "run").write_text("mine")
    with pytest.raises(StateError, match="something else has this name"):
        open_run(tmp_path, "asr", "run")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StateError):
        open_run(tmp_path, "file", "run")
    assert list_runs(tmp_path, "asr") == [] and list_runs(tmp_path, "file") == []


def test_looking_at_a_run_takes_no_lock_and_writes_nothing(tmp_path):
    held = open_run(tmp_path, "asr", "libri-small")
    with open_run(tmp_path, "asr", "libri-small", read_only=True) as look:
        assert look.read_only and look.path.is_dir()
        look.ensure_held()
    held.close()
    before = snapshot(tmp_path)
    open_run(tmp_path, "asr", "libri-small", read_only=True).close()
    with pytest.raises(StateError, match="did you mean --run libri-small"):
        open_run(tmp_path, "asr", "libri-smal", read_only=True)
    with pytest.raises(StateError, match="one of: libri-small"):
        open_run(tmp_path, "asr", "zzz", read_only=True)
    with pytest.raises(StateError, match="colabkit run hubert --run x"):
        open_run(tmp_path, "hubert", "x", read_only=True)
    assert snapshot(tmp_path) == before
