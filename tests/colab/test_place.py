"""The place of a call: who can answer it, whether the real google.colab can, how long to wait."""

from __future__ import annotations

import os
import threading
import time

import pytest

from colabkit.colab.place import here, in_time, real
from colabkit.core.runtime import detect
from tests.colab.conftest import IS_COLAB, run

VM = "from colabkit.core.runtime import detect; from colabkit.colab.place import real\n"
VM += "vm = detect({}, ROOT, shell=None)\n"


def test_the_gpus_are_not_asked_for(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/asked\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert here().accelerators == () and not (tmp_path / "asked").exists()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"


def test_elsewhere_than_on_colab_nothing_real_is_looked_for():
    assert real("drive", detect({}, shell=None)) is None


@pytest.mark.skipif(IS_COLAB, reason="google.colab itself is installed here: nothing stands in its place")
def test_on_a_vm_the_real_module_is_found_where_it_is_answered_and_there(tmp_path):
    (tmp_path / "var/colab").mkdir(parents=True)
    (tmp_path / "var/colab/hostname").touch()
    code = f"ROOT = {str(tmp_path)!r}\n" + VM
    run(code + "assert vm.on_colab_vm and real('drive', vm) is None, 'an image without its library'", tmp_path)
    run(
        code + "from colabkit.colab import install; install()\n"
        "assert real('drive', vm) is None, 'ours under its name is not the real one'",
        tmp_path,
    )
    colab = tmp_path / "vm" / "google" / "colab"
    colab.mkdir(parents=True)
    (colab / "__init__.py").touch()
    (colab / "drive.py").write_text("is_real = True")
    run(
        code + "assert real('drive', vm).is_real and real('drive', vm, answered=False) is None\n"
        "assert real('files', vm) is None, 'a module that this image lacks'",
        tmp_path,
        tmp_path / "vm",
    )


def test_work_that_ends_in_time_gives_its_value_or_its_error():
    assert in_time(lambda: 3, seconds=10) == 3
    with pytest.raises(ZeroDivisionError):
        in_time(lambda: 1 / 0, seconds=10)
    with pytest.raises(SystemExit):  # keyrings do so
        in_time(lambda: exit(3), seconds=10)


def test_nobody_waits_longer_than_asked():
    release, began = threading.Event(), time.monotonic()
    try:
        assert in_time(lambda: release.wait(60) or 3, seconds=0.1) is None
        assert time.monotonic() - began < 10
    finally:
        release.set()
