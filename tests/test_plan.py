"""colabkit plan: the table, what it says where a model does not fit, JSON, bad input; all without a network or GPU."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time

import pytest

from colabkit import cli
from colabkit.core.errors import UsageError
from colabkit.plan import GPUS, notes, plan, table

BASE = "model.name=facebook/wav2vec2-base"


@pytest.fixture(scope="module")
def small():
    return plan("asr", settings=[BASE], say=lambda text: None)


@pytest.fixture(scope="module")
def large():
    return plan(
        "asr", ["T4", "L4", "A100-80"], settings=["model.name=facebook/wav2vec2-xls-r-1b"], say=lambda text: None
    )


def test_a_row_for_each_gpu_in_the_order_asked_for(small):
    assert [row["gpu"] for row in small["rows"]] == list(GPUS)
    assert len(table(small).rows) == len(GPUS)


def test_larger_gpus_take_more_and_all_stay_under_their_limit(small):
    at_once = [row["longest"]["fits"] for row in small["rows"]]
    assert at_once[0] < at_once[3] < at_once[4] < at_once[-1]
    for row in small["rows"]:
        for found in (row["longest"], row["typical"]):
            assert found["predicted_gib"] <= row["limit_gib"] + 0.01
            assert found["at_once"] * found["accumulation"] >= 32 > found["at_once"] * (found["accumulation"] - 1)


def test_precisions_and_comparisons(small):
    rows = {row["gpu"]: row for row in small["rows"]}
    assert rows["T4"]["precision"] == rows["V100-16"]["precision"] == "fp16" and rows["L4"]["precision"] == "bf16"
    assert (
        rows["T4"]["documented"] == "8 x 4"
        and rows["A100-80"]["documented"] == "64 x 1"
        and rows["L4"]["documented"] == ""
    )
    assert rows["H200"]["rule"][0] == 64
    text = str(table(small))
    assert "published tables" in text and "rule of thumb" in text and "30 s: at once x parts" in text


def test_what_does_not_fit_says_what_would_help(large):
    rows = {row["gpu"]: row for row in large["rows"]}
    assert "error" in rows["T4"] and rows["T4"]["needed_gib"] > 0.85 * 14.56
    help = {row["what"]: row for row in rows["T4"]["help"]}
    assert help["8-bit AdamW"]["fits"] and help["8-bit AdamW"]["gib"] < rows["T4"]["needed_gib"] - 4
    assert any("frozen" in what for what in help)
    assert "error" not in rows["L4"] and rows["L4"]["checkpointing"] and rows["L4"]["documented"] == "4 x 8"
    assert not rows["A100-80"]["checkpointing"]
    text = "\n".join(notes(large))
    assert re.search(r"8-bit AdamW: [\d.]+ GiB, [\d.]+ less", text) and "a larger GPU, L4" in text
    assert "does not fit" in str(table(large))


def test_settings_change_the_plan(small):
    careful = plan(
        "asr", ["T4"], settings=[BASE, "sizing.safety_margin=0.7", "sizing.at_once=2"], say=lambda text: None
    )
    row, before = careful["rows"][0], small["rows"][0]
    assert (
        row["limit_gib"] < before["limit_gib"]
        and row["longest"]["at_once"] == 2
        and row["longest"]["accumulation"] == 16
    )


def test_a_precision_that_one_gpu_has_not_is_said_in_its_row_alone():
    found = plan("asr", ["T4", "L4"], settings=[BASE, "sizing.precision=bf16"], say=lambda text: None)
    assert "bfloat16" in found["rows"][0]["error"] and "error" not in found["rows"][1]
    assert "cannot" in str(table(found)) and any("T4" in line and "bfloat16" in line for line in notes(found))


def test_diarization_has_a_plan_with_one_length():
    found = plan("diarization", ["T4"], preset="quick", say=lambda text: None)
    assert found["effective_batch"] == 64 and "typical" in found["rows"][0]
    assert len(table(found).columns) == 6


def test_bad_input():
    with pytest.raises(UsageError, match="No such GPU"):
        plan("asr", ["T44444x"], say=lambda text: None)
    with pytest.raises(UsageError, match="No GPU"):
        plan("asr", [], say=lambda text: None)
    with pytest.raises(UsageError, match="No such pipeline"):
        plan("asrr", say=lambda text: None)
    with pytest.raises(UsageError, match="preset"):
        plan("asr", preset="huge", say=lambda text: None)


def test_the_command_prints_a_table_and_json(capsys):
    assert cli.main(["plan", "diarization", "--preset", "quick", "--gpu", "t4, l4"]) == 0
    text = capsys.readouterr().out
    assert "T4" in text and "L4" in text and "predicted GiB" in text
    assert cli.main(["plan", "diarization", "--preset", "quick", "--gpu", "T4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["gpu"] == "T4"


def test_the_command_fails_in_words(capsys):
    assert cli.main(["plan", "asr", "--gpu", "A1000-40"]) == 2
    assert "did you mean" in capsys.readouterr().err
    assert cli.main(["plan", "asr", "--set", "model.name=facebook/wav2vec2-xls-r-7b", "--gpu", "T4"]) == 1
    assert "did you mean facebook/wav2vec2-xls-r-" in capsys.readouterr().err


def test_a_model_of_a_billion_is_planned_quickly_in_little_memory_without_a_network():
    code = (
        "import socket, sys, resource\n"
        "def no(*a, **k): raise OSError('the network was asked')\n"
        "socket.socket.connect = no; socket.getaddrinfo = no\n"
        "from colabkit import cli\n"
        "done = cli.main(['plan', 'asr', '--set', 'model.name=facebook/wav2vec2-xls-r-1b'])\n"
        "used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]\n"
        "print(done, sum(u.ru_maxrss for u in used) / 2**20, sum(u.ru_utime + u.ru_stime for u in used))"
    )
    env = {name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")}
    began = time.monotonic()
    # Through a shell, which forks it anew: else the memory of this process would be counted as its own (getrusage(2)).
    done = subprocess.run(
        ["sh", "-c", '"$0" -c "$1"; exit $?', sys.executable, code], capture_output=True, text=True, env=env
    )
    took = time.monotonic() - began
    code, gib, cpu_seconds = map(float, done.stdout.splitlines()[-1].split())
    assert code == 0, done.stderr
    assert gib < 2.0  # of each process that predicts; there are as many as cores
    assert cpu_seconds < 60, f"{took:.0f} s of wall clock"
