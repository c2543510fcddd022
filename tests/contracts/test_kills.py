"""Killed anywhere and started again, a run makes what an undisturbed run makes, to the last bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.contracts.conftest import ROOT
from tests.contracts.killing import Campaign, differences, event_of_step, is_boundary, results

FEW_RANDOM_KILLS, MANY_RANDOM_KILLS = 3, 12


def test_forked_children_make_what_the_command_makes(bench):
    assert bench.plain.code == 0, bench.plain.text
    assert differences(bench.expected, results(bench.folder("plain"))) == []
    assert len(bench.expected) > 2 * len(bench.pipeline.steps)


@pytest.mark.slow
def test_killed_at_every_boundary_and_at_random(bench):
    boundaries = [e for e in bench.events if is_boundary(e)]
    made = {path for _, path in boundaries}
    for step in bench.pipeline.steps:  # the list of events must hold what is to be tested
        assert {f"{step.id}.partial", f"{step.id}.partial/STARTED.json", step.id, f"ledger/{step.id}.json"} <= made
    commits = [p for p in made if "/checkpoints/" in p and p.endswith("COMMIT.json")]
    trained = {p.partition(".partial/")[0] for p in commits}  # a step may also resume by the files it wrote so far
    trains = (ROOT / "colabkit" / "pipelines" / bench.pipeline.name / "workload.py").is_file()
    assert bool(trained) == trains and len(commits) >= 3 * len(trained)
    assert trained <= {step.id for step in bench.pipeline.steps if step.resumes}
    campaign = campaign_in(bench, "boundaries")
    campaign.at_events(boundaries)
    at_boundaries = campaign.tally.kills
    campaign.at_random(at_boundaries + FEW_RANDOM_KILLS)
    tally = campaign.finish()
    print(tally)
    assert tally.differences == []
    assert at_boundaries >= 4 * 2 * len(bench.pipeline.steps)
    assert tally.kills >= 30 and tally.runs >= 2
    # Removals of old checkpoints and the like may fall away in a run that was killed before; step boundaries may not.
    assert [u for u in tally.unreached if "checkpoints" not in u[1][1]] == []


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_killed_at_many_random_instants(bench):
    campaign = campaign_in(bench, "random")
    campaign.at_random(MANY_RANDOM_KILLS, seed=1)
    tally = campaign.finish()
    print(tally)
    assert tally.differences == [] and tally.kills >= MANY_RANDOM_KILLS and tally.runs >= 1


def campaign_in(bench, name: str) -> Campaign:
    return Campaign(
        bench.server, bench.state.parent / name, bench.settings, bench.expected, most_seconds=bench.first.seconds
    )


def test_comparison_sees_one_changed_bit(bench, tmp_path):
    for damage in (_flip_metric, _flip_weight, _lose_file, _leave_partial):
        copy = tmp_path / damage.__name__
        shutil.copytree(bench.finished, copy)
        assert differences(bench.expected, results(copy)) == []
        damage(copy)
        try:
            found = differences(bench.expected, results(copy))
        except (AssertionError, OSError) as error:
            found = [str(error)]
        assert found, f"{damage.__name__} went unseen"


def _flip_metric(folder: Path) -> None:
    report = json.loads((folder / "report.json").read_text())
    name = next(n for n, v in report["metrics"].items() if isinstance(v, float) and v)
    report["metrics"][name] *= 1 + 2**-50
    (folder / "report.json").write_text(json.dumps(report))


def _flip_weight(folder: Path) -> None:
    record = json.loads(sorted((folder / "ledger").glob("*.json"))[-1].read_text())
    path = folder / record["step"] / next(iter(record["outputs"]))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _lose_file(folder: Path) -> None:
    record = json.loads(sorted((folder / "ledger").glob("*.json"))[0].read_text())
    (folder / record["step"] / next(iter(record["outputs"]))).unlink()


def _leave_partial(folder: Path) -> None:
    (folder / "09_other.partial").mkdir()


@pytest.mark.slow
def test_sigterm_stops_in_good_order_and_continues(bench):
    for step in bench.pipeline.steps:
        for event in event_of_step(step, bench.events):
            ended = bench.run("terminated", signal="SIGTERM", event=event, moment="before")
            assert ended.code == 75, (event, ended.code, ended.text[-1500:])
            assert "run the same command" in ended.text and "Traceback" not in ended.text, ended.text[-1500:]
            report = json.loads((bench.folder("terminated") / "report.json").read_text())
            assert report["state"] == "stopped", event
            assert [s["outcome"] for s in report["steps"] if s["id"] == step.id] == ["stopped"], event
    ended = bench.run("terminated")
    assert ended.code == 0, ended.text
    assert differences(bench.expected, results(bench.folder("terminated"))) == []


def test_the_signal_is_sent_at_the_event(bench):
    """The machinery itself: killed before the first step's record there is none, after it there is one."""
    record = f"ledger/{bench.pipeline.steps[0].id}.json"
    for moment, there in (("before", False), ("after", True)):
        ended = bench.run(moment, event=("rename", record), moment=moment)
        assert (ended.code, (bench.folder(moment) / record).exists()) == (-9, there)
