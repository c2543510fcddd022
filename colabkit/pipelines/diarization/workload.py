"""The training step of the diarization model, piece by piece, to predict its memory before it is built anywhere."""

from __future__ import annotations

import importlib
from dataclasses import asdict, replace
from typing import Any

from colabkit.core.config import digest
from colabkit.io.models.architectures import CONFIG_CLASSES, config_of, hub_id
from colabkit.pipelines.diarization import FRAME_SECONDS, RATE_HZ
from colabkit.pipelines.diarization.config import Config
from colabkit.runs.run import Run
from colabkit.training.processes.ranks import Ranks
from colabkit.training.sizing.devices import GIB, Device, here
from colabkit.training.sizing.real_step import confirm_here
from colabkit.training.sizing.request import Request
from colabkit.training.sizing.workload import Workload

NUM_TRAINING_SPEAKERS = 1000  # where the speech has not been looked at yet
MODEL_CLASSES = {
    "wav2vec2": ("wav2vec2.modeling_wav2vec2", "Wav2Vec2Model"),
    "hubert": ("hubert.modeling_hubert", "HubertModel"),
    "wavlm": ("wavlm.modeling_wavlm", "WavLMModel"),
}
PRECISIONS = {"auto": "auto", "no": "fp32", "fp16": "fp16", "bf16": "bf16"}


def request(config: Config) -> Request:
    """Return what the settings ask of sizing: windows are all of one length."""
    seconds = config.simulate.window_seconds
    frozen = replace(config, model=replace(config.model, freeze_encoder=True))
    can_freeze = config.model.encoder_type != "lightweight-cnn" and not config.model.freeze_encoder
    return Request(
        workload=workload(config, offline=True),
        lengths=(seconds,),
        typical_seconds=seconds,
        effective_batch=config.train.effective_batch,
        precision=PRECISIONS[config.train.mixed_precision],
        checkpointing="no",
        world=max(1, config.train.processes),
        ema=True,
        lighter=lambda: (
            {"the encoder frozen (--set model.freeze_encoder=True)": workload(frozen, offline=True)}
            if can_freeze
            else {}
        ),
    )


def windows_at_once(config: Config, ranks: Ranks, run: Run, device: Device | None = None) -> int:
    """Choose how many windows of a process go through its GPU at once: all of its part of a batch, or as many as fit.

    Predicted, and confirmed by a few real steps; on a CPU all. Raises: DataError where not even one fits.
    """
    seconds, whole = config.simulate.window_seconds, -(-config.train.effective_batch // ranks.world)
    device = device or here()
    if device.kind != "cuda":
        return run.choose("at_once", whole, "a CPU takes a whole batch at once")
    sizing = replace(request(config), world=ranks.world).size(device)
    sizing = confirm_here(sizing, workload(config, offline=True), run.path.parents[1], say=run.say)
    fitting = min(ranks.gather(sizing.capacity(seconds)))
    return run.choose(
        "at_once",
        min(whole, fitting),
        f"{fitting} windows of {seconds:g} s fit into {sizing.limit_bytes / GIB:.1f} GiB of {device.name}",
    )


def workload(config: Config, *, num_training_speakers: int = NUM_TRAINING_SPEAKERS, offline: bool = False) -> Workload:
    """Return the training step of the model that the settings name, which `offline` is not looked for on the Hub.

    Raises: DataError for an encoder whose shape is not known.
    """
    model = config.model
    shape = None
    if model.encoder_type != "lightweight-cnn":
        shape = _shape_of_encoder(model.encoder_type, model.encoder_name, offline)
    num_layers = 1 if shape is None else shape.num_hidden_layers
    name = model.encoder_name and (hub_id(model.encoder_name) or model.encoder_name)

    def build(num_layers_now: int | None, checkpointing: bool) -> Any:
        return _build(config, shape, num_layers if num_layers_now is None else num_layers_now, num_training_speakers)

    settings = [
        asdict(model),
        asdict(config.train)["embedding_weight"],
        num_training_speakers,
        shape and shape.to_diff_dict(),
    ]
    return Workload(
        name=f"diarization with {name or model.encoder_type}",
        identity=f"diarization {digest(settings)[:16]}",
        num_layers=num_layers,
        build=build,
        layers=_layers,
        batch=lambda num_samples, seconds: _batch(num_samples, seconds, model.num_speakers),
        loss=_loss,
    )


def _shape_of_encoder(encoder_type: str, encoder_name: str, offline: bool) -> Any:
    from colabkit.pipelines.diarization.model.pretrained import SMALL, TRAINS_EVERYTHING

    if encoder_name:
        shape = config_of(encoder_name, offline=offline)
    else:
        module, class_name = CONFIG_CLASSES[encoder_type]
        shape = getattr(importlib.import_module(f"transformers.models.{module}"), class_name)(**SMALL)
    for name, value in TRAINS_EVERYTHING.items():
        setattr(shape, name, value)
    return shape


def _build(config: Config, shape: Any, num_layers: int, num_training_speakers: int) -> Any:
    """Return the network and the loss, whose directions are trained too, as one module."""
    import copy

    from torch import nn

    from colabkit.pipelines.diarization.model.losses import DiarizationLoss
    from colabkit.pipelines.diarization.model.pretrained import PretrainedEncoder
    from colabkit.pipelines.diarization.train.loop import build_model

    model = config.model
    network = build_model(replace(model, encoder_type="lightweight-cnn", encoder_name=""))
    if shape is not None:
        shape = copy.deepcopy(shape)
        shape.num_hidden_layers = num_layers
        module, class_name = MODEL_CLASSES[shape.model_type]
        backbone = getattr(importlib.import_module(f"transformers.models.{module}"), class_name)(shape)
        network.encoder = PretrainedEncoder(
            model.encoder_type, model.encoder_name, model.hidden_size, freeze=model.freeze_encoder, backbone=backbone
        )
    loss = DiarizationLoss(network.powerset, num_training_speakers, model.embedding_size, config.train.embedding_weight)
    return nn.ModuleDict({"network": network, "loss": loss}).train()


def _layers(model: Any) -> list[Any]:
    backbone = getattr(model["network"].encoder, "backbone", None)
    return [] if backbone is None else list(backbone.encoder.layers)


def _batch(num_windows: int, seconds: float, num_speakers: int) -> Any:
    import torch

    from colabkit.pipelines.diarization.train.batches import Batch

    frames = round(seconds / FRAME_SECONDS)
    return Batch(
        torch.zeros(num_windows, round(seconds * RATE_HZ)),
        torch.ones(num_windows, frames, num_speakers, dtype=torch.bool),
        torch.zeros(num_windows, num_speakers, dtype=torch.long),
        torch.ones(num_windows, frames, dtype=torch.bool),
    )


def _loss(model: Any, batch: Any) -> Any:
    """Return the loss with an embedding to learn for every speaker of every window: the most there can be."""
    import torch

    from colabkit.pipelines.diarization.model.network import speaker_embeddings

    logits_BFC, embeddings_BFE = model["network"](batch.wave)
    counts, loss = torch.ones(2), model["loss"]
    voices = speaker_embeddings(embeddings_BFE.float(), batch.active.float()).flatten(0, 1)
    frame_loss = loss.frame_loss(logits_BFC, batch, counts)
    return frame_loss + loss.embedding_weight * loss.speaker_loss(voices, batch.speaker_ids.flatten(), counts)
