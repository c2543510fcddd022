"""A toy pipeline of three steps, the second of which resumes, and a killer that stops work at any file operation."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pytest

from colabkit.core import files
from colabkit.core.config import KEEPS_RESULT, Formerly
from colabkit.pipelines import Pipeline
from colabkit.runs.run import Run
from colabkit.runs.state import open_run
from colabkit.runs.steps import step


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeConfig:
    size: Annotated[int, "how many numbers"] = 3
    folder: Annotated[str, "a file that no step made"] = ""
    comment: Annotated[str, "words that change nothing", KEEPS_RESULT] = ""

    def faults(self):
        if self.size < 1:
            yield f"size: got {self.size}, expected at least 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowConfig:
    units: Annotated[int, "how long it works"] = 4
    rate: Annotated[float, "how fast it grows", Formerly("speed")] = 0.5
    modulo: Annotated[int, "numbers are taken modulo this; 1 makes all of them equal"] = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    make: Annotated[MakeConfig, "numbers"] = field(default_factory=MakeConfig)
    grow: Annotated[GrowConfig, "growth"] = field(default_factory=GrowConfig)


LOG: list = []  # what the steps did: ("01_make",), ("02_grow", unit), ("03_use",)
HOOKS: list[Callable] = []  # called with (step id, unit, run) before each piece of work


def _work(name: str, unit: int, run: Run) -> None:
    LOG.append((name, unit))
    for hook in list(HOOKS):
        hook(name, unit, run)


@step(
    "01_make",
    uses=("make", "grow"),
    writes=("numbers.json",),
    outside=lambda c: {c.make.folder: files.fingerprint(c.make.folder)} if c.make.folder else {},
)
def make(config, run):
    """Make numbers."""
    _work("01_make", 0, run)
    run.choose("make.size", config.make.size, "it is set")
    run.report.problem("seven", "is odd")
    files.write_json(run.output / "numbers.json", [i % config.grow.modulo for i in range(config.make.size)])
    return {"numbers": config.make.size}


@step("02_grow", uses=("grow",), reads=("01_make",), writes=("grown.json", "extra/*.json"), resumes=True)
def grow(config, run):
    """Grow them; resumes."""
    saved = run.output / "progress.json"
    state = files.read_json(saved) if saved.exists() else {"done": 0, "sum": 0.0}
    if state["done"] == 0:
        run.choose("grow.plan", config.grow.units, "it was planned at the start")
    numbers = files.read_json(run.folder_of("01_make") / "numbers.json")
    while state["done"] < config.grow.units:
        _work("02_grow", state["done"], run)
        state = {"done": state["done"] + 1, "sum": state["sum"] + config.grow.rate * sum(numbers)}
        files.write_json(saved, state)
        if run.stop_requested and state["done"] < config.grow.units:
            raise run.stopped()
    (run.output / "extra").mkdir(exist_ok=True)
    files.write_json(run.output / "extra" / "more.json", state["done"])
    files.write_json(run.output / "grown.json", state["sum"])
    return {"sum": state["sum"]}


@step("03_use", reads=("01_make", "02_grow"), writes=("*.json",))
def use(config, run):
    """Use them."""
    _work("03_use", 0, run)
    files.write_json(
        run.output / "result.json",
        [
            files.read_json(run.folder_of("01_make") / "numbers.json"),
            files.read_json(run.folder_of("02_grow") / "grown.json"),
        ],
    )
    return {"result": files.read_json(run.folder_of("02_grow") / "grown.json")}


STEPS = (make, grow, use)


class ToyPipeline:
    """Stands where colabkit.pipelines.Pipeline stands."""

    name, title, notebook, config_type = "toy", "A toy", "09_toy", Config
    presets, steps = {"demo": Config, "big": lambda: Config(make=MakeConfig(size=9))}, STEPS

    @staticmethod
    def hindrance(config: Config) -> None:
        """Nothing hinders it."""

    @staticmethod
    def apply(run_folder: Path, paths: list[Path], output: Path) -> list[Path]:
        written = [output / f"{path.stem}.out" for path in paths]
        for path, target in zip(paths, written, strict=True):
            target.write_text((run_folder / "03_use" / "result.json").read_text() + path.read_text())
        return written


class Toy:
    """The toy pipeline for tests: its classes, what it did, and runs of it under one folder."""

    Config, MakeConfig, GrowConfig, STEPS, pipeline = Config, MakeConfig, GrowConfig, STEPS, ToyPipeline()

    def __init__(self, root: Path):
        self.root, self.log, self.hooks, self.said = root, LOG, HOOKS, []

    def config(self, **settings) -> Config:
        make_names = MakeConfig.__dataclass_fields__
        return Config(
            make=MakeConfig(**{k: v for k, v in settings.items() if k in make_names}),
            grow=GrowConfig(**{k: v for k, v in settings.items() if k not in make_names}),
        )

    def open(self, steps=STEPS, run: str = "a", **settings) -> Run:
        self.said.clear()
        return Run(
            pipeline="toy",
            steps=steps,
            config=self.config(**settings),
            preset="demo",
            run_folder=open_run(self.root, "toy", run, lazily=True),
            say=self.said.append,
        )

    def do_all(self, *, start=None, stop=None, redo=(), steps=STEPS, run: str = "a", **settings) -> list:
        """Run from beginning to end; returns what the steps did."""
        LOG.clear()
        with self.open(steps, run, **settings) as opened:
            opened.do_all(start=start, stop=stop, redo=redo)
        return list(LOG)

    def outcomes(self) -> list[str]:
        """Return what was decided about each step, in order."""
        return [line.split()[1].rstrip(":") for line in self.said if line[:2].isdigit() and " done in " not in line]


def pytest_configure(config):
    # one of several processes that share the cores: threads of each would fight for them
    if hasattr(config, "workerinput"):
        os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items):
    """Keep in one process what shares a set-up: a pipeline's contracts, the browser's pages, else a file's tests."""
    for item in items:
        file, parameters = item.nodeid.partition("::")[0], getattr(item, "callspec", None)
        pipelines = [p.name for p in parameters.params.values() if isinstance(p, Pipeline)] if parameters else []
        shared = {"tests/contracts": pipelines[0] if pipelines else file, "tests/browser": "browser"}
        item.add_marker(pytest.mark.xdist_group(shared.get(file.rpartition("/")[0], file)))


@pytest.fixture(scope="session", autouse=True)
def ctrl_c():
    """SIGINT does here, and in processes started from here, what it does in a terminal.

    A shell's background jobs ignore it.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def toy(tmp_path):
    """The toy pipeline, with runs under a temporary folder."""
    LOG.clear()
    HOOKS.clear()
    yield Toy(tmp_path)
    HOOKS.clear()


@pytest.fixture
def no_fsync(monkeypatch):
    """Kills are simulated, so nothing needs to reach the disk."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


class Killed(BaseException):
    """What a killed process would never see."""


_CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "open"}
_killing: dict = {}


def _on_audit(event: str, args: tuple) -> None:
    if not _killing or event not in _CHANGES or not isinstance(args[0], (str, os.PathLike)):
        return
    if event == "open" and not args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        return
    if os.fspath(args[0]).startswith(_killing["folder"]):
        _killing["seen"] += 1
        if _killing["seen"] > _killing["after"]:  # and everything later: a dead process writes no more
            _killing["dead"] = True
            raise Killed


@pytest.fixture(scope="session")
def killer():
    """Return a context manager that kills before file operation number `after` under a folder, and yields its record.

    Works on Python's audit events, so that no operation is forgotten; the record's "dead" says whether it came so far.
    """
    sys.addaudithook(_on_audit)

    @contextmanager
    def killing(folder: Path, after: int):
        record = {"folder": os.fspath(folder), "after": after, "seen": 0, "dead": False}
        _killing.update(record)
        try:
            yield record
        except Killed:
            pass
        finally:
            record.update(_killing)
            _killing.clear()

    return killing
