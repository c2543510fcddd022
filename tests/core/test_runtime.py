"""Tests of colabkit.core.runtime with accelerators.py and drive.py: fake machines, hangs, real kernels."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from colabkit.core import accelerators, drive
from colabkit.core.errors import StateError
from colabkit.core.runtime import describe, detect

COLAB = {"COLAB_RELEASE_TAG": "release-colab-20260819"}


def shell(allow_stdin=True, metadata=None, **user_ns):
    """A notebook kernel's shell as ipykernel makes it."""
    request = {"content": {"allow_stdin": allow_stdin}, "metadata": metadata or {}}
    return SimpleNamespace(kernel=SimpleNamespace(get_parent=lambda: request), user_ns=user_ns)


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def program(folder: Path, text: str) -> dict:
    """An nvidia-smi that is a shell script; returns an environment that finds it first."""
    put(folder / "nvidia-smi", "#!/bin/sh\n" + text)
    (folder / "nvidia-smi").chmod(0o755)
    return {"PATH": str(folder)}


# Machine


def test_this_machine_is_described_fast_and_without_torch():
    code = ("import sys, time, os; start = time.perf_counter()\n"
            "from colabkit.core.runtime import detect, describe\n"
            "rows = describe(detect({'PATH': ''}), '.'); took = time.perf_counter() - start\n"
            "assert not {'torch', 'numpy', 'IPython', 'psutil', 'google.colab'} & set(sys.modules)\n"
            "assert all(isinstance(cell, str) and cell for row in rows for cell in row[:2])\n"
            "print(took)")
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    took = float(done.stdout)
    assert took < 2  # about 0.1 s; the rest is room for a busy machine


def test_a_plain_computer(tmp_path):
    found = detect({}, tmp_path, shell=None)
    assert not (found.on_colab_vm or found.on_colab_enterprise or found.drive_mounted or found.widgets_usable)
    assert found.accelerators == () and found.num_cpus >= 1 and found.memory_gib > 0
    assert found.python == ".".join(map(str, sys.version_info[:3])) and found.torch_version


def test_a_colab_vm_is_known_by_environment_or_file(tmp_path):
    assert detect(COLAB, tmp_path, shell=None).on_colab_vm
    assert not detect({"COLABKIT_STATE": "/x", "COLAB_GPU": ""}, tmp_path, shell=None).on_colab_vm
    put(tmp_path / "var/colab/hostname", "x")
    found = detect({"VERTEX_PRODUCT": "COLAB_ENTERPRISE"}, tmp_path, shell=None)
    assert found.on_colab_vm and found.on_colab_enterprise
    assert not detect({"VERTEX_PRODUCT": "OTHER"}, tmp_path, shell=None).on_colab_enterprise


@pytest.mark.parametrize("files, cpus", [
    ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "100000 100000\n"}, 1),
    ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "50000 100000\n",
      "sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, 1),
    ({"proc/self/cgroup": "3:cpuacct,cpu:/x\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000",
      "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, 1),
    ({"sys/fs/cgroup/cpu.max": "1 0"}, None), ({"sys/fs/cgroup/cpu.max": "rubbish"}, None),
    ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None)])
def test_cpus_honour_affinity_and_quota(tmp_path, files, cpus):
    for name, text in files.items():
        put(tmp_path / name, text)
    everything = len(os.sched_getaffinity(0))
    assert detect({}, tmp_path, shell=None).num_cpus == (cpus or everything)


@pytest.mark.parametrize("files, gib", [
    ({}, 12.0),
    ({"sys/fs/cgroup/memory.max": str(2 << 30)}, 2.0),
    ({"sys/fs/cgroup/memory.max": "max"}, 12.0),
    ({"proc/self/cgroup": "0::/in\n", "sys/fs/cgroup/in/memory.max": str(3 << 30)}, 3.0),
    ({"proc/self/cgroup": "4:memory:/host/path\n",
      "sys/fs/cgroup/memory/memory.limit_in_bytes": str(4 << 30)}, 4.0),
    ({"proc/self/cgroup": "4:memory:/\n",
      "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"}, 12.0)])
def test_memory_honours_the_container(tmp_path, files, gib):
    put(tmp_path / "proc/meminfo", f"MemFree: 1 kB\nMemTotal:       {12 << 20} kB\n")
    for name, text in files.items():
        put(tmp_path / name, text)
    assert detect({}, tmp_path, shell=None).memory_gib == gib


# Front end


@pytest.mark.parametrize("seen, colab, front_end, widgets", [
    (None, False, "none", False),
    (SimpleNamespace(), True, "none", False),  # IPython in a terminal has no kernel
    (shell(), True, "colab-web", True),
    (shell(), False, "jupyter", False),  # a console: a kernel, but nothing to draw on
    (shell(metadata={"cellId": "ab", "deletedCells": []}), False, "jupyter", True),
    (shell(metadata={"cellId": "vscode-notebook-cell:/x.ipynb#W1"}), True, "vscode", True),
    (shell(__vsc_ipynb_file__="/x.ipynb"), False, "vscode", True),
    (shell(allow_stdin=False, metadata={"cellId": "ab"}), False, "none", False),
    (shell(allow_stdin=False), True, "none", False),
    (SimpleNamespace(kernel=SimpleNamespace()), True, "none", False),
    (SimpleNamespace(kernel=SimpleNamespace(get_parent=lambda channel: {})), True, "none", False),
    (SimpleNamespace(kernel=SimpleNamespace(_parent_header={"content": {"allow_stdin": True}})), True,
     "colab-web", True)])
def test_front_end(tmp_path, seen, colab, front_end, widgets):
    found = detect(COLAB if colab else {}, tmp_path, shell=seen)
    assert (found.front_end, found.widgets_usable) == (front_end, widgets), found.front_end_reason
    assert found.answers_requests == (front_end in ("colab-web", "vscode", "jupyter"))


def test_a_product_name_in_the_environment_is_no_front_end(tmp_path):
    env = {"VSCODE_PID": "1", "TERM_PROGRAM": "vscode", "COLAB_GPU": "1", "JPY_PARENT_PID": "1"}
    assert detect(env, tmp_path, shell=None).front_end == "none"


def test_a_terminal_and_closed_streams(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(isatty=lambda: True))
    assert detect({}, tmp_path, shell=None).front_end == "terminal"
    monkeypatch.setattr(sys, "stdin", None)
    assert detect({}, tmp_path, shell=None).front_end == "none"


@pytest.mark.parametrize("allow_stdin, front_end", [(False, "none"), (True, "jupyter")])
def test_front_end_in_a_real_kernel(allow_stdin, front_end):
    manager = pytest.importorskip("jupyter_client.manager")
    kernel, client = manager.start_new_kernel(kernel_name="python3")
    try:
        seen = []
        client.execute_interactive(
            "from colabkit.core.runtime import detect\nfound = detect()\n"
            "print(found.front_end, found.widgets_usable)",
            allow_stdin=allow_stdin, timeout=30,
            output_hook=lambda message: seen.append(message["content"].get("text", "")))
        assert "".join(seen).split() == [front_end, "False"], seen
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)


# Drive


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


def test_a_hanging_mount_is_left_alone_in_time(tmp_path, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(drive, "_look", lambda root: release.wait(20) and drive.DriveStatus("mounted"))
    start = time.perf_counter()
    status = drive.drive_status(tmp_path, timeout_seconds=0.1)
    took = time.perf_counter() - start
    release.set()
    assert status.kind == "dead" and "0.1 seconds" in status.fault and took < 5


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


# Accelerators

T4 = "0, GPU-aaaa, Tesla T4, 15360, 7.5"
L4 = "1, GPU-bbbb, NVIDIA L4, 23034, 8.9"


def test_accelerators_from_nvidia_smi(tmp_path):
    env = program(tmp_path, f"echo '{T4}'; echo '{L4}'")
    t4, l4 = detect(env, tmp_path, shell=None).accelerators
    kind = accelerators.Accelerator
    assert t4 == kind(name="Tesla T4", memory_gib=15.0, compute_capability="7.5", supports_bf16=False)
    assert l4 == kind(name="NVIDIA L4", memory_gib=22.5, compute_capability="8.9", supports_bf16=True)


@pytest.mark.parametrize("visible, names", [
    ("", []), ("-1", []), ("1", ["NVIDIA L4"]), ("1,0", ["NVIDIA L4", "Tesla T4"]),
    ("GPU-bb", ["NVIDIA L4"]), ("0,7,1", ["Tesla T4"]), ("MIG-123", ["Tesla T4"])])
def test_cuda_visible_devices_is_honoured(tmp_path, visible, names):
    env = program(tmp_path, f"echo '{T4}'; echo '{L4}'") | {"CUDA_VISIBLE_DEVICES": visible}
    assert [device.name for device in accelerators.find_accelerators(env)] == names


@pytest.mark.parametrize("script, expected", [
    ("exit 9", 0), ("echo 'NVIDIA-SMI has failed'; exit 0", 0), ("echo; echo ,,,", 0),
    ("printf '\\377\\376'", 0),
    ("case \"$1\" in *compute_cap*) exit 2;; esac; echo '0, GPU-a, Old, 1024'", 1),
    ("echo '0, GPU-a, GB10, [N/A], 12.1'", 1)])
def test_odd_answers_of_nvidia_smi(tmp_path, script, expected):
    found = accelerators.find_accelerators(program(tmp_path, script))
    assert len(found) == expected and all(device.name for device in found)


def test_a_hanging_nvidia_smi_is_left_alone_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr(accelerators, "_NVIDIA_SMI_SECONDS", 0.2)
    start = time.perf_counter()
    assert accelerators.find_accelerators(program(tmp_path, "exec /bin/sleep 20")) == ()
    assert time.perf_counter() - start < 5


def test_torch_is_asked_only_after_it_started_cuda(tmp_path, monkeypatch):
    device = SimpleNamespace(name="NVIDIA H200", total_memory=141 << 30, major=9, minor=0)
    started = []
    cuda = SimpleNamespace(is_initialized=lambda: bool(started), is_available=lambda: True,
                           device_count=lambda: 1, get_device_properties=lambda index: device)
    torch = SimpleNamespace(cuda=cuda, version=SimpleNamespace(hip=None), backends=None)
    monkeypatch.setitem(sys.modules, "torch", torch)
    env = program(tmp_path, f"echo '{T4}'")
    assert accelerators.find_accelerators(env)[0].name == "Tesla T4"
    started.append(True)
    assert accelerators.find_accelerators(env)[0] == accelerators.Accelerator(
        name="NVIDIA H200", memory_gib=141.0, compute_capability="9.0", supports_bf16=True)


# Description


def test_describe_tells_what_things_mean(tmp_path):
    (drive.drive_mountpoint(tmp_path) / "MyDrive").mkdir(parents=True)
    env = COLAB | program(tmp_path, f"echo '{T4}'")
    root = SimpleNamespace(path=tmp_path, reason="It was given with --state.")
    rows = {row[0]: row[1:] for row in describe(detect(env, tmp_path, shell=shell()), root)}
    assert "fp16" in rows["accelerator"][1] and "Tesla T4, 15 GiB" in rows["accelerator"][0]
    assert rows["Google Drive"][0] == "mounted" and rows["machine"][0] == "Colab VM"
    assert rows["state folder"] == (str(tmp_path), "It was given with --state.")
    assert rows["state disk"][0].endswith("free")
    rows = {row[0]: row[1:] for row in describe(detect(COLAB, tmp_path / "x", shell=None))}
    assert "drive.mount" in rows["Google Drive"][1] and "T4" in rows["accelerator"][1]
    assert "state folder" not in rows
