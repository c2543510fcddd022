"""The step that is sized is the step that is trained, for each kind of encoder."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from colabkit.pipelines.diarization.config import Config, ModelConfig, demo
from colabkit.pipelines.diarization.model.losses import DiarizationLoss
from colabkit.pipelines.diarization.train.batches import Batch
from colabkit.pipelines.diarization.train.loop import build_model
from colabkit.pipelines.diarization.workload import request, workload
from colabkit.training.sizing.tracing.accounting import Meter
from colabkit.training.sizing.workload import Regime


def metered(parameters, step) -> int:
    meter = Meter()
    meter.hold(parameters)
    with meter:
        step()
    return meter.peak_bytes - sum(p.nbytes for p in parameters)


@pytest.mark.parametrize("encoder, freeze", [("lightweight-cnn", False), ("hubert", False), ("wav2vec2", True)])
def test_the_sized_step_takes_what_the_trained_step_takes(encoder, freeze):
    config = Config(model=replace(demo().model, encoder_type=encoder, freeze_encoder=freeze))
    work = workload(config, num_training_speakers=50)
    sized = work.build(None, False)
    held = metered(list(sized.parameters()), lambda: work.loss(sized, work.batch(6, 4.0)).backward())
    model = build_model(config.model).train()
    loss = DiarizationLoss(model.powerset, 50, config.model.embedding_size, config.train.embedding_weight)
    trained = nn.ModuleList([model, loss])
    frames, speakers = 200, config.model.num_speakers

    def step() -> None:
        active = torch.zeros(6, frames, speakers, dtype=torch.bool)
        for speaker in range(speakers):
            active[:, 60 * speaker : 60 * speaker + 50, speaker] = True
        batch = Batch(
            torch.randn(6, 64_000) * 0.1,
            active,
            torch.randint(0, 50, (6, speakers)),
            torch.ones(6, frames, dtype=torch.bool),
        )
        loss(*model(batch.wave), batch, loss.counts(batch))[0].backward()

    assert held == pytest.approx(metered(list(trained.parameters()), step), rel=0.03)
    assert [p.shape for p in sized.parameters() if p.requires_grad] == [
        p.shape for p in trained.parameters() if p.requires_grad
    ]


def test_depth_of_a_pretrained_encoder_follows():
    work = workload(
        Config(model=ModelConfig(encoder_type="hubert", encoder_name="facebook/hubert-base-ls960")), offline=True
    )
    assert work.num_layers == 12
    with torch.device("meta"):
        assert len(work.layers(work.build(3, False))) == 3 and len(work.layers(work.build(None, False))) == 12


def test_the_request_is_what_the_settings_say():
    asked = request(demo())
    assert asked.lengths == (12.0,) and asked.typical_seconds == 12.0 and asked.effective_batch == 8
    assert asked.ema and asked.checkpointing == "no" and asked.precision == "auto"
    assert not asked.lighter()
    heavy = Config(model=ModelConfig(encoder_type="wavlm", encoder_name="microsoft/wavlm-large"))
    assert list(request(heavy).lighter()) == ["the encoder frozen (--set model.freeze_encoder=True)"]
    fixed = replace(demo(), train=replace(demo().train, mixed_precision="no"))
    assert request(fixed).precision == "fp32"


def test_its_memory_can_be_predicted():
    from colabkit.training.sizing.predict import predict

    work = workload(demo())
    model = predict(work, Regime(precision="bf16", ema=True), shortest_seconds=8.0, longest_seconds=8.0)
    assert 0 < model.state_bytes < model.peak_bytes(1, 8.0) < model.peak_bytes(12, 8.0)
