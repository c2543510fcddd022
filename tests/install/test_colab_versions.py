"""On a Colab runtime the install cell adds what is missing and replaces nothing: pip itself plans it."""

from __future__ import annotations

import json

import pytest
from packaging.utils import canonicalize_name

from colabkit.pipelines import discover
from tests.install import fresh

VERSIONS = fresh.ROOT / "tests" / "install" / "colab-versions.txt"
PYTHON = "3.13"

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def colab(tmp_path_factory):
    """Make an environment in which pip finds what Colab brings, and docopt, which num2words needs and pip would build."""
    place = tmp_path_factory.mktemp("colab")
    (place / "versions.txt").write_text(VERSIONS.read_text(encoding="utf-8").rstrip() + "\ndocopt==0.6.2\n", encoding="utf-8")
    return fresh.pretend_installed(place / "env", place / "versions.txt")


def preinstalled() -> set[str]:
    lines = [line for line in VERSIONS.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return {canonicalize_name(line.partition("==")[0]) for line in lines}


def planned(requirement: str, python) -> dict[str, str]:
    """Return name -> version of all that pip would install, as it decides with Colab's packages there."""
    done = fresh.pip("install", "--quiet", "--dry-run", "--report", "-", "--only-binary", ":all:", "--python-version", PYTHON,
                     requirement, python=python)
    assert done.returncode == 0, done.stderr[-3000:]
    return {canonicalize_name(found["metadata"]["name"]): found["metadata"]["version"]
            for found in json.loads(done.stdout)["install"]}


def test_the_versions_are_those_of_a_whole_runtime():
    assert {"torch", "numpy", "protobuf", "tensorflow", "transformers", "ipykernel", "huggingface-hub"} <= preinstalled()
    assert len(preinstalled()) > 100


@pytest.mark.parametrize("extras", [p.name for p in discover()] + [f"{p.name},notebook" for p in discover()])
def test_nothing_of_colab_is_replaced(extras, colab, wheel, index):
    plan = planned(f"colabkit[{extras}] @ {wheel.as_uri()}", colab)
    assert "colabkit" in plan
    replaced = {name: version for name, version in plan.items() if name in preinstalled()}
    assert not replaced, f"Colab would restart: narrow what asks for it in pyproject.toml: {replaced}"
    assert len(plan) < 12, f"what Colab has to fetch grows: {plan}"


def test_a_requirement_that_replaces_something_is_seen(colab, index):
    """onnx 1.23 wants a newer protobuf than Colab's TensorFlow can bear; so would a newer numpy."""
    assert "protobuf" in planned("onnx>=1.23", colab)
    assert "numpy" in planned("numpy>=2.2", colab)
