"""Importing colabkit is quick and brings nothing heavy; looking around works on a machine that has next to nothing."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from colabkit.pipelines import discover

HEAVY = (
    "torch",
    "numpy",
    "scipy",
    "soundfile",
    "soxr",
    "safetensors",
    "matplotlib",
    "accelerate",
    "transformers",
    "onnx",
    "onnxruntime",
    "google.colab",
    "IPython",
    "ipywidgets",
    "wandb",
    "tensorboard",
    "espeakng_loader",
)
BASE = ("numpy", "scipy", "soundfile", "soxr", "safetensors")  # what pyproject.toml requires without any extra
BLOCK = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
from colabkit.cli import main
sys.exit(main({command!r}))
"""


def test_importing_is_quick():
    def seconds(code: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - began

    # The interpreter's own start is not colabkit's; the best of several is what the machine can do.
    extra = min(seconds("import colabkit") for _ in range(7)) - min(seconds("pass") for _ in range(7))
    assert extra < 0.2, f"import colabkit takes {extra:.2f} s"


def test_importing_brings_nothing_heavy():
    code = (
        "import sys, colabkit, colabkit.core.errors, colabkit.pipelines; "
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


@pytest.mark.parametrize("command", [["check"], ["--help"], ["run", "--help"], ["list", "--settings"]], ids=" ".join)
def test_looking_around_needs_nothing_installed(command):
    done = _on_a_bare_machine(command, HEAVY)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "" and len(done.stdout.splitlines()) > 3


def test_list_needs_no_extra():
    done = _on_a_bare_machine(["list"], tuple(name for name in HEAVY if name not in BASE))
    assert done.returncode == 0, done.stderr
    assert done.stderr == "" and all(p.name in done.stdout and p.steps[-1].title in done.stdout for p in discover())


@pytest.mark.parametrize("pipeline", discover(), ids=lambda p: p.name)
def test_a_missing_extra_is_told_with_its_cure(pipeline, tmp_path):
    done = _on_a_bare_machine(
        ["run", pipeline.name, "--state", str(tmp_path)], tuple(n for n in HEAVY if n not in BASE)
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr and "fix:" in done.stderr and f"colabkit[{pipeline.name}]" in done.stderr, (
        done.stderr
    )


def test_the_block_blocks():
    code = BLOCK.format(blocked=("numpy",), command=[]).replace("from colabkit.cli import main", "import numpy")
    assert (
        "No module named 'numpy'" in subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr
    )


def _on_a_bare_machine(command: list[str], blocked: tuple[str, ...]) -> subprocess.CompletedProcess:
    names = tuple({name.partition(".")[0] for name in blocked})
    return subprocess.run(
        [sys.executable, "-c", BLOCK.format(blocked=names, command=command)], capture_output=True, text=True
    )
