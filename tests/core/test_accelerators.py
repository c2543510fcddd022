"""Accelerators by nvidia-smi and by a torch that has started CUDA: odd answers, hangs, CUDA_VISIBLE_DEVICES."""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace

import pytest

from colabkit.core import accelerators
from colabkit.core.runtime import detect
from tests.core.places import L4, T4, program


def test_accelerators_from_nvidia_smi(tmp_path):
    env = program(tmp_path, f"echo '{T4}'; echo '{L4}'")
    t4, l4 = detect(env, tmp_path, shell=None).accelerators
    kind = accelerators.Accelerator
    assert t4 == kind(name="Tesla T4", memory_gib=15.0, compute_capability="7.5", supports_bf16=False)
    assert l4 == kind(name="NVIDIA L4", memory_gib=22.5, compute_capability="8.9", supports_bf16=True)


@pytest.mark.parametrize(
    "visible, names",
    [
        ("", []),
        ("-1", []),
        ("1", ["NVIDIA L4"]),
        ("1,0", ["NVIDIA L4", "Tesla T4"]),
        ("GPU-bb", ["NVIDIA L4"]),
        ("0,7,1", ["Tesla T4"]),
        ("MIG-123", ["Tesla T4"]),
    ],
)
def test_cuda_visible_devices_is_honoured(tmp_path, visible, names):
    env = program(tmp_path, f"echo '{T4}'; echo '{L4}'") | {"CUDA_VISIBLE_DEVICES": visible}
    assert [device.name for device in accelerators.find_accelerators(env)] == names


@pytest.mark.parametrize(
    "script, expected",
    [
        ("exit 9", 0),
        ("echo 'NVIDIA-SMI has failed'; exit 0", 0),
        ("echo; echo ,,,", 0),
        ("printf '\\377\\376'", 0),
        ("case \"$1\" in *compute_cap*) exit 2;; esac; echo '0, GPU-a, Old, 1024'", 1),
        ("echo '0, GPU-a, GB10, [N/A], 12.1'", 1),
    ],
)
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
    cuda = SimpleNamespace(
        is_initialized=lambda: bool(started),
        is_available=lambda: True,
        device_count=lambda: 1,
        get_device_properties=lambda index: device,
    )
    torch = SimpleNamespace(cuda=cuda, version=SimpleNamespace(hip=None), backends=None)
    monkeypatch.setitem(sys.modules, "torch", torch)
    env = program(tmp_path, f"echo '{T4}'")
    assert accelerators.find_accelerators(env)[0].name == "Tesla T4"
    started.append(True)
    assert accelerators.find_accelerators(env)[0] == accelerators.Accelerator(
        name="NVIDIA H200", memory_gib=141.0, compute_capability="9.0", supports_bf16=True
    )
