"""Small codecs in folders, made once a session."""

from __future__ import annotations

from pathlib import Path

import pytest

from colabkit.pipelines.dataset.codecs import families
from colabkit.pipelines.dataset.codecs.by_name import open_codec
from tests.pipelines.dataset.codecs.small_models import WAVE_ONLY, make_folder
from tests.told import Told


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

    class AllAtOnce(Told):
        def choose(self, name, value, reason):
            return 640.0 if name == "codec.seconds_at_once" else value

    return lambda kind, **how: open_codec(str(folders(kind)), device="cpu", **{"teller": AllAtOnce(), **how})


@pytest.fixture
def opened_exactly(opened, monkeypatch):
    """Return a function that opens a small codec of waves in float64.

    Kernels of a CPU round otherwise for one wave than for six, and a code whose rival is as near would be decided by
    that.
    """

    def open_exactly(kind):
        codec = opened(kind)
        if kind in WAVE_ONLY:
            codec._model.double()
            monkeypatch.setattr(families, "stacked", lambda waves, length: stacked(waves, length).double())
        return codec

    stacked = families.stacked
    return open_exactly
