"""What the tests beside Colab's packages share: the environment that make test-colab builds, and layers above it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.install import environments


@pytest.fixture(scope="session")
def colab() -> Path:
    """Return the folder of the environment."""
    folder = os.environ.get("COLABKIT_COLAB", "")
    if not folder:
        pytest.skip("make test-colab builds what this test runs in")
    return Path(folder).resolve()


@pytest.fixture
def layer(colab, tmp_path) -> Path:
    """Make a fresh Colab machine: an environment above Colab's packages; returns its folder."""
    environments.layer(colab, tmp_path / "machine")
    return tmp_path / "machine"
