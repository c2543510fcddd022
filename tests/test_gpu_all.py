"""benchmarks/gpu_all.py holds together without a GPU: arguments, a dry run of the sizing part, and parts that fail."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import gpu_all, gpu_sizing


def test_without_a_gpu_nothing_is_measured(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_all.main(["--output", str(tmp_path / "x.json")]) == 0
    assert "nothing measured" in capsys.readouterr().out and not (tmp_path / "x.json").exists()


def test_a_dry_run_gives_every_figure_of_the_sizing_part(tmp_path, capsys):
    assert gpu_all.main(["--dry", "--output", str(tmp_path / "gpu.json")]) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())["sizing of a small model"]
    assert found["probes"] <= 6 and len(found["probed"]) == len(found["predicted"]) == found["probes"]
    assert len(found["fill_of_limit"]) == 3 and all(0.2 < fill < 1.05 for fill in found["fill_of_limit"])
    assert set(found["audio_per_second"]) > {"chosen", "one at a time"}
    assert capsys.readouterr().out.splitlines()[-1].startswith("ratio: ")


def test_a_part_that_fails_does_not_lose_the_others(tmp_path, capsys):
    def broken():
        raise ZeroDivisionError("no")

    found = gpu_all.carry_out({"first": broken, "second": lambda: {"x": 1}}, tmp_path / "gpu.json", {"gpu": "none"})
    assert found["first"] == "failed: ZeroDivisionError: no" and found["second"] == {"x": 1}
    assert json.loads((tmp_path / "gpu.json").read_text()) == found
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_parts_that_would_begin_too_late_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_all, "MOST_SECONDS", -1.0)
    assert gpu_all.carry_out({"late": lambda: 1}, tmp_path / "gpu.json", {})["late"].startswith("left out")


def test_arguments(capsys):
    with pytest.raises(SystemExit):
        gpu_all.main(["--dry", "--only", "sizing of nothing"])
    assert "there are sizing of a small model" in capsys.readouterr().err


def test_the_ratio_is_the_least_of_the_models():
    figures = {
        "gpu": "x",
        "a": {"audio_per_second": {"chosen": 300.0, "rule of thumb, 4": 100.0}},
        "b": {"audio_per_second": {"chosen": 300.0, "rule of thumb, 4": 200.0}},
        "c": "failed: x",
        "d": {"audio_per_second": {"chosen": 300.0, "rule of thumb, 4": "out of memory"}},
    }
    assert gpu_all.ratio_line(figures).startswith("ratio: 1.50x") and "(b, the least of 2)" in gpu_all.ratio_line(
        figures
    )
    assert gpu_all.ratio_line({}) == "ratio: not measured"


def test_the_parts_of_a_real_run_are_those_of_the_models():
    assert list(gpu_sizing.parts()) == ["prediction", *(f"sizing of {name}" for name in gpu_sizing.MODELS)]
