"""Small codecs in folders, made once a session."""

from __future__ import annotations

from pathlib import Path

import pytest

from colabkit.pipelines.dataset.codecs.opening import open_codec
from tests.pipelines.dataset.codecs.small_models import make_folder


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory):
    """Return a function that gives the folder of a small model, made once."""
    made: dict[str, Path] = {}

    def folder_of(kind: str) -> Path:
        if kind not in made:
            made[kind] = make_folder(kind, tmp_path_factory.mktemp(kind))
        return made[kind]
    return folder_of


@pytest.fixture
def opened(folders):
    """Return a function that opens a small codec of a kind on the CPU, with batches as large as on a GPU."""
    def choose(name, value, reason):
        return 640.0 if name == "codec.most_seconds" else value
    return lambda kind, **how: open_codec(str(folders(kind)), device="cpu", **{"choose": choose, **how})
