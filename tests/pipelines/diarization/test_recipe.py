"""The recipe's steps among each other: what one writes is what the next one goes by."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from colabkit import pipelines
from colabkit.core.config import with_settings
from colabkit.core.errors import UsageError
from colabkit.io.audio import write_wav
from colabkit.pipelines.diarization import recipe
from colabkit.pipelines.diarization.infer import Diarizer
from colabkit.pipelines.diarization.rttm import read_rttm
from colabkit.runs.run import Run
from colabkit.runs.state import open_run
from colabkit.training.processes import team
from tests.contracts.small import small_config


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A run whose steps are done as far as the export; `said` is what it said."""
    pipeline, said = pipelines.find("diarization"), []
    config = with_settings(small_config(pipeline), ["train.steps=4", "train.validate_every_steps=4"])
    folder = open_run(tmp_path_factory.mktemp("recipe"), "diarization", "a")
    with Run(
        pipeline="diarization",
        steps=pipeline.steps,
        config=config,
        preset="demo",
        run_folder=folder,
        say=said.append,
        carry_out=team.carry_out,
    ) as run:
        run.do_all(stop="05_export")
        run.said = said
        yield run


def diarizer(run, step="03_tune"):
    return json.loads((run.folder_of(step) / "diarizer.json").read_text())


def test_the_table_on_top_names_every_step_and_what_it_reads():
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in recipe.__doc__.splitlines() if "|" in line
    ]
    told = {step: [f"{number}_" for number in reads.split(", ") if number.isdigit()] for step, _, reads, _ in rows[2:]}
    assert told == {step.id: [name[:3] for name in step.reads] for step in recipe.STEPS}


def test_what_validation_finds_is_one_of_the_candidates_and_told_with_its_error_rate(done):
    found = diarizer(done)
    assert found["cluster_distance"] in recipe.CLUSTER_DISTANCES
    assert found["smoothing_seconds"] in recipe.SMOOTHING_SECONDS
    for name in ("cluster_distance", "smoothing_seconds"):
        [told] = [line for line in done.said if f"choice: infer.{name} =" in line]
        assert f"infer.{name} = {found[name]}, because DER" in told and "validation speakers" in told


def test_what_is_set_is_kept_and_nothing_is_tried(done, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "_bank", lambda *args: pytest.fail("no speech is needed"))
    monkeypatch.setattr(done, "output", tmp_path)
    config = replace(done.config, infer=replace(done.config.infer, cluster_distance=0.33, smoothing_seconds=0.5))
    assert recipe.tune.function(config, done) == {"cluster_distance": 0.33, "smoothing_seconds": 0.5}
    written = json.loads((tmp_path / "diarizer.json").read_text())
    assert (written["cluster_distance"], written["smoothing_seconds"]) == (0.33, 0.5)


def test_the_export_diarizes_with_what_was_tuned_and_trained(done):
    assert diarizer(done, "05_export") == diarizer(done)
    loaded = Diarizer.from_onnx(done.folder_of("05_export"))
    ours = recipe._diarizer(done.config, done)
    assert (loaded.cluster_distance, loaded.smoothing_seconds) == (ours.cluster_distance, ours.smoothing_seconds)
    assert loaded.settings == ours.settings and np.array_equal(loaded.table, ours.table)
    wave = np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32)
    for got, expected in zip(loaded.run_windows(wave[None]), ours.run_windows(wave[None]), strict=True):
        odds = np.exp(expected - expected.max(-1, keepdims=True))
        logs = np.log(odds / odds.sum(-1, keepdims=True)) if got.shape[-1] == len(ours.table) else expected
        assert np.abs(got - logs).max() < 1e-4


def test_scores_are_of_the_conversations_that_lie_beside_them(done):
    folder = done.folder_of("04_evaluate")
    scores = json.loads((folder / "scores.json").read_text())
    assert list(scores) == ["mixes"] and 0 <= scores["mixes"]["der"]
    assert [path.name for path in sorted((folder / "reference").iterdir())] == ["mix0000.rttm"]
    assert len(read_rttm(folder / "reference" / "mix0000.rttm")["mix0000"]) > 0
    assert (folder / "hypothesis" / "mix0000.rttm").is_file()


def test_a_run_is_applied_to_files_and_one_without_an_export_says_how_to_continue(done, tmp_path):
    write_wav(tmp_path / "talk.wav", np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32), 16_000)
    [written] = recipe.apply(done.path, [tmp_path / "talk.wav"], tmp_path)
    assert written == tmp_path / "talk.rttm" and set(read_rttm(written)) <= {"talk"}
    (tmp_path / "begun").mkdir()
    with pytest.raises(UsageError, match="05_export done") as caught:
        recipe.apply(tmp_path / "begun", [tmp_path / "talk.wav"], tmp_path)
    assert "colabkit run diarization --run begun" in caught.value.fix
