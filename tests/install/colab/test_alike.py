"""The same codes, plans, features and figures with Colab's versions as with the newest, as floating point allows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from colabkit.pipelines import discover
from tests.contracts import small
from tests.install import environments, fresh

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ALIKE = fresh.ROOT / "tests" / "install" / "alike.py"
# What is worked out from trained weights: done by Colab's versions, and once more by the newest from the same weights.
# since transformers 5.23 its attention takes positions as a bias of fused kernels
OTHER_CODE = {"facebook/w2v-bert-2.0"}
AGAIN = {
    "diarization": ("04_evaluate", ("der", "missed", "false_alarm", "confusion", "der_single_speaker")),
    "asr": ("05_evaluate", ("wer", "cer", "num_samples")),
    "dataset": ("05_listen", ("distance_db", "kbps")),
}


def ran(python: Path | str, *arguments: str | Path, folder: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("COLABKIT_", "PYTEST_"))}
    done = subprocess.run(
        [python, "-W", "ignore", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment | {"PYTHONPATH": str(fresh.ROOT), "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def pythons(colab) -> tuple[Path, str]:
    """Return Colab's Python and the newest one's."""
    return environments.python_of(colab / environments.SUITE), sys.executable


@pytest.fixture(scope="module")
def told(pythons, tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("alike")
    ran(pythons[0], ALIKE, "make", folder, folder=folder)
    with ThreadPoolExecutor(2) as threads:
        return [
            json.loads(text.splitlines()[-1])
            for text in threads.map(lambda python: ran(python, ALIKE, "tell", folder, folder=folder), pythons)
        ]


def test_codes(told):
    older, newer = (one["codes"] for one in told)
    assert older == newer
    assert all(len(np.unique(np.concatenate([np.ravel(wave) for wave in codes]))) > 10 for codes in older.values())


def test_features(told):
    older, newer = (one["features"] for one in told)
    for name in older:
        np.testing.assert_allclose(older[name], newer[name], rtol=1e-4, atol=1e-4, err_msg=name)
        assert np.std(older[name]) > 0.1


def test_plans(told):
    older, newer = (one["plans"] for one in told)
    same = [name for name in older if name not in OTHER_CODE]
    assert len(same) >= 3 and {name: older[name] for name in same} == {name: newer[name] for name in same}
    assert all(len(plan["rows"]) == 7 for plan in older.values())


def test_plans_of_models_whose_code_differs(told):
    """They take other amounts of memory, too; tests/training/sizing holds each plan to its own version's real steps."""
    for name in OTHER_CODE:
        for older, newer in zip(*(one["plans"][name]["rows"] for one in told), strict=True):
            assert [older[key] for key in ("gpu", "precision", "checkpointing")] == [
                newer[key] for key in ("gpu", "precision", "checkpointing")
            ]
            for length in ("longest", "typical"):
                assert newer[length]["fits"] == pytest.approx(older[length]["fits"], rel=0.25, abs=1)


@pytest.mark.parametrize("pipeline", discover(), ids=lambda p: p.name)
def test_figures_of_the_same_weights(pipeline, pythons, tmp_path):
    """The newest go on with a run made with Colab's versions: its steps are skipped, and what is redone is the same."""
    step, names = AGAIN[pipeline.name]
    command = ["-m", "colabkit", "run", pipeline.name, "--state", tmp_path / "state", "--run", "a"]
    for setting in small.settings_of(pipeline):
        command += ["--set", setting]
    ran(pythons[0], *command, folder=tmp_path)
    report = tmp_path / "state" / pipeline.name / "a" / "report.json"
    before = json.loads(report.read_text())["metrics"]
    shutil.copyfile(report, tmp_path / "before.json")
    printed = ran(pythons[1], *command, "--redo", step, folder=tmp_path)
    after = json.loads(report.read_text())["metrics"]
    done_before = [one.id for one in pipeline.steps if one.id < step]
    assert all(f"{one}  skip: done" in printed for one in done_before), printed
    assert {name: after[name] for name in names if name in before} == pytest.approx(
        {name: before[name] for name in names if name in before}, rel=1e-3, abs=2e-3
    )
    assert sum(name in before for name in names) >= 2
