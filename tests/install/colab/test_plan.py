"""The install cell on a Colab runtime: it adds what is missing and replaces nothing.

The runtime's own pip plans it, requirements and all.
"""

from __future__ import annotations

import json
import subprocess

import pytest
from packaging.utils import canonicalize_name

from colabkit.pipelines import discover
from tests.install import colab_freeze, environments, fresh

ADDED = {  # by extra, beside colabkit: what Colab lacks
    "asr": {"espeakng-loader", "obstore", "jiwer", "rapidfuzz", "num2words", "docopt"},
    "dataset": {"espeakng-loader", "obstore", "onnxruntime", "pyloudnorm", "silero-vad"},
    "diarization": {"espeakng-loader", "obstore", "onnx", "onnxruntime"},
    "notebook": {"papermill", "jedi"},  # jedi is IPython's own wish, which Colab leaves open
}


@pytest.fixture
def gpu_runtime(colab, layer):
    """Return a machine that has, for pip's eyes, what a runtime with a GPU has beside: CUDA and what is made of it.

    But for what PyTorch's default build, which is there, has brought of other versions.
    """
    there = {canonicalize_name(name) for name in fresh.own_packages(colab)}
    fresh.pretend_installed(
        layer,
        (
            (pin.name, pin.version)
            for pin in colab_freeze.pins(colab_freeze.GPU_FREEZE)
            if pin.version and pin.name not in there
        ),
    )
    return layer


def planned(requirement: str, machine) -> dict[str, str]:
    """Return name -> version of all that the machine's own pip would install."""
    done = subprocess.run(
        [environments.python_of(machine), "-m", "pip", "install", "--quiet", "--dry-run", "--report", "-", requirement],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {
        canonicalize_name(found["metadata"]["name"]): found["metadata"]["version"]
        for found in json.loads(done.stdout)["install"]
    }


def test_the_list_is_of_a_whole_runtime(colab):
    names = {pin.name for pin in colab_freeze.pins()}
    assert {"torch", "numpy", "protobuf", "tensorflow", "transformers", "ipykernel", "huggingface-hub"} <= names
    assert len(names) > 600 and {"Date", "Python", "Source"} <= set(colab_freeze.told())
    built = environments.read_built(colab)
    assert built.of == colab_freeze.told()["Date"], (
        "the list is newer than what was built: rm -r .venv-colab, make test-colab"
    )
    assert len(built.left_out) < 40 and not {"torch", "numpy", "transformers", "ipykernel"} & set(built.left_out), (
        built.left_out
    )


@pytest.mark.parametrize(
    "extras", [*(p.name for p in discover()), ",".join([*(p.name for p in discover()), "notebook"])]
)
def test_nothing_of_colab_is_replaced(extras, gpu_runtime, wheel, index):
    plan = planned(f"colabkit[{extras}] @ {wheel.as_uri()}", gpu_runtime)
    there = {pin.name for path in (colab_freeze.FREEZE, colab_freeze.GPU_FREEZE) for pin in colab_freeze.pins(path)}
    replaced = {name: version for name, version in plan.items() if name in there}
    assert not replaced, f"Colab would restart: narrow what asks for it in pyproject.toml: {replaced}"
    assert set(plan) == {"colabkit"}.union(*(ADDED[extra] for extra in extras.split(","))), (
        "what Colab has to fetch has changed"
    )


@pytest.mark.parametrize(
    "requirement, replaced", [("onnx>=1.23", "protobuf"), ("numpy>=2.2", "numpy"), ("neucodec==0.0.6", "torchao")]
)
def test_a_requirement_that_replaces_something_is_seen(requirement, replaced, layer, index):
    """onnx 1.23 wants a newer protobuf than Colab's TensorFlow can bear.

    NeuCodec's own package wants a newer torchao than is there.
    """
    assert replaced in planned(requirement, layer)
