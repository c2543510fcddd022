"""Every notebook runs from top to bottom with nothing but its defaults, shows its results, and a second time skips all.

The demo preset runs whole here, once; the later tests find its state. They run in the order of this file.
"""

from __future__ import annotations

import ast
import base64
import copy
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from colabkit.pipelines import Pipeline
from tests.contracts.conftest import ROOT, all_pipelines
from tests.contracts.killing import tree

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
SECONDS_A_CELL = 1500
UNNEEDED = ("tensorflow", "jax", "keras")
SECONDS_OF_ALL_DEMOS = 600


def _diarization_is_good(metrics: dict[str, float]) -> None:
    assert metrics["der"] * 3 <= metrics["der_single_speaker"], metrics
    assert metrics["onnx_difference"] <= 1e-4 and metrics["int8_same_decisions"] > 0.9, metrics


def _asr_is_good(metrics: dict[str, float]) -> None:
    assert metrics["wer_low"] <= metrics["wer"] <= metrics["wer_high"] and metrics["wer"] <= 0.2, metrics
    assert metrics["cer"] <= metrics["wer"] and metrics["num_samples"] >= 50 and metrics["example_words"] >= 4, metrics


def _dataset_is_good(metrics: dict[str, float]) -> None:
    assert metrics["num_segments"] == metrics["encoded_segments"] == metrics["published_rows"] >= 20, metrics
    assert metrics["left_aside"] == metrics["num_broken"] == 0 and metrics["pieces"] > 1, metrics
    assert metrics["distance_db"] < 8 and metrics["num_pairs"] >= 10, metrics


GOOD: dict[str, Callable[[dict[str, float]], None]] = {
    "asr": _asr_is_good,
    "dataset": _dataset_is_good,
    "diarization": _diarization_is_good,
}


@dataclass
class Executed:
    pipeline: Pipeline
    state: Path
    source: nbformat.NotebookNode
    notebook: nbformat.NotebookNode
    imported: str  # of what no step needs, by the kernel that ran them all

    @property
    def folder(self) -> Path:
        return self.state / self.pipeline.name / "demo"

    @property
    def report(self) -> dict:
        return json.loads((self.folder / "report.json").read_text())


@pytest.fixture(scope="module", params=all_pipelines(), ids=lambda p: p.name)
def executed(request, tmp_path_factory) -> Iterator[Executed]:
    state = tmp_path_factory.mktemp("state")
    source = nbformat.read(ROOT / "notebooks" / f"{request.param.notebook}.ipynb", as_version=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLABKIT_STATE", str(state))  # STATE = "" falls back to it
        patch.delenv("WANDB_API_KEY", raising=False)
        began = time.monotonic()
        notebook = execute(source, f"import sys; print([name for name in {UNNEEDED} if name in sys.modules])")
        imported = "".join(o.text for o in notebook.cells.pop().outputs if o.output_type == "stream")
        seconds = time.monotonic() - began
        print(f"the demo of {request.param.notebook} took {seconds:.0f} s")
        demos = _seconds_of_demos(tmp_path_factory, request.param.name, seconds)
        assert sum(demos.values()) < SECONDS_OF_ALL_DEMOS, f"all demos together stay under ten minutes: {demos}"
        yield Executed(request.param, state, source, notebook, imported)


def _seconds_of_demos(places: pytest.TempPathFactory, name: str, seconds: float) -> dict[str, float]:
    """Note what a demo took where the other test processes find it; return what all took so far."""
    session = places.getbasetemp().parent if "PYTEST_XDIST_WORKER" in os.environ else places.getbasetemp()
    (session / f"{name}.demo-seconds").write_text(f"{seconds:.1f}")
    return {path.stem: float(path.read_text()) for path in session.glob("*.demo-seconds")}


def execute(source: nbformat.NotebookNode, last: str = "") -> nbformat.NotebookNode:
    """Run all cells in a fresh kernel, and one more where there is a `last`; raises at the first cell that fails."""
    notebook = copy.deepcopy(source)
    notebook.cells += [nbformat.v4.new_code_cell(last)] * bool(last)
    NotebookClient(
        notebook,
        timeout=SECONDS_A_CELL,
        kernel_name="python3",
        resources={"metadata": {"path": str(ROOT / "notebooks")}},
    ).execute()
    return notebook


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def printed(notebook: nbformat.NotebookNode) -> str:
    return "".join(o.text for o in outputs(notebook) if o.output_type == "stream")


def test_the_demo_is_good(executed):
    assert set(GOOD) == {p.name for p in all_pipelines()}, "say in GOOD what the demo of each pipeline must reach"
    report = executed.report
    assert report["state"] == "done" and report["preset"] == "demo"
    GOOD[executed.pipeline.name](report["metrics"])
    assert [(s["id"], s["outcome"]) for s in report["steps"]] == [(s.id, "run") for s in executed.pipeline.steps]


def test_results_are_shown(executed):
    shown = outputs(executed.notebook)
    assert [o for o in shown if o.output_type == "error"] == []
    data = [o.data for o in shown if "data" in o]
    images = [base64.b64decode(d["image/png"]) for d in data if "image/png" in d]
    assert len(images) >= 1 and all(i.startswith(b"\x89PNG") and len(i) > 2_000 for i in images)
    pages = [d["text/html"] for d in data if "text/html" in d]
    assert sum("<table" in p for p in pages) >= 2, "the machine's table and the results' table"
    assert any(len(p) > 10_000 for p in pages if "<audio" in p or "<video" in p), "something to play"
    for name in executed.report["metrics"]:
        assert any(name in p for p in pages), f"metric {name} is not in any table"


def test_nothing_alarming_is_printed(executed):
    errors = "".join(o.text for o in outputs(executed.notebook) if o.output_type == "stream" and o.name == "stderr")
    assert errors == "", f"a clean run prints nothing to stderr:\n{errors[:2000]}"
    assert "Warning" not in printed(executed.notebook)


def test_nothing_is_imported_that_no_step_needs(executed):
    """Colab has TensorFlow, which several libraries import wherever it is.

    That costs seconds and hundreds of megabytes for nothing.
    """
    assert executed.imported.strip() == "[]"


def test_notebook_file_stays_clean(executed):
    assert executed.source == nbformat.read(ROOT / "notebooks" / f"{executed.pipeline.notebook}.ipynb", as_version=4)


def test_second_execution_skips_every_step_and_writes_nothing(executed):
    before = tree(executed.state)
    again = execute(executed.source)
    text = printed(again)
    for step in executed.pipeline.steps:
        assert f"{step.id}  skip: done " in text
    assert [o for o in outputs(again) if o.output_type == "error"] == []
    assert tree(executed.state) == before, "a finished run is looked through without a write"


def test_papermill_sets_parameters(executed, tmp_path, monkeypatch):
    papermill = pytest.importorskip("papermill")
    monkeypatch.delenv("COLABKIT_STATE")
    source, cwd = ROOT / "notebooks" / f"{executed.pipeline.notebook}.ipynb", str(ROOT / "notebooks")
    # A headless run whose result is bad must fail, in the last cell: its limit is a parameter.
    parameters = {"PRESET": "demo", "STATE": str(executed.state)}
    limit = next(n for n in limits_of(executed.source) if n not in parameters)
    with pytest.raises(papermill.PapermillExecutionError, match="AssertionError|assert"):
        papermill.execute_notebook(
            source,
            tmp_path / "bad.ipynb",
            parameters | {limit: 1e-9},
            cwd=cwd,
            kernel_name="python3",
            progress_bar=False,
        )
    bad = nbformat.read(tmp_path / "bad.ipynb", as_version=4)
    assert printed(bad).count("  skip: done ") == len(executed.pipeline.steps), (
        "STATE was not taken from the parameters"
    )
    failed = [c for c in bad.cells if any(o.output_type == "error" for o in c.get("outputs", ()))]
    assert [c.source for c in failed] == [next(c.source for c in bad.cells[::-1] if c.cell_type == "code")]


def limits_of(notebook: nbformat.NotebookNode) -> list[str]:
    """Return the parameters that stand in the last cell's assertion."""
    parameters, last = (
        next(c.source for c in cells if test(c))
        for cells, test in (
            (notebook.cells, lambda c: "parameters" in c.metadata.get("tags", [])),
            (notebook.cells[::-1], lambda c: c.cell_type == "code"),
        )
    )
    names = {t.id for node in ast.parse(parameters).body if isinstance(node, ast.Assign) for t in node.targets}
    tests = [node.test for node in ast.walk(ast.parse(last)) if isinstance(node, ast.Assert)]
    return sorted({n.id for test in tests for n in ast.walk(test) if isinstance(n, ast.Name)} & names)
