"""Whole runs on a mounted Drive that fails: every fault is mended or told, and the result is the one of a calm day."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from colabkit.core import disk, files
from colabkit.core.errors import ColabkitError, StateError
from colabkit.runs.medium import medium_of
from colabkit.runs.run import Run
from colabkit.runs.state import open_run
from colabkit.runs.steps import step
from colabkit.training.checkpoints import checkpoints
from colabkit.training.checkpoints.checkpoints import checkpoints_of
from tests.conftest import Config

MOUNT = Path(__file__).with_name("failing_mount.py")
STEPS_OF_TRAINING = 40


class Mounted:
    """A folder shown by FUSE; `weather(...)` says how it behaves from now on."""

    def __init__(self, place: Path):
        self.backing, self.path, self._weather = place / "backing", place / "MyDrive", place / "weather.json"
        for folder in (self.backing, self.path):
            folder.mkdir()
        self.weather()
        self._log = place / "mount.log"
        self.mount()

    def mount(self) -> None:
        subprocess.run(["umount", "-l", self.path], capture_output=True)
        with open(self._log, "a") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(MOUNT), self.backing, self.path, self._weather], stdout=log, stderr=log
            )
        deadline = time.monotonic() + 10
        while not os.path.ismount(self.path):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.unmount()
                pytest.skip(f"no FUSE file system can be mounted here: {self._log.read_text()[-200:]}")
            time.sleep(0.02)

    def unmount(self) -> None:
        subprocess.run(["umount", "-l", self.path], capture_output=True)
        self.process.kill()
        self.process.wait()

    def weather(self, **how) -> None:
        fresh = self._weather.with_suffix(".new")
        fresh.write_text(json.dumps(how))
        fresh.rename(self._weather)


@pytest.fixture
def drive(tmp_path, monkeypatch):
    try:
        import mfusepy  # noqa: F401
    except (ImportError, OSError) as error:
        pytest.skip(f"no FUSE here: {error}")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(disk, "RETRY_SECONDS", (0.01, 0.02, 0.05))
    monkeypatch.setattr(checkpoints, "RETRY_SECONDS", (0.01, 0.02, 0.05, 0.1))
    monkeypatch.setattr(checkpoints, "END_PATIENCE_SECONDS", 20.0)
    mounted = Mounted(tmp_path)
    yield mounted
    mounted.unmount()


TRAINED: list[int] = []
RUNNING: list[Run] = []
HOOKS: dict[int, object] = {}


@step("01_make", uses=("make",), writes=("numbers.json",))
def make(config, run):
    """Make numbers."""
    files.write_json(run.output / "numbers.json", list(range(config.make.size)))
    return {"numbers": config.make.size}


@step("02_train", uses=("grow",), reads=("01_make",), writes=("weights.json",), resumes=True)
def train(config, run):
    """Train with a checkpoint every step."""
    RUNNING.append(run)
    points = checkpoints_of(run)
    found = points.load_latest()
    weights = found[1]["weights"] if found else torch.zeros(1000, dtype=torch.float64)
    for number in range(found[0] if found else 0, STEPS_OF_TRAINING):
        if number in HOOKS:
            HOOKS.pop(number)()
        weights = weights * 1.01 + number
        TRAINED.append(number)
        points.save(number + 1, {"weights": weights})
    points.wait()
    files.write_json(run.output / "weights.json", weights[:5].tolist())
    return {"sum": float(weights.sum())}


@step("03_use", reads=("02_train",), writes=("*.json",))
def use(config, run):
    """Use the weights."""
    files.write_json(run.output / "result.json", files.read_json(run.folder_of("02_train") / "weights.json"))


def carry_out(root: Path, said: list[str]) -> None:
    folder = open_run(root, "toy", "a", lazily=True)
    try:
        Run(
            pipeline="toy", steps=(make, train, use), config=Config(), preset="demo", run_folder=folder, say=said.append
        ).do_all()
    finally:
        folder.close()


def until_done(root: Path, said: list[str], drive: Mounted, most: int = 60) -> list[str]:
    """Run it again after every error, as a user would; returns the errors."""
    errors = []
    for number in range(most):
        drive.weather(**(json.loads(drive._weather.read_text()) | {"seed": number}))
        try:
            carry_out(root, said)
            return errors
        except ColabkitError as error:
            assert "fix:" in str(error)
            errors.append(str(error))
    pytest.fail(f"never done: {errors[-3:]}")


def result(root: Path) -> dict:
    records = {path.name: json.loads(path.read_text()) for path in sorted((root / "toy/a/ledger").glob("*.json"))}
    return {name: (record["outputs"], record["metrics"]) for name, record in records.items()}


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    root = tmp_path_factory.mktemp("calm")
    carry_out(root, [])
    return result(root)


@pytest.fixture(autouse=True)
def nothing_left_over():
    TRAINED.clear()
    RUNNING.clear()
    HOOKS.clear()


def test_a_calm_drive_is_known_as_one_and_holds_the_same(drive, calm):
    said = []
    assert medium_of(drive.path).is_remote
    carry_out(drive.path, said)
    assert result(drive.backing) == calm and TRAINED == list(range(STEPS_OF_TRAINING))
    assert any("brought to" in line for line in said)
    assert list(drive.backing.rglob(".colabkit-*.tmp")) == []


@pytest.mark.parametrize("share", [0.005, 0.03])
def test_with_faults_everywhere_it_ends_in_the_same_result(drive, calm, share):
    said = []
    drive.weather(fault_share=share)
    errors = until_done(drive.path, said, drive)
    drive.weather()
    assert result(drive.backing) == calm
    # Never begun anew: what was trained twice lies between a fault and the checkpoint before it.
    assert len(TRAINED) <= STEPS_OF_TRAINING + 3 * len(errors), errors


def test_away_in_the_middle_of_training_costs_nothing(drive, calm):
    said = []
    HOOKS[10] = lambda: drive.weather(away=True)
    HOOKS[30] = lambda: (time.sleep(0.3), drive.weather())
    carry_out(drive.path, said)
    assert result(drive.backing) == calm and TRAINED == list(range(STEPS_OF_TRAINING))
    assert sum("WARNING" in line and "training goes on" in line for line in said) == 1
    assert any("answers again" in line for line in said)


def test_a_choice_while_drive_is_away_costs_nothing(drive, calm):
    """As when memory runs out in the middle of training."""
    said, runs = [], []
    HOOKS[0] = lambda: runs.append(RUNNING[-1])
    HOOKS[10] = lambda: (drive.weather(away=True), runs[0].choose("limit", 4, "memory ran out"))
    HOOKS[20] = drive.weather
    carry_out(drive.path, said)
    made = result(drive.backing)
    assert made == calm and TRAINED == list(range(STEPS_OF_TRAINING))
    record = json.loads((drive.backing / "toy/a/ledger/02_train.json").read_text())
    assert [c["name"] for c in record["choices"]] == ["limit"] and any("remembered" in line for line in said)


def test_full_in_the_middle_of_training_costs_nothing_once_there_is_room(drive, calm):
    said = []
    HOOKS[5] = lambda: drive.weather(full=True)
    HOOKS[STEPS_OF_TRAINING - 1] = lambda: threading.Timer(0.5, drive.weather).start()
    carry_out(drive.path, said)
    assert result(drive.backing) == calm and TRAINED == list(range(STEPS_OF_TRAINING))
    assert any("No space left" in line for line in said)


def test_a_mount_that_dies_is_one_error_and_the_work_on_this_machine_is_taken_up_again(drive, calm, monkeypatch):
    said = []

    def die():
        drive.process.kill()
        drive.process.wait()

    HOOKS[20] = die
    monkeypatch.setattr("colabkit.training.checkpoints.checkpoints.END_PATIENCE_SECONDS", 0.2)
    with pytest.raises(StateError) as caught:
        carry_out(drive.path, said)
    assert "mount" in caught.value.fix
    assert TRAINED == list(range(STEPS_OF_TRAINING)), "training itself went on to its end"
    drive.mount()
    carry_out(drive.path, said)
    assert result(drive.backing) == calm and TRAINED == list(range(STEPS_OF_TRAINING)), (
        "and nothing of it was done again"
    )
