"""Every notebook in JupyterLab, as a person uses it: run all, interrupt in the middle of training, run all again.

Keeps pictures of each stage; see `pictures` in conftest.py.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from colabkit.pipelines import Pipeline
from tests.browser.lab import NotebookPage
from tests.browser.tidiness import dim_texts, faults_of
from tests.contracts.conftest import ROOT, all_pipelines
from tests.contracts.killing import arguments, differences, environment, results
from tests.contracts.notebooks import LENIENT, ledgers, with_parameters
from tests.contracts.small import settings_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SECONDS = 300.0  # for a small run, on a loaded machine


@dataclass(frozen=True)
class Training:
    """How a pipeline's training, or its longest step, is made long enough to be interrupted.

    `enough` is how far it must be then. `title` and `continues` stand before the numbers in what the step prints.
    """

    step: str
    settings: tuple[str, ...]
    num_steps: int
    enough: int
    title: str = "train"
    continues: str = "continues at step"

    @property
    def cell(self) -> str:
        return f'run.do("{self.step}")'

    def position(self, page: NotebookPage) -> int:
        """Return the step that the page shows."""
        found = re.search(rf"{self.title}: (\d+)/{self.num_steps}\b", page.outputs(self.cell))
        return int(found[1]) if found else 0


TRAINING = {
    "asr": Training(
        "04_train",
        num_steps=300,
        enough=60,
        settings=("train.steps=300", "train.validate_every_steps=100", "train.checkpoint_every_steps=20"),
    ),
    "dataset": Training(
        "01_segments",
        num_steps=24,
        enough=4,
        title="cut",
        continues="continues:",
        settings=("segments.num_channels=24", "segments.seconds_per_channel=40"),
    ),
    "diarization": Training(
        "02_train",
        num_steps=400,
        enough=60,
        settings=("train.steps=400", "train.validate_every_steps=100", "train.checkpoint_every_steps=20"),
    ),
}


@pytest.fixture(params=all_pipelines(), ids=lambda p: p.name)
def pipeline(request) -> Pipeline:
    assert request.param.name in TRAINING, "say in TRAINING how long this pipeline trains here"
    return request.param


def test_run_all_interrupt_and_run_all_again(pipeline, lab, open_page, tmp_path):
    training = TRAINING[pipeline.name]
    settings, state = (*settings_of(pipeline), *training.settings), tmp_path / "state"
    log = (tmp_path / "command.log").open("w+")
    # What the same settings make undisturbed, from the command line.
    undisturbed = subprocess.Popen(
        [sys.executable, "-m", "colabkit", *arguments(pipeline.name, state, "command", settings)],
        env=environment(threads=1),
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        parameters = {"STATE": str(state), "RUN": "page", "SETTINGS": " ".join(settings), **LENIENT[pipeline.name]}
        page = _opened(pipeline, lab, open_page, parameters)
        _interrupted(page, training)
        _continued(page, training, pipeline, state / pipeline.name / "page")
        assert undisturbed.wait(SECONDS) == 0, Path(log.name).read_text()[-3000:]
    finally:
        undisturbed.kill()
        undisturbed.wait()
        log.close()
    command, interrupted = state / pipeline.name / "command", state / pipeline.name / "page"
    assert differences(results(command), results(interrupted)) == []
    assert ledgers(command) == ledgers(interrupted), "identities, files, metrics and choices"
    _looks_well_everywhere(page)
    _looks_well_from_a_stranger(page, lab, open_page)


def _opened(pipeline: Pipeline, lab, open_page, parameters: dict) -> NotebookPage:
    name = f"{pipeline.notebook}.ipynb"
    notebook = json.loads((ROOT / "notebooks" / name).read_text())
    (lab.root / name).write_text(json.dumps(with_parameters(notebook, parameters)))
    page = open_page(name)
    form = page.source("#@param")
    assert all(f"{key} = {json.dumps(value)}" in form for key, value in parameters.items())
    page.picture(f"{pipeline.notebook}-1-opened")
    return page


def _interrupted(page: NotebookPage, training: Training) -> None:
    page.run_all()
    page.wait(lambda: training.position(page) >= training.enough, "progress", SECONDS)
    assert page.cell(training.cell).locator("progress").count() == 1
    assert faults_of(page) == []
    stage = Path(page.name).stem
    page.picture(f"{stage}-2-training")
    page.choose("Kernel", "Interrupt Kernel")
    page.wait_for_error(SECONDS)
    page.wait_until_done(SECONDS)
    assert training.position(page) < training.num_steps, "training was over before it could be interrupted"
    assert "Interrupt" in page.outputs(training.cell) and "stopped after" in page.outputs(training.cell)
    assert len(page.errors()[0].splitlines()) < 5, "what is kept and what to do, not sixty lines of our code"
    later = page.prompts()[page.prompts().index(page.cell(training.cell).locator(".jp-InputPrompt").inner_text()) + 1 :]
    assert set(later) == {"[ ]:"}, "no later cell runs"
    page.picture(f"{stage}-3-interrupted")


def _continued(page: NotebookPage, training: Training, pipeline: Pipeline, folder: Path) -> None:
    page.run_all()
    page.wait_until_done(SECONDS)
    page.picture(f"{Path(page.name).stem}-4-finished")
    before = [s.id for s in pipeline.steps if s.id < training.step]
    assert all(f"{id}  skip: done " in page.outputs(f'run.do("{id}")') for id in before)
    assert before or training.step == pipeline.steps[0].id
    continued = re.search(rf"{training.continues} (\d+) of {training.num_steps}", page.outputs(training.cell))
    assert continued and 0 < int(continued[1]) < training.num_steps, page.outputs(training.cell)
    assert page.errors() == []
    _shows_results(page, training, json.loads((folder / "report.json").read_text())["metrics"])
    assert faults_of(page) == []


def _shows_results(page: NotebookPage, training: Training, metrics: dict) -> None:
    bars = page.cell(training.cell).locator("progress")
    assert bars.evaluate_all("bars => bars.map(bar => bar.value / bar.max)") == [1]
    assert page.page.locator(".jp-OutputArea-output img").count() >= 1
    players = page.page.locator("audio, video")
    assert players.count() >= 1
    page.wait(lambda: players.evaluate_all("all => all.every(player => player.duration > 0)"), "sound to play", 30)
    rows = dict(
        row.split("\t") for row in page.page.locator(".jp-OutputArea-output table").last.locator("tr").all_inner_texts()
    )
    assert set(metrics) <= set(rows) and all(
        float(rows[name]) == pytest.approx(value, rel=1e-3) for name, value in metrics.items() if value
    )


def _looks_well_everywhere(page: NotebookPage) -> None:
    """In the light and the dark theme, and on a narrow screen, all outputs can be read."""
    assert dim_texts(page) == []
    page.choose("Settings", "Theme", "JupyterLab Dark")
    page.page.locator("body[data-jp-theme-light='false']").wait_for(state="attached")
    assert dim_texts(page) == []
    page.picture(f"{Path(page.name).stem}-5-dark")
    page.choose("Settings", "Theme", "JupyterLab Light")
    page.page.locator("body[data-jp-theme-light='true']").wait_for(state="attached")
    page.page.set_viewport_size({"width": 900, "height": 900})
    assert faults_of(page) == []
    page.picture(f"{Path(page.name).stem}-6-narrow")


def _looks_well_from_a_stranger(page: NotebookPage, lab, open_page) -> None:
    """A saved notebook that somebody else opens is not trusted: HTML is cleaned, and must still say the same."""
    saved = page.save()
    assert "application/vnd.jupyter.widget-view+json" not in json.dumps(saved), "a widget would be an empty box"
    saved["cells"][0]["source"] = "# Sent by mail"  # another notebook than the one that was signed here
    (lab.root / "stranger.ipynb").write_text(json.dumps(saved))
    other = open_page("stranger.ipynb")
    assert faults_of(other) == [] and dim_texts(other) == []
    assert other.text() == page.text()
    other.picture(f"{Path(page.name).stem}-7-stranger")


@pytest.mark.skipif(
    "COLABKIT_SCREENSHOTS" not in os.environ,
    reason="makes the documentation's pictures: "
    "COLABKIT_SCREENSHOTS=DIR python -m pytest tests/browser -k documentation",
)
def test_documentation_pictures_of_the_finished_demo(pipeline, lab, open_page):
    with tempfile.TemporaryDirectory(prefix="colabkit-") as state:  # a short name: it is in the picture
        page = _opened(pipeline, lab, open_page, {"STATE": state})
        began = time.monotonic()
        page.run_all()
        page.wait_until_done(4 * SECONDS)
        print(f"the demo of {pipeline.notebook} took {time.monotonic() - began:.0f} s")
        assert faults_of(page) == [] and page.errors() == []
        page.picture(pipeline.notebook)
