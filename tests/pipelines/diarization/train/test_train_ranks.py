"""The parts of training that know of other processes, one at a time; test_two_processes has them all together."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from colabkit.pipelines.diarization.config import ModelConfig
from colabkit.pipelines.diarization.model.losses import DiarizationLoss
from colabkit.pipelines.diarization.model.network import ENCODER_TYPES
from colabkit.pipelines.diarization.train.batches import Batch, TrainingBatches
from colabkit.pipelines.diarization.train.loop import build_model
from colabkit.training.checkpoints.checkpoints import Checkpoints
from colabkit.training.sizing.partition import bucket_of

ROOT = Path(__file__).parents[4]
MODEL = ModelConfig(num_speakers=2, hidden_size=16, num_blocks=1, num_attention_layers=1, embedding_size=8)


@pytest.fixture
def parts_of(make_simulator):
    """Return a function that gives every rank's part of one batch."""

    def make(effective_batch, world):
        simulator = make_simulator(window_seconds=2.0)
        return [
            TrainingBatches(
                simulator, None, real_fraction=0.0, effective_batch=effective_batch, seed=0, rank=rank, world=world
            ).batch(3)
            for rank in range(world)
        ]

    return make


@pytest.mark.parametrize("effective_batch, world", [(4, 1), (4, 2), (5, 2), (7, 3), (3, 3)])
def test_every_window_counts_once_and_all_ranks_have_as_many(parts_of, effective_batch, world):
    [whole] = parts_of(effective_batch, 1)
    parts = parts_of(effective_batch, world)
    assert {len(part.wave) for part in parts} == {-(-effective_batch // world)}
    counted = [
        (part.wave[i].numpy().tobytes(), int(part.scored[i].sum())) for part in parts for i in range(len(part.wave))
    ]
    scored = sorted(wave for wave, count in counted if count)
    assert scored == sorted(wave.numpy().tobytes() for wave in whole.wave)
    loss = DiarizationLoss(build_model(MODEL).powerset, 8, 8, 0.2)
    torch.testing.assert_close(sum(loss.counts(part) for part in parts), loss.counts(whole))


def test_a_window_without_weight_has_a_gradient_of_nothing(parts_of):
    model, short = build_model(MODEL), parts_of(3, 2)[1]
    loss_of = DiarizationLoss(model.powerset, 8, 8, 0.2)
    assert not short.scored[1].any() and (short.speaker_ids[1] == -1).all()
    only = short.part(1, 2)
    loss, _ = loss_of(*model(only.wave), only, torch.tensor([10.0, 2.0]))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert all(p.grad is None or not p.grad.any() for p in (*model.parameters(), *loss_of.parameters()))


@pytest.mark.parametrize("encoder_type", ENCODER_TYPES)
def test_every_parameter_gets_a_gradient_from_every_batch(parts_of, encoder_type):
    """One that gets none would be left as it is by a part of the batch, and not by the whole."""
    model = build_model(replace(MODEL, encoder_type=encoder_type))
    loss_of = DiarizationLoss(model.powerset, 8, 8, 0.2)
    for batch in parts_of(2, 2):
        nobody = Batch(batch.wave, batch.active, torch.full_like(batch.speaker_ids, -1), batch.scored)
        for given in (batch, nobody):
            model.zero_grad(set_to_none=True)
            loss_of.zero_grad(set_to_none=True)
            loss_of(*model(given.wave), given, loss_of.counts(given))[0].backward()
            without = [name for module in (model, loss_of) for name, p in module.named_parameters() if p.grad is None]
            assert without == []


# --- memory that runs out in one of two processes ---

SETTINGS = {
    "steps": 6,
    "effective_batch": 8,
    "validate_every_steps": 3,
    "checkpoint_every_steps": 100,
    "warmup_steps": 2,
    "tracker": "none",
    "mixed_precision": "no",
}
PATIENCE_SECONDS = 90.0


def train_in_two(folder, faults):
    """Train in two processes; returns what each chose, and the weights of the last checkpoint."""
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "tests.pipelines.diarization.train.short_of_memory",
        str(folder),
        json.dumps(SETTINGS | {"faults": faults}),
    ]
    env = os.environ | {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    both = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=env | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=PATIENCE_SECONDS)[0] for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [0, 0], said[0][-3000:] + said[1][-3000:]
    told = [json.loads((folder / f"chosen-{rank}.json").read_text()) for rank in range(2)]
    assert told[0]["metrics"]["train_steps"] == SETTINGS["steps"]
    return told, Checkpoints(folder / "checkpoints").load_latest()[1]


@pytest.mark.slow
def test_memory_that_runs_out_in_one_process_is_mended_in_both(tmp_path):
    """In the middle of passes whose batch norms talk to the other process: it goes on at once, and in equal parts."""
    faults = [[1, "forward", 2], [0, "backward", 5]]  # in step 2 of 4 windows a process; in step 3 of two parts
    told, state = train_in_two(tmp_path / "disturbed", faults)
    limits = [[value for name, value, _ in one["chosen"] if name == "limit"] for one in told]
    assert limits == [[3, 1]] * 2
    assert "in process 1" in told[0]["chosen"][-2][2] and "in process 0" in told[1]["chosen"][-1][2]
    assert state["guard"]["limits"] == {str(bucket_of(2.0)): 1}
    counted = {int(value) for name, value in state["model"].items() if name.endswith("num_batches_tracked")}
    assert counted == {1 + 2 + 4 * 4}, "a step of one part, one of two, four of four: what was undone does not count"
    _, again = train_in_two(tmp_path / "again", faults)
    assert all(torch.equal(again["model"][name], tensor) for name, tensor in state["model"].items())
