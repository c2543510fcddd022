"""The catalogue of GPUs, names people write, and the device that is here."""

from __future__ import annotations

import json
from dataclasses import asdict
from types import SimpleNamespace

import pytest

from colabkit.core.errors import UsageError
from colabkit.training.sizing import devices
from colabkit.training.sizing.devices import CATALOGUE, GIB, MIB, Device, find


def test_what_nvidia_smi_shows_and_what_torch_can_have():
    shown = {
        "T4": 15360,
        "V100-16": 16384,
        "L4": 23034,
        "A100-40": 40960,
        "A100-80": 81920,
        "H100": 81559,
        "H200": 143771,
    }
    for name, mebibytes in shown.items():
        device = find(name)
        assert device.total_bytes == mebibytes * MIB
        assert 0.94 * device.total_bytes < device.usable_bytes < device.total_bytes
        assert 0.3 * GIB <= device.context_bytes <= 0.6 * GIB


def test_precisions():
    assert not find("T4").supports_bf16 and find("T4").has_fp16_tensor_cores
    assert not find("V100-32").supports_bf16 and find("V100-32").has_fp16_tensor_cores
    assert all(find(name).supports_bf16 for name in ("L4", "A10", "A100-40", "H100", "H200", "RTX3090", "RTX4090"))


@pytest.mark.parametrize(
    "written, meant",
    [
        ("t4", "T4"),
        ("Tesla T4", "T4"),
        ("NVIDIA L4", "L4"),
        ("V100", "V100-16"),
        ("Tesla V100-SXM2-32GB", "V100-32"),
        ("a100", "A100-40"),
        ("NVIDIA A100-SXM4-80GB", "A100-80"),
        ("A100-PCIE-40GB", "A100-40"),
        ("A10G", "A10"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA GeForce RTX 4090", "RTX4090"),
        ("3090", "RTX3090"),
    ],
)
def test_names_people_write(written, meant):
    assert find(written).name == meant


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(UsageError) as error:
        find("A100-60")
    assert "A100" in error.value.fix and "H200" in error.value.expected
    with pytest.raises(UsageError):
        find("abacus")


def test_other_processes_on_a_gpu_are_counted_and_said():
    properties = SimpleNamespace(name="Tesla T4", major=7, minor=5)
    total, context = find("T4").usable_bytes, find("T4").context_bytes
    alone = devices._of_cuda(properties, total - context - GIB, total, GIB)
    assert alone.others_bytes == 0 and alone.usable_bytes == total and "others" not in alone.describe()
    shared = devices._of_cuda(properties, total - context - 7 * GIB, total, GIB)
    assert shared.others_bytes == 6 * GIB and shared.usable_bytes == total - 6 * GIB
    assert "6.0 GiB of it held by others" in shared.describe()
    assert not shared.supports_bf16 and shared.has_fp16_tensor_cores and shared.capability == "7.5"


def test_the_device_here_is_usable_and_the_same_each_time():
    device = devices.here()
    assert device == devices.here()
    assert 0 < device.context_bytes < device.usable_bytes <= device.total_bytes
    if device.kind == "cpu":
        assert not device.supports_bf16 and device.capability == "" and "CPU" in str(device)


def test_the_cpus_ram_is_that_of_its_container(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices, "detect", lambda: SimpleNamespace(memory_gib=3.5, num_cpus=2))
    assert devices.here().usable_bytes == int(3.5 * GIB)


def test_to_and_from_plain_data():
    for device in CATALOGUE.values():
        assert Device(**json.loads(json.dumps(asdict(device)))) == device
