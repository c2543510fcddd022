"""One undisturbed small run of every pipeline, and the process that forks its children, for all contracts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

from colabkit.pipelines import Pipeline, discover
from tests.contracts import killing, small

ROOT = Path(__file__).resolve().parents[2]


def all_pipelines() -> list[Pipeline]:
    """Return every pipeline; a contract that silently holds for none of them would prove nothing."""
    found = discover()
    folders = {p.parent.name for p in (ROOT / "colabkit" / "pipelines").glob("*/recipe.py")}
    assert len(found) >= 1 and {p.name for p in found} == folders, f"found {found}, there are {folders}"
    return found


@dataclass(frozen=True)
class Bench:
    """What contracts work with: the forking process, the finished run, and what it made and did."""

    pipeline: Pipeline
    settings: tuple[str, ...]
    server: killing.Server
    state: Path
    first: killing.Ended
    events: list[tuple[str, str]]
    expected: dict[str, object]

    @property
    def finished(self) -> Path:
        return self.folder("finished")

    def folder(self, run: str) -> Path:
        return self.state / self.pipeline.name / run

    def line(self, run: str, *more: str) -> list[str]:
        return [*killing.arguments(self.pipeline.name, self.state, run, self.settings), *more]

    @cached_property
    def plain(self) -> killing.Ended:
        """The run of the same name, from the command in a process of its own, as a user makes it."""
        return killing.command(self.line("plain"))

    def run(self, run: str, *more: str, **order: object) -> killing.Ended:
        """Run the pipeline in a forked child."""
        return self.server.run(self.line(run, *more), self.folder(run), **order)


@pytest.fixture(scope="session", params=all_pipelines(), ids=lambda p: p.name)
def bench(request, tmp_path_factory) -> Iterator[Bench]:
    pipeline, place = request.param, tmp_path_factory.mktemp(request.param.name)
    settings, state, listing = small.settings_of(pipeline), place / "state", place / "events.jsonl"
    with killing.Server(pipeline.name, place / "server") as server:
        folder = state / pipeline.name / "finished"
        first = server.run(killing.arguments(pipeline.name, state, "finished", settings), folder, listing=str(listing))
        assert first.code == 0, first.text
        yield Bench(pipeline, settings, server, state, first, killing.read_events(listing), killing.results(folder))
