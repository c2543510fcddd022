"""This machine as it is described: recorded and fake ones, containers, front ends in real kernels."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest

from colabkit.core import drive
from colabkit.core.runtime import describe, detect
from tests.core.places import COLAB, OF_JUPYTERLAB, PLACES, T4, program, put, shell

# Machine


def test_this_machine_is_described_fast_and_without_torch():
    code = (
        "import sys, time, os; start = time.perf_counter()\n"
        "from colabkit.core.runtime import detect, describe\n"
        "rows = describe(detect({'PATH': ''}), '.'); took = time.perf_counter() - start\n"
        "assert not {'torch', 'numpy', 'IPython', 'psutil', 'google.colab'} & set(sys.modules)\n"
        "assert all(isinstance(cell, str) and cell for row in rows for cell in row[:2])\n"
        "print(took)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    took = float(done.stdout)
    assert took < 2  # about 0.1 s; the rest is room for a busy machine


def test_a_plain_computer(tmp_path):
    found = detect({}, tmp_path, shell=None)
    assert not (found.on_colab_vm or found.on_colab_enterprise or found.drive_mounted or found.widgets_usable)
    assert found.accelerators == () and found.num_cpus >= 1 and found.memory_gib > 0
    assert found.python == ".".join(map(str, sys.version_info[:3])) and found.torch_version


def test_a_colab_vm_is_known_by_its_services_or_its_file(tmp_path):
    assert detect(COLAB, tmp_path, shell=None).on_colab_vm
    for less in ({"COLABKIT_STATE": "/x", "COLAB_GPU": ""}, {"COLAB_RELEASE_TAG": "x"}, {"TBE_RUNTIME_ADDR": "x"}):
        assert not detect(less, tmp_path, shell=None).on_colab_vm
    put(tmp_path / "var/colab/hostname", "x")
    found = detect({"VERTEX_PRODUCT": "COLAB_ENTERPRISE"}, tmp_path, shell=None)
    assert found.on_colab_vm and found.on_colab_enterprise
    assert not detect({"VERTEX_PRODUCT": "OTHER"}, tmp_path, shell=None).on_colab_enterprise


@pytest.mark.parametrize(
    "files, cpus",
    [
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "100000 100000\n"}, 1),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/cpu.max": "50000 100000\n",
                "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
            },
            1,
        ),
        (
            {
                "proc/self/cgroup": "3:cpuacct,cpu:/x\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            1,
        ),
        ({"sys/fs/cgroup/cpu.max": "1 0"}, None),
        ({"sys/fs/cgroup/cpu.max": "rubbish"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
    ],
)
def test_cpus_honour_affinity_and_quota(tmp_path, files, cpus):
    for name, text in files.items():
        put(tmp_path / name, text)
    everything = len(os.sched_getaffinity(0))
    assert detect({}, tmp_path, shell=None).num_cpus == (cpus or everything)


@pytest.mark.parametrize(
    "files, gib",
    [
        ({}, 12.0),
        ({"sys/fs/cgroup/memory.max": str(2 << 30)}, 2.0),
        ({"sys/fs/cgroup/memory.max": "max"}, 12.0),
        ({"proc/self/cgroup": "0::/in\n", "sys/fs/cgroup/in/memory.max": str(3 << 30)}, 3.0),
        (
            {"proc/self/cgroup": "4:memory:/host/path\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": str(4 << 30)},
            4.0,
        ),
        (
            {"proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"},
            12.0,
        ),
    ],
)
def test_memory_honours_the_container(tmp_path, files, gib):
    put(tmp_path / "proc/meminfo", f"MemFree: 1 kB\nMemTotal:       {12 << 20} kB\n")
    for name, text in files.items():
        put(tmp_path / name, text)
    assert detect({}, tmp_path, shell=None).memory_gib == gib


# Places


@pytest.mark.parametrize("name", PLACES)
def test_every_place_is_told_apart(name, tmp_path):
    place = PLACES[name]
    found = place.detect(tmp_path)
    assert {field: getattr(found, field) for field in place.found} == place.found, found.front_end_reason
    rows = describe(found, env={"HOME": str(tmp_path), "TMPDIR": str(tmp_path)})
    text = "\n".join(" | ".join(row) for row in rows)
    assert all(words in text for words in place.said), text
    assert {"machine", "front end", "memory", "scratch disk", "state folder"} <= {row[0] for row in rows}
    assert all(value and meaning for _, value, meaning in rows), text


def test_a_stand_in_for_google_colab_is_not_taken_for_colab(tmp_path, monkeypatch):
    google = ModuleType("google")
    google.__path__ = [str(tmp_path)]
    google.colab = ModuleType("google.colab")
    google.colab.__spec__ = ModuleSpec("google.colab", None)
    monkeypatch.setitem(sys.modules, "google", google)
    monkeypatch.setitem(sys.modules, "google.colab", google.colab)
    monkeypatch.setattr("IPython.get_ipython", lambda: shell(metadata=OF_JUPYTERLAB))
    assert importlib.util.find_spec("google.colab") is not None
    found = detect({}, tmp_path)
    assert not found.on_colab_vm and found.front_end == "jupyterlab" and not found.answers_drive_auth


@pytest.mark.parametrize(
    "drawn, installed, row", [(True, True, "yes"), (True, False, "not installed"), (False, True, "no")]
)
def test_widgets_need_a_front_end_and_a_library(tmp_path, monkeypatch, drawn, installed, row):
    monkeypatch.setattr("colabkit.core.runtime.is_installed", lambda module: installed)
    found = detect({}, tmp_path, shell=shell(metadata=OF_JUPYTERLAB, allow_stdin=drawn))
    assert found.widgets_usable == (drawn and installed)
    means = next(r for r in describe(found) if r[0] == "widgets")
    assert means[1] == row and ("%pip install ipywidgets" in means[2]) == (row == "not installed")


# Description


def test_describe_tells_what_things_mean(tmp_path):
    (drive.drive_mountpoint(tmp_path) / "MyDrive").mkdir(parents=True)
    env = COLAB | program(tmp_path, f"echo '{T4}'")
    root = SimpleNamespace(path=tmp_path, reason="It was given with --state.")
    rows = {row[0]: row[1:] for row in describe(detect(env, tmp_path, shell=shell()), root)}
    assert "fp16" in rows["accelerator"][1] and "Tesla T4, 15 GiB" in rows["accelerator"][0]
    assert rows["Google Drive"][0] == "mounted" and rows["machine"][0] == "Colab VM"
    assert rows["state disk"][0].endswith("free") and rows["scratch disk"][0].endswith("free")
    assert rows["state folder"] == (str(tmp_path), "It was given with --state.")
    rows = {row[0]: row[1:] for row in describe(detect(COLAB, tmp_path / "x", shell=None))}
    assert "drive.mount" in rows["Google Drive"][1] and "T4" in rows["accelerator"][1]
    assert rows["state folder"][0] == "none yet" and "state disk" not in rows


@pytest.mark.parametrize(
    "state, env, value, words",
    [
        ("", {}, "free", "the default on a computer of your own"),
        ("", {"COLABKIT_STATE": "{tmp}/new/ü"}, "free", "the folder is made by the first run"),
        ("{tmp}/file", {}, "cannot be used", "it is a file, not a folder"),
        ("{tmp}/file/below", {}, "cannot be used", "Not a directory"),
        ("{tmp}/locked", {}, "cannot be written", "chmod"),
    ],
)
def test_the_state_disk_in_every_condition(tmp_path, monkeypatch, state, env, value, words):
    allowed = os.access  # root may write anywhere
    monkeypatch.setattr(os, "access", lambda place, mode: "locked" not in str(place) and allowed(place, mode))
    (tmp_path / "locked").mkdir()
    (tmp_path / "file").write_text("")
    env = {name: text.format(tmp=tmp_path) for name, text in env.items()}
    rows = {row[0]: row[1:] for row in describe(detect({}, shell=None), state.format(tmp=tmp_path) or None, env)}
    assert value in rows["state disk"][0] and words in f"{rows['state folder']} {rows['state disk']}"
    assert not (tmp_path / "new").exists()


def test_check_takes_under_a_second(tmp_path):
    """The command as a user starts it; nvidia-smi aside, so none is on its PATH."""
    env = {name: text for name, text in os.environ.items() if not name.startswith("COV")} | {"PATH": str(tmp_path)}
    took = []
    for _ in range(3):
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "colabkit", "check"], env=env, capture_output=True, text=True)
        took.append(time.perf_counter() - began)
        assert done.returncode == 0 and "state disk" in done.stdout, done.stderr
    assert min(took) < 1, took
