"""The parts of training that know of other processes, one at a time; test_two_processes has them all together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from colabkit.core.distributed.ranks import Ranks, StartAgainError
from colabkit.pipelines.diarization.config import ModelConfig, TrainConfig
from colabkit.pipelines.diarization.data import Batch, TrainingBatches
from colabkit.pipelines.diarization.losses import DiarizationLoss
from colabkit.pipelines.diarization.model import ENCODER_TYPES
from colabkit.pipelines.diarization.train import accumulate_gradients, build_model, choose_micro_batch, seed_of

MODEL = ModelConfig(num_speakers=2, hidden_size=16, num_blocks=1, num_attention_layers=1, embedding_size=8)


@pytest.fixture
def parts_of(make_simulator):
    """Return a function that gives every rank's part of one batch."""
    def make(batch_windows, world):
        simulator = make_simulator(window_seconds=2.0)
        return [TrainingBatches(simulator, None, real_fraction=0.0, batch_windows=batch_windows, seed=0, rank=rank,
                                world=world).batch(3) for rank in range(world)]
    return make


@pytest.mark.parametrize("batch_windows, world", [(4, 1), (4, 2), (5, 2), (7, 3), (3, 3)])
def test_every_window_counts_once_and_all_ranks_have_as_many(parts_of, batch_windows, world):
    [whole] = parts_of(batch_windows, 1)
    parts = parts_of(batch_windows, world)
    assert {len(part.wave) for part in parts} == {-(-batch_windows // world)}
    counted = [(part.wave[i].numpy().tobytes(), int(part.scored[i].sum())) for part in parts for i in range(len(part.wave))]
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
    """Processes wait for each other's gradient of every parameter: one that gets none would stop them."""
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


class TwoOfThem:
    """What accumulate_gradients uses of an Accelerator, in a process that has another beside it."""

    num_processes, device = 2, torch.device("cpu")

    def reduce(self, value, how):
        return value

    def unwrap_model(self, model):
        return model


def test_memory_that_runs_out_starts_all_again_with_half(parts_of, run):
    """The others wait in the middle of their forward pass: this process cannot just try again."""
    model, batch = build_model(MODEL), parts_of(8, 2)[0]
    loss_of = DiarizationLoss(model.powerset, 8, 8, 0.2)
    accelerator = TwoOfThem()
    accelerator.autocast = accelerator.no_sync = lambda *module: torch.enable_grad()

    def refuse(module, inputs):
        raise torch.OutOfMemoryError("CUDA out of memory")
    model.register_forward_pre_hook(refuse)
    ranks = Ranks(0, 1)
    ranks.world, ranks.from_first = 2, lambda make: make()
    config = TrainConfig(batch_windows=8)
    assert choose_micro_batch(config, ranks, run) == 4
    for left in (2, 1):
        with pytest.raises(StartAgainError) as caught:
            accumulate_gradients(model, loss_of, batch, 2 * left, accelerator, run)
        assert f"{2 * left} windows" in str(caught.value) and f"{left} at once" in caught.value.fix
        assert choose_micro_batch(config, ranks, run) == left and run.chosen[-1][2] == "memory ran out with twice as many"
    with pytest.raises(torch.OutOfMemoryError):
        accumulate_gradients(model, loss_of, batch, 1, accelerator, run)
    ranks.world = 4
    assert choose_micro_batch(config, ranks, run) == 2, "what two found out says nothing about four"


def test_seeds_differ_between_steps_and_ranks():
    seeds = [seed_of(seed, step, rank) for seed in range(3) for step in range(50) for rank in range(8)]
    assert len(set(seeds)) == len(seeds) and seeds == [seed_of(s, k, r) for s in range(3) for k in range(50) for r in range(8)]
    assert np.asarray(seeds).dtype == np.int64
