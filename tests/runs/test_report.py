"""Tests of colabkit.runs.report: report.json can always be read and says everything; tables for people."""

from __future__ import annotations

import json
import math
import os
import threading

import numpy
import pytest

from colabkit.runs.report import Report


@pytest.fixture
def report(tmp_path):
    return Report(tmp_path / "report.json", heading={"pipeline": "toy", "run": "a"}, say=lambda line: None)


def written(report):
    return json.loads(report.path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_a_report_has_every_part_from_the_first_moment(report):
    report.save()
    assert written(report) == {
        "pipeline": "toy",
        "run": "a",
        "state": "started",
        "metrics": {},
        "steps": [],
        "choices": [],
        "problems": [],
    }


def test_a_choice_is_told_and_written_at_once_and_the_last_one_counts(tmp_path):
    said = []
    report = Report(tmp_path / "report.json", heading={}, say=said.append)
    assert report.choose("batch", 8, "it fits") == 8 and report.choose("batch", 4, "memory ran out") == 4
    assert written(report)["choices"] == [{"name": "batch", "value": 4, "reason": "memory ran out"}]
    assert said == ["  choice: batch = 8, because it fits", "  choice: batch = 4, because memory ran out"]


def test_problems_and_steps_replace_those_of_the_same_name(report):
    report.problem("a.wav", "cut off")
    report.problem("a.wav", "still cut off")
    report.problem("b.wav", "empty")
    report.step("01", "running", "not done yet")
    report.step("01", "run", "not done yet", seconds=3)
    assert [p["reason"] for p in written(report)["problems"]] == ["still cut off", "empty"]
    assert written(report)["steps"] == [{"id": "01", "outcome": "run", "reason": "not done yet", "seconds": 3}]


def test_numbers_that_json_lacks_become_null(report):
    report.adopt({"metrics": {"nan": math.nan, "inf": -math.inf, "numpy": numpy.float32(0.5), "list": [math.nan, 1]}})
    report.choose("x", math.inf, "no bound")
    assert written(report)["metrics"] == {"nan": None, "inf": None, "numpy": 0.5, "list": [None, 1]}
    assert written(report)["choices"][0]["value"] is None


def test_adopt_takes_over_a_record(report):
    report.choose("kept", 1, "mine")
    report.adopt(
        {
            "metrics": {"der": 0.1},
            "choices": [{"name": "old", "value": 2, "reason": "r"}],
            "problems": [{"item": "i", "reason": "r"}],
        }
    )
    report.adopt({"metrics": None})
    report.adopt({})
    report.save()
    data = written(report)
    assert data["metrics"] == {"der": 0.1} and len(data["problems"]) == 1
    assert [c["name"] for c in data["choices"]] == ["kept", "old"]


def test_what_is_chosen_belongs_to_the_step_at_work(report):
    report.choose("first", 1, "r")
    report.begin("02", "not done yet")
    report.choose("second", 2, "r")
    report.problem("x", "r")
    assert [c["name"] for c in report.fresh["choices"]] == ["second"] and len(report.fresh["problems"]) == 1
    assert written(report)["state"] == "running" and written(report)["steps"][0]["outcome"] == "running"


def test_the_file_is_whole_at_every_moment(report, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    report.save()
    stop, seen = threading.Event(), []

    def read():
        while not stop.is_set():
            seen.append(len(written(report)["problems"]))

    reader = threading.Thread(target=read)
    reader.start()
    writers = [
        threading.Thread(target=lambda n=n: [(report.problem(f"{n}.{i}", "r" * 50), report.save()) for i in range(40)])
        for n in range(3)
    ]
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    reader.join()
    assert len(written(report)["problems"]) == 120 and seen == sorted(seen)
