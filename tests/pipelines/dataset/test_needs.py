"""What a machine cannot do is told when a run is started: before anything is cut, uploaded or encoded."""

from __future__ import annotations

from dataclasses import replace

import pytest

import colabkit
from colabkit.core.errors import StateError
from colabkit.core.runtime import detect
from colabkit.core.versions import differences
from colabkit.pipelines import find
from colabkit.pipelines.dataset.codecs import names
from colabkit.pipelines.dataset.config import PRESETS
from colabkit.runs.steps import Ledger


@pytest.fixture
def transformers(monkeypatch):
    """Say which transformers is installed, and whether this is a Colab VM."""

    def set_version(version: str, on_colab: bool = False) -> None:
        for module in (differences, names):
            monkeypatch.setattr(module, "installed_version", lambda package: version)
        monkeypatch.setattr(names, "detect", lambda: replace(detect(), on_colab_vm=on_colab))

    return set_version


@pytest.mark.parametrize("version, hindered", [("5.15.0", {"full", "h200"}), ("5.17.0", set()), ("5.23.0", set())])
def test_presets_that_want_neucodec_are_hindered_where_transformers_is_older(version, hindered, transformers):
    transformers(version)
    dataset = find("dataset")
    assert {name for name, preset in PRESETS.items() if dataset.hindrance(preset())} == hindered
    table = str(colabkit.machine_table())
    assert ("dataset, full and h200" in table) is bool(hindered)


def test_on_colab_nobody_is_sent_to_replace_its_transformers(transformers):
    transformers("5.15.0", on_colab=True)
    _, error = find("dataset").hindrance(PRESETS["full"]())
    assert "pip" not in error.fix and 'CODEC = "mimi"' in error.fix
    transformers("5.15.0")
    _, error = find("dataset").hindrance(PRESETS["full"]())
    assert 'pip install -U "transformers>=5.17"' in error.fix


def test_a_run_is_refused_before_its_first_step_and_goes_with_another_codec(transformers, tmp_path):
    transformers("5.15.0")
    config = colabkit.configure("dataset", "demo", {"codec.name": "neucodec"}, say=lambda text: None)
    with pytest.raises(StateError, match="does not know neucodec"):
        colabkit.start("dataset", config, run="a", state=str(tmp_path), say=lambda text: None)
    assert not list(tmp_path.glob("dataset/a/0*")), "nothing was done"
    for chosen, wanted in (("neucodec", {"01_segments", "03_upload"}), ("mimi", None)):
        config = colabkit.configure("dataset", "demo", {"codec.name": chosen}, say=lambda text: None)
        colabkit.start("dataset", config, run="a", state=str(tmp_path), wanted=wanted, say=lambda text: None).close()


def test_a_finished_run_is_looked_at_anywhere(transformers, tmp_path, monkeypatch):
    """The step that cannot be done here was done elsewhere: nothing hinders the others."""
    config = colabkit.configure("dataset", "demo", {"codec.name": "neucodec"}, say=lambda text: None)
    transformers("5.15.0")
    monkeypatch.setattr(Ledger, "record", lambda self, step: {"finished": "now"} if step.id == "04_encode" else None)
    colabkit.start("dataset", config, run="a", state=str(tmp_path), say=lambda text: None).close()
