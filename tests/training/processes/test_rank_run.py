"""A run as one of several processes sees it: it tells the holder what it chooses, and writes nothing itself."""

from __future__ import annotations

import io
import json

import pytest

from colabkit import worker
from colabkit.runs.run import Run
from colabkit.runs.state import open_run
from colabkit.training.processes.handoff import MARK, Handoff
from colabkit.training.processes.rank_run import RankRun, TellingProgress
from tests.training.processes import team_steps


@pytest.fixture
def among_others(tmp_path):
    """Return a function that has a step carried out by a function of its RankRun; `told` and `said` are what it did.

    As the first process, or with first=False as another one. `asked` names the signal that asks to stop.
    """
    events, said, asked = [], [], []

    def carry_out(do, *, first=True):
        def alone(step, sections, run, identity):
            handoff = Handoff.read(_written(tmp_path / "handoff.json", Handoff.of(step, run, identity)))
            tell = events.append if first else None
            ranked = RankRun(handoff, tell=tell, asked=lambda: asked[0] if asked else "", say=said.append)
            try:
                return do(ranked)
            finally:
                ranked.run_folder.close()

        folder = open_run(tmp_path, "team", "a")
        config = team_steps.Config(team=team_steps.TeamConfig(units=7))
        with Run(
            pipeline="team",
            steps=team_steps.STEPS,
            config=config,
            preset="demo",
            run_folder=folder,
            say=lambda line: None,
            carry_out=alone,
        ) as run:
            run.do_all()
            return run

    carry_out.events, carry_out.said, carry_out.asked = events, said, asked
    return carry_out


def _written(path, handoff):
    path.write_text(handoff.text())
    return path


def test_it_has_the_settings_and_the_place_of_the_holder_and_does_the_step(among_others, monkeypatch):
    seen = []

    def do(run):
        seen.append((run.config, run.output.name, run.identity_at_work, run.pipeline, run.name))
        return run.work()

    run = among_others(do)
    [(config, output, identity, pipeline, name)] = seen
    assert config == run.config and config.team.units == 7 and (pipeline, name) == ("team", "a")
    assert output == "01_team.partial" and identity
    assert json.loads((run.folder_of("01_team") / "result.json").read_text())["squares"] == [0, 1, 4, 9, 16]
    assert "process 0 works" in among_others.said and "Grüße" in among_others.said
    assert {"choice": ["team.size", 1, "there are so many"]} in among_others.events
    assert {"problem": ["ä", "is no\nb"]} in among_others.events
    shown = [event for event in among_others.events if "progress" in event]
    assert shown[0]["progress"] == {"title": "work", "total": 7, "done": 2, "unit": "steps"}
    assert shown[-1]["progress"]["done"] == 7 and shown[-1]["values"] == {"loss": 0.5}


def test_what_it_chooses_and_leaves_aside_stands_in_no_report_of_its_own(among_others):
    def do(run):
        assert run.choose("a", 3, "it is so") == 3
        run.problem("b", "is broken")
        (run.output / "result.json").write_text("{}")

    run = among_others(do)
    assert among_others.events == [{"choice": ["a", 3, "it is so"]}, {"problem": ["b", "is broken"]}]
    report = json.loads((run.path / "report.json").read_text())
    assert report["choices"] == [] and report["problems"] == []


def test_another_than_the_first_tells_nobody_and_says_it_to_its_log(among_others):
    def do(run):
        assert run.choose("a", 3, "it is so") == 3
        run.problem("b", "is broken")
        with run.progress(4, "work") as progress:
            progress.update(4, loss=1.0)
        (run.output / "result.json").write_text("{}")

    among_others(do, first=False)
    assert among_others.events == [] and "  choice: a = 3, because it is so" in among_others.said
    assert any("b" in line and "is broken" in line for line in among_others.said)


def test_it_is_asked_to_stop_from_outside_alone(among_others):
    def do(run):
        run.stop_requested = "SIGINT"
        assert run.stop_requested == ""
        among_others.asked.append("SIGTERM")
        assert run.stop_requested == "SIGTERM" and "SIGTERM" in str(run.stopped())
        (run.output / "result.json").write_text("{}")

    among_others(do)


def test_a_loop_that_broke_does_not_read_its_values():
    told = []
    with pytest.raises(ZeroDivisionError), TellingProgress(9, "x", done=0, unit="steps", tell=told.append) as progress:
        progress.update(loss=object())  # a tensor of a device that is gone
        raise ZeroDivisionError
    assert told[-1]["values"] == {} and told[-1]["progress"]["done"] == 1


def test_events_are_whole_lines_and_rare():
    out = io.StringIO()
    with TellingProgress(1000, "train", done=5, unit="steps", tell=worker._teller(out)) as progress:
        for _ in range(995):
            progress.update(loss=0.5, best_der=float("inf"), note="x\ny")
        progress.total = 1000
    lines = out.getvalue().split("\n")
    assert all(line.startswith(MARK) for line in lines[:-1]) and 3 <= len(lines) <= 5 and lines[-1] == ""
    events = [json.loads(line.removeprefix(MARK)) for line in lines[:-1]]
    assert events[0]["progress"] == {"title": "train", "total": 1000, "done": 5, "unit": "steps"}
    assert events[-1]["progress"]["done"] == 1000
    assert events[-1]["values"] == {"loss": 0.5, "best_der": float("inf"), "note": "x\ny"}
