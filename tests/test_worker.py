"""What --print-launch prints, and what goes between the processes of a step."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from colabkit.cli import main
from colabkit.core.config import build, to_dict
from colabkit.pipelines import find


@pytest.fixture
def printed(capsys, monkeypatch, tmp_path):
    """Return a function that prints a launch command; returns it in words, after the comments."""
    monkeypatch.delenv("COLABKIT_STATE", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    def launch(*options: str) -> list[str]:
        assert main(["run", "diarization", "--print-launch", *options]) == 0
        *comments, line = capsys.readouterr().out.splitlines()
        assert all(comment.startswith("# ") for comment in comments)
        return shlex.split(line)

    return launch


def test_the_command_for_two_machines(printed, tmp_path):
    words = printed(
        "--nodes",
        "2",
        "--state",
        str(tmp_path / "a b"),
        "--processes",
        "4",
        "--set",
        "train.steps=9",
        "--run",
        "x",
        "--endpoint",
        "one:1234",
        "--preset",
        "quick",
        "--from",
        "01",
        "--to",
        "02",
    )
    assert words[: words.index("-m")] == [
        "env",
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1",
        "torchrun",
        "--max-restarts",
        "3",
        "--nproc-per-node",
        "4",
        "--nnodes",
        "2",
        "--rdzv-backend",
        "c10d",
        "--rdzv-endpoint",
        "one:1234",
        "--rdzv-id",
        "diarization-x",
    ]
    assert words[words.index("-m") :] == [
        "-m",
        "colabkit",
        "run",
        "diarization",
        "--state",
        str(tmp_path / "a b"),
        "--preset",
        "quick",
        "--run",
        "x",
        "--from",
        "01",
        "--to",
        "02",
        "--set",
        "train.steps=9",
    ]
    assert not (tmp_path / "a b").exists(), "it starts nothing"


def test_the_command_for_one_machine(printed):
    words = printed("--redo", "02")
    assert "--standalone" in words and "--nnodes" not in words and words[6] == "gpu", "as many as there are, there"
    assert words[words.index("--max-restarts") + 1] == "0", "a restart would make the step anew again"


def test_this_machine_is_where_they_meet(printed, tmp_path):
    assert f"{socket.gethostname()}:29400" in printed("--nodes", "3", "--state", str(tmp_path))


@pytest.mark.parametrize(
    "options, words",
    [
        (["--nodes", "2"], ["share", "--state"]),
        (["--nodes", "0"], ["--nodes 2"]),
        (["--set", "train.step=1"], ["train.step", "did you mean"]),
        (["--processes", "-1"], ["train.processes: got -1"]),
    ],
)
def test_wrong_use_is_told_before_anything_starts(capsys, monkeypatch, options, words):
    monkeypatch.delenv("COLABKIT_STATE", raising=False)
    assert main(["run", "diarization", "--print-launch", *options]) == 2
    text = capsys.readouterr().err
    assert all(word in text for word in words), text


def test_settings_survive_the_way_to_another_process():
    pipeline = find("diarization")
    for preset in pipeline.presets.values():
        config = preset()
        assert build(pipeline.config_type, json.loads(json.dumps(to_dict(config)))) == config


def test_the_worker_is_imported_without_torch():
    code = (
        "import sys, colabkit.worker, colabkit.training.processes.ranks; "
        "assert not {'torch', 'accelerate', 'IPython'} & set(sys.modules)"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1], env=os.environ | {"PYTHONPATH": ""}
    )
