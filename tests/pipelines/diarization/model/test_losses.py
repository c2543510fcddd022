"""The loss: blind to the order of speakers and to unscored frames, and a sum over the parts of a batch."""

from __future__ import annotations

from math import exp, log, sqrt

import pytest
import torch

from colabkit.pipelines.diarization.model.losses import MARGIN, SCALE, SHORTEST_SOLO_FRAMES, DiarizationLoss
from colabkit.pipelines.diarization.model.powerset import Powerset
from colabkit.pipelines.diarization.train.batches import Batch

NUM_FRAMES, NUM_SPEAKERS, EMBEDDING, NUM_TRAINING = 120, 3, 6, 7


@pytest.fixture
def loss_of():
    torch.manual_seed(0)
    return DiarizationLoss(Powerset(NUM_SPEAKERS, 2), NUM_TRAINING, EMBEDDING, 0.2)


@pytest.fixture
def batch():
    """Four windows; turns of 40 frames with some overlap, speakers of the training set or unknown ones."""
    active = torch.zeros(4, NUM_FRAMES, NUM_SPEAKERS, dtype=torch.bool)
    for b in range(4):
        for s in range(NUM_SPEAKERS):
            active[b, 40 * s : 40 * s + 40 + 5 * b, (s + b) % NUM_SPEAKERS] = True
    active[3, :, 2] = False
    ids = torch.tensor([[0, 1, 2], [3, 4, 5], [-1, -1, -1], [6, 2, -1]])
    return Batch(torch.zeros(4, NUM_FRAMES * 320), active, ids, torch.ones(4, NUM_FRAMES, dtype=torch.bool))


@pytest.fixture
def outputs():
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(4, NUM_FRAMES, 7, generator=generator),
        torch.randn(4, NUM_FRAMES, EMBEDDING, generator=generator),
    )


def test_naming_the_target_speakers_otherwise_changes_nothing(loss_of, batch, outputs):
    renamed = Batch(batch.wave, batch.active[..., [2, 0, 1]], batch.speaker_ids[:, [2, 0, 1]], batch.scored)
    (loss, pieces), (other, other_pieces) = (loss_of(*outputs, b, loss_of.counts(b)) for b in (batch, renamed))
    torch.testing.assert_close(loss, other)
    torch.testing.assert_close(torch.stack(pieces), torch.stack(other_pieces))


def test_unscored_frames_do_not_count(loss_of, batch, outputs):
    batch.scored[:, 50:70] = False
    before = loss_of(*outputs, batch, loss_of.counts(batch))[1][0]
    outputs[0][:, 50:70] = 100 * torch.randn(4, 20, 7)
    torch.testing.assert_close(loss_of(*outputs, batch, loss_of.counts(batch))[1][0], before)
    assert loss_of.counts(batch)[0] == 4 * (NUM_FRAMES - 20)


def test_frame_loss_is_the_mean_of_the_scored_frames(loss_of, batch):
    """Even logits cost log(classes) in every frame, however many are scored."""
    batch.scored[1:] = False
    frame_loss = loss_of(
        torch.zeros(4, NUM_FRAMES, 7), torch.ones(4, NUM_FRAMES, EMBEDDING), batch, loss_of.counts(batch)
    )[1][0]
    assert frame_loss.item() == pytest.approx(log(7), rel=1e-5)


def test_speaker_loss_equals_the_formula_in_plain_python(loss_of, batch, outputs):
    directions = loss_of.directions_NE.tolist()
    total, count = 0.0, 0
    for b in range(4):
        for s in range(NUM_SPEAKERS):
            alone = [
                f for f in range(NUM_FRAMES) if batch.active[b, f].tolist() == [t == s for t in range(NUM_SPEAKERS)]
            ]
            target = int(batch.speaker_ids[b, s])
            if target < 0 or len(alone) < SHORTEST_SOLO_FRAMES:
                continue
            mean = [sum(outputs[1][b, f, e].item() for f in alone) for e in range(EMBEDDING)]
            cosines = [sum(x * y for x, y in zip(mean, d, strict=True)) / (norm(mean) * norm(d)) for d in directions]
            scores = [SCALE * (c - MARGIN * (n == target)) for n, c in enumerate(cosines)]
            total += log(sum(exp(v) for v in scores)) - scores[target]
            count += 1
    assert count == loss_of.counts(batch)[1].item() > 5
    speaker_loss = loss_of(*outputs, batch, loss_of.counts(batch))[1][1]
    assert speaker_loss.item() == pytest.approx(total / count, rel=1e-4)


def norm(vector):
    return sqrt(sum(v * v for v in vector))


def test_who_hardly_talks_alone_teaches_nothing(loss_of, batch):
    batch.active[:] = False
    batch.active[0, : SHORTEST_SOLO_FRAMES - 1, 0] = True
    assert loss_of.counts(batch)[1] == 0
    batch.active[0, SHORTEST_SOLO_FRAMES - 1, 0] = True
    assert loss_of.counts(batch)[1] == 1
    batch.active[0, 0, 1] = True  # no longer alone there
    assert loss_of.counts(batch)[1] == 0


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_parts_of_a_batch_add_up_to_the_whole(loss_of, batch, outputs, size):
    logits, embeddings = (o.requires_grad_() for o in outputs)
    batch.scored[2, 30:] = False
    counts = loss_of.counts(batch)

    def gradients(parts):
        total = sum(loss_of(logits[a:b], embeddings[a:b], batch.part(a, b), counts)[0] for a, b in parts)
        return total, torch.autograd.grad(total, [logits, embeddings, loss_of.directions_NE])

    whole, whole_gradients = gradients([(0, 4)])
    summed, summed_gradients = gradients([(a, a + size) for a in range(0, 4, size)])
    torch.testing.assert_close(summed, whole)
    for ours, theirs in zip(summed_gradients, whole_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_a_batch_without_anything_to_learn_costs_nothing(loss_of, batch, outputs):
    batch.scored[:] = False
    batch.speaker_ids[:] = -1
    loss, _ = loss_of(*(o.requires_grad_() for o in outputs), batch, loss_of.counts(batch))
    loss.backward()
    assert loss.item() == 0 and torch.isfinite(outputs[0].grad).all()
