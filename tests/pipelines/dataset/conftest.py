"""Recordings made once for all tests of segments."""

from __future__ import annotations

from pathlib import Path

import pytest

from colabkit.pipelines.dataset.cut.made import made_recordings


@pytest.fixture(scope="session")
def radio(tmp_path_factory) -> Path:
    """A folder of three short recordings of three channels, and a transcript of them."""
    pytest.importorskip("espeakng_loader")
    folder = tmp_path_factory.mktemp("radio")
    made_recordings(folder, seconds=9.0)
    return folder
