"""Training in processes of its own: killed at any moment it gives the same bytes; two processes give what one gives."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.pipelines.asr.train.train_alone import SETTINGS

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).with_name("train_alone.py")
PATIENCE_SECONDS = 120.0


def begin(folder, places, *settings, **env):
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(folder), str(places), *settings],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"} | env,
    )


def finish(*processes):
    told = [process.communicate(timeout=PATIENCE_SECONDS)[0] for process in processes]
    assert all(process.returncode == 0 for process in processes), "\n".join(told)
    return told


def steps_in(places):
    """Return {step: [the samples of each time it was done]}."""
    found = {}
    for line in places.read_text().splitlines():
        step, _, sample = map(int, line.split())
        found.setdefault(step, []).append(sample)
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(begin(folder, folder / "places"))
    return folder


def result(folder):
    return [(folder / name).read_bytes() for name in ("model/model.safetensors", "history.jsonl")]


def kill_at(process, places, step):
    """Kill a process with SIGKILL when it does a step."""
    end = time.monotonic() + PATIENCE_SECONDS
    while process.poll() is None and not (places.exists() and f"\n{step} " in "\n" + places.read_text()):
        assert time.monotonic() < end, "the step did not come"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_killed_at_any_moment_it_gives_the_same_bytes_and_reads_no_other_sample(undisturbed, tmp_path):
    places, whole = tmp_path / "places", steps_in(undisturbed / "places")
    for step in (5, 14):
        kill_at(begin(tmp_path / "run", places), places, step)
    finish(begin(tmp_path / "run", places))
    assert result(tmp_path / "run") == result(undisturbed)
    again = steps_in(places)
    assert set(again) == set(range(SETTINGS["steps"]))
    for step, samples in again.items():
        assert (
            len(samples) % len(whole[step]) == 0
            and samples[: len(whole[step])] == samples[-len(whole[step]) :] == whole[step]
        )
    assert any(len(samples) > len(whole[step]) for step, samples in again.items())


def test_steps_said_in_seconds_are_killed_and_continued_as_well(tmp_path):
    settings, places = ("effective_batch=none", "effective_seconds=9", "steps=12"), tmp_path / "places"
    finish(begin(tmp_path / "whole", tmp_path / "undisturbed", *settings))
    kill_at(begin(tmp_path / "run", places, *settings), places, 7)
    finish(begin(tmp_path / "run", places, *settings))
    assert result(tmp_path / "run") == result(tmp_path / "whole")
    whole, again = steps_in(tmp_path / "undisturbed"), steps_in(places)
    assert len({len(samples) for samples in whole.values()}) > 1, "steps have as many samples as go in"
    assert all(samples[-len(whole[step]) :] == whole[step] for step, samples in again.items())


def two(folder, places, *settings):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [begin(folder, places, *settings, RANK=str(rank), LOCAL_RANK=str(rank), **shared) for rank in range(2)]


def test_two_processes_give_what_one_gives(tmp_path):
    """Without dropout, which each draws for itself.

    Steps have 6 samples, the last of an epoch 1: one process has none then.
    """
    settings = ("still=yes", "steps=9", "checkpoint_every_steps=4")
    finish(begin(tmp_path / "one", tmp_path / "places-1", *settings))
    finish(*two(tmp_path / "two", tmp_path / "places-2", *settings, "at_once=2"))
    ones, twos = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("one", "two"))
    # A key's bias has no effect, and no gradient but noise, which Adam makes as large as any.
    names = [name for name in ones if not name.endswith("linear_k.bias")]
    differences = {name: float((twos[name] - ones[name]).abs().max()) for name in names}
    assert max(differences.values()) < 1e-4, differences
    first, second = (steps_in(tmp_path / f"places-{i}") for i in (1, 2))
    assert {step: sorted(samples) for step, samples in second.items()} == {
        s: sorted(samples) for s, samples in first.items()
    }


def test_two_processes_share_steps_said_in_seconds(tmp_path):
    """Unequal steps, in unequal parts on each: the loss is that of the whole step."""
    settings = ("still=yes", "steps=9", "effective_batch=none", "effective_seconds=9")
    finish(begin(tmp_path / "one", tmp_path / "places-1", *settings))
    finish(*two(tmp_path / "two", tmp_path / "places-2", *settings, "at_once=2"))
    ones, twos = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("one", "two"))
    names = [name for name in ones if not name.endswith("linear_k.bias")]
    assert max(float((twos[name] - ones[name]).abs().max()) for name in names) < 1e-4
    first, second = (steps_in(tmp_path / f"places-{i}") for i in (1, 2))
    assert {step: sorted(samples) for step, samples in second.items()} == {s: sorted(n) for s, n in first.items()}


def test_two_processes_go_on_where_one_stood(tmp_path):
    """A checkpoint knows nothing of how many processes there are; what one began, two finish."""
    settings, places = ("still=yes", "steps=9"), tmp_path / "places"
    kill_at(begin(tmp_path / "run", places, *settings), places, 6)
    told = finish(*two(tmp_path / "run", tmp_path / "more", *settings))
    assert "'train_steps': 9" in told[0]
    done, more = steps_in(places), steps_in(tmp_path / "more")
    assert min(more) in (3, 6) and max(more) == 8
    for step in set(done) & set(more):
        assert sorted(more[step]) == sorted(set(done[step]))
