"""Run twice, changed settings, two at once: what every pipeline's runs hold to."""

from __future__ import annotations

import json
import os
import signal
import time

from colabkit.core.config import flat, identity_settings
from colabkit.pipelines import discover
from tests.contracts.conftest import ROOT
from tests.contracts.killing import command, differences, results, tree
from tests.contracts.small import NAMED, changes_of, small_config

SECONDS_TO_SKIP = 5.0  # of a whole process, imports included
_PASSING = ("report.json", ".lock")  # who runs now and what it says; no result


def test_every_pipeline_is_found():
    folders = sorted(p.parent.name for p in (ROOT / "colabkit" / "pipelines").glob("*/recipe.py"))
    assert [p.name for p in discover()] == folders and len(folders) >= 1
    assert set(NAMED) <= set(folders), "a small.py is of a pipeline that there is not"


def test_steps_are_declared_in_order(bench):
    seen: list[str] = []
    for number, step in enumerate(bench.pipeline.steps, 1):
        assert step.id.startswith(f"{number:02d}_") and step.title and step.writes
        assert set(step.reads) <= set(seen), f"{step.id} reads a step that comes later"
        seen.append(step.id)


def test_first_run_carries_out_every_step(bench):
    report = json.loads((bench.finished / "report.json").read_text())
    assert [(s["id"], s["outcome"]) for s in report["steps"]] == [(s.id, "run") for s in bench.pipeline.steps]
    assert report["metrics"] and bench.first.text.count("run: not done yet") == len(bench.pipeline.steps)


def test_second_run_writes_nothing_at_all_and_says_why(bench):
    before = tree(bench.state)
    began = time.monotonic()
    again = command(bench.line("finished"))
    seconds = time.monotonic() - began
    assert again.code == 0, again.text
    for step in bench.pipeline.steps:
        assert f"{step.id}  skip: done " in again.text
    assert tree(bench.state) == before
    assert differences(bench.expected, results(bench.finished)) == []
    assert seconds < SECONDS_TO_SKIP, f"skipping everything took {seconds:.1f} s"


def test_changed_setting_stops_and_changes_nothing(bench):
    changes = changes_of(bench.pipeline)
    sections = {name for step in bench.pipeline.steps for name in step.uses}
    assert len(changes) >= 1 and {name.partition(".")[0] for name, _, _ in changes} <= sections
    before = _results_tree(bench.finished)
    for name, was, now in changes:
        user = next(s for s in bench.pipeline.steps if name.partition(".")[0] in s.uses)
        ended = bench.run("finished", "--set", f"{name}={now}")
        assert ended.code == 1, (name, ended.text)
        assert f"Stopped before {user.id}" in ended.text and f"{name}={was!r}, now {now!r}" in ended.text
        assert f"--redo {user.id}" in ended.text and "Traceback" not in ended.text
        assert json.loads((bench.finished / "report.json").read_text())["state"] == "stopped"
        assert _results_tree(bench.finished) == before, name
    ended = bench.run("finished")
    assert ended.code == 0 and ended.text.count("  skip: ") == len(bench.pipeline.steps)


def test_setting_that_keeps_the_result_is_no_change(bench):
    config = small_config(bench.pipeline)
    counted = {
        name for section in config.__slots__ for name in identity_settings(getattr(config, section), f"{section}.")
    }
    for name, value in flat(config).items():
        if name not in counted and isinstance(value, int) and not isinstance(value, bool):
            ended = bench.run("finished", "--set", f"{name}={value + 1}")
            assert ended.code == 0 and ended.text.count("  skip: ") == len(bench.pipeline.steps), (name, ended.text)


def test_two_processes_at_once_make_one_clear_error(bench):
    first = bench.pipeline.steps[0].id
    started, folder = f"{first}.partial/STARTED.json", bench.folder("contested")
    bench.server.begin(bench.line("contested"), folder, event=("rename", started), moment="after", signal="SIGSTOP")
    try:
        deadline = time.monotonic() + 60
        while not (folder / started).exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        second = command(bench.line("contested"), timeout=60)
    finally:
        os.kill(bench.server.pid, signal.SIGKILL)  # stopped, so still there
        ended = bench.server.end()
    assert second.code == 1
    assert "another process is using it" in second.text and f"process {bench.server.pid} " in second.text
    assert second.text.count("fix:") == 1 and "Traceback" not in second.text
    assert ended.code == -signal.SIGKILL
    done = bench.run("contested")
    assert done.code == 0, done.text
    assert differences(bench.expected, results(folder)) == []


def _results_tree(folder):
    return {name: entry for name, entry in tree(folder).items() if name not in _PASSING}
