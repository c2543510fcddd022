"""The training step of an ASR model, piece by piece, so that its memory can be predicted before it is loaded anywhere.

Axes: B sample, T audio sample at 16 kHz, F frame, M mel band, L label, V label class.
"""

from __future__ import annotations

import copy
import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from colabkit.core.config import digest
from colabkit.core.errors import DataError, UsageError
from colabkit.io.models.architectures import config_of, hub_id
from colabkit.pipelines.asr import RATE_HZ
from colabkit.pipelines.asr.config import Config, ModelConfig
from colabkit.pipelines.asr.model.kinds import CLASS_NAMES, is_ctc, require_kind, small_shape, training_changes
from colabkit.training.sizing.devices import Device
from colabkit.training.sizing.request import Request, seed_rule
from colabkit.training.sizing.workload import Workload

CHARACTERS_PER_SECOND = 25  # of the fastest speakers, spaces included
TOKENS_PER_SECOND = 12
NUM_CHARACTERS = 64  # classes of a CTC head whose vocabulary is not known yet
HOP_SAMPLES, NUM_BANDS = 160, 80  # of the mel features that w2v-BERT hears, some frames put together
WHISPER_SECONDS = 30.0  # it hears windows of that length, whatever is in them
TYPICAL_SECONDS, SHORTEST_SECONDS = 10.0, 1.0


def request(config: Config) -> Request:
    """Return what the settings ask of sizing; samples of 1 to `longest_seconds`, half of them up to 10 s."""
    longest = config.data.longest_seconds
    typical, shortest = min(TYPICAL_SECONDS, longest), min(SHORTEST_SECONDS, longest)
    work = workload(config, offline=True)
    return Request(
        workload=work,
        lengths=tuple(sorted({shortest, typical, longest})),
        typical_seconds=typical,
        effective_batch=config.train.effective_batch,
        effective_seconds=config.train.effective_seconds,
        safety_margin=config.sizing.safety_margin,
        checkpointing=config.sizing.checkpointing,
        precision=config.sizing.precision,
        optimizer=config.train.optimizer,
        most=config.sizing.at_once,
        world=max(1, config.train.processes),
        lighter=lambda: lighter(config),
        documented=lambda device: documented(config.model.name, device),
        rule=_rule(config, work, typical),
    )


def workload(config: Config, *, vocabulary_size: int = NUM_CHARACTERS, offline: bool = False) -> Workload:
    """Return the training step of the model that the settings name, which `offline` is not looked for on the Hub.

    Raises: DataError for a model whose shape is not known; UsageError for one of another kind.
    """
    return of_shape(trained(config_of_model(config.model, offline), config.model, vocabulary_size), config.model)


def workload_of(model: Any, *, name: str = "") -> tuple[Workload, Any]:
    """Return (workload, network) of a transformers model, or of the Hub id of a known one: then on the meta device.

    What the model's own settings say about dropout, and which of its parameters are frozen, is kept.
    """
    if isinstance(model, str):
        import torch

        config = Config(model=ModelConfig(name=model))
        work = workload(config)
        with torch.device("meta"):
            return work, work.build(None, False)
    shape = getattr(model, "config", None)
    if getattr(shape, "model_type", "") not in CLASS_NAMES:
        raise UsageError(
            "Cannot tell how this model trains",
            got=getattr(shape, "model_type", type(model).__name__),
            expected="a model of transformers: " + ", ".join(CLASS_NAMES),
            where="model",
            fix="pass a Hub id such as facebook/wav2vec2-base, or AutoModelForCTC.from_pretrained(...)",
        )
    encoder = getattr(getattr(model, "base_model", model), "feature_extractor", None)
    freezes = encoder is not None and not any(p.requires_grad for p in encoder.parameters())
    layers = layers_of(model)
    frozen = next(
        (i for i, layer in enumerate(layers) if any(p.requires_grad for p in layer.parameters())), len(layers)
    )
    settings = ModelConfig(
        name=name or getattr(shape, "_name_or_path", ""), freeze_feature_encoder=freezes, frozen_layers=frozen
    )
    return of_shape(_without_chance(copy.deepcopy(shape)), settings), model


def config_of_model(model: ModelConfig, offline: bool = False) -> Any:
    """Return the shape of the model that the settings name; without a name that of the small network."""
    return config_of(model.name, offline=offline) if model.name else small_shape(model)


def trained(shape: Any, model: ModelConfig, vocabulary_size: int) -> Any:
    """Return the shape with what training changes of it. Raises: UsageError for a kind that is not trained here."""
    require_kind(shape.model_type, model.name)
    for name, value in training_changes(shape, model).items():
        setattr(shape, name, value)
    if is_ctc(shape.model_type):
        shape.vocab_size = vocabulary_size
    else:
        shape.use_cache = False
    return _without_chance(shape)


def _without_chance(shape: Any) -> Any:
    """Take out what only data or chance decides: hidden frames, dropped layers."""
    for name, value in (
        ("layerdrop", 0.0),
        ("mask_time_prob", 0.0),
        ("mask_feature_prob", 0.0),
        ("apply_spec_augment", False),
    ):
        if hasattr(shape, name):
            setattr(shape, name, value)
    return shape


def of_shape(shape: Any, model: ModelConfig) -> Workload:
    """Return the workload of a network of this shape."""
    known = hub_id(model.name) if model.name else None
    name = known or model.name or f"small {shape.model_type}"
    identity = digest([shape.to_diff_dict(), model.freeze_feature_encoder, model.frozen_layers])[:16]
    parts = _Whisper(shape, model) if shape.model_type == "whisper" else _Ctc(shape, model)
    return Workload(
        name=name,
        identity=f"{name} {identity}",
        num_layers=parts.num_layers,
        build=parts.build,
        layers=parts.layers,
        batch=parts.batch,
        loss=parts.loss,
    )


class _Ctc:
    """wav2vec 2.0, XLS-R, HuBERT, WavLM, w2v-BERT 2.0 with a CTC head. The lowest, frozen layers do not repeat."""

    def __init__(self, shape: Any, model: ModelConfig):
        self.shape, self.model = shape, model
        self.frozen = min(model.frozen_layers, shape.num_hidden_layers - 1)
        self.num_layers = shape.num_hidden_layers - self.frozen
        self.hears_features = shape.model_type == "wav2vec2-bert"

    def build(self, num_layers: int | None, checkpointing: bool) -> Any:
        shape = copy.deepcopy(self.shape)
        shape.num_hidden_layers = self.frozen + (self.num_layers if num_layers is None else num_layers)
        network = _class(CLASS_NAMES[shape.model_type] + "ForCTC", shape.model_type)(shape).train()
        if self.model.freeze_feature_encoder and hasattr(network, "freeze_feature_encoder"):
            network.freeze_feature_encoder()
        _pad_as_training_does(network)
        return _readied(network, self.frozen, checkpointing)

    def layers(self, network: Any) -> list[Any]:
        return layers_of(network)[self.frozen :]

    def frames(self, seconds: float) -> int:
        num_samples = round(seconds * RATE_HZ)
        if self.hears_features:
            return max(1, num_samples // (HOP_SAMPLES * max(1, self.shape.feature_projection_input_dim // NUM_BANDS)))
        for kernel, stride in zip(self.shape.conv_kernel, self.shape.conv_stride, strict=True):
            num_samples = max(1, (num_samples - kernel) // stride + 1)
        return num_samples

    def batch(self, num_samples: int, seconds: float) -> dict[str, Any]:
        import torch

        frames = self.frames(seconds)
        length = frames if self.hears_features else round(seconds * RATE_HZ)
        wide = (self.shape.feature_projection_input_dim,) if self.hears_features else ()
        mask = torch.ones(num_samples, length, dtype=torch.long)
        mask[1:, length - length // 16 :] = 0  # transformers leaves the mask out where nothing is padded
        num_labels = max(1, min(math.ceil(seconds * CHARACTERS_PER_SECOND), frames * 7 // 16))
        return {
            "input_features" if self.hears_features else "input_values": torch.zeros(num_samples, length, *wide),
            "attention_mask": mask,
            "labels": torch.ones(num_samples, num_labels, dtype=torch.long),
        }

    def loss(self, network: Any, batch: Mapping[str, Any]) -> Any:
        import torch
        import torch.nn.functional as F

        inputs = {name: value for name, value in batch.items() if name != "labels"}
        log_BFV, labels_BL = network(**inputs).logits.float().log_softmax(-1), batch["labels"]
        frames_B = torch.full((len(labels_BL),), log_BFV.shape[1], dtype=torch.long, device="cpu")
        labels_B = torch.full((len(labels_BL),), labels_BL.shape[1], dtype=torch.long, device="cpu")
        with torch.backends.cudnn.flags(enabled=False):
            return F.ctc_loss(
                log_BFV.transpose(0, 1),
                labels_BL.flatten(),
                frames_B,
                labels_B,
                blank=0,
                reduction="none",
                zero_infinity=True,
            ).sum()


class _Whisper:
    """Whisper: every sample is a window of 30 s, whatever is in it; labels grow with the speech.

    As many encoder as decoder layers repeat together; where there are fewer of the decoder's, they are built whole.
    """

    def __init__(self, shape: Any, model: ModelConfig):
        self.shape, self.model = shape, model
        self.frozen = min(model.frozen_layers, shape.encoder_layers - 1)
        self.is_even = shape.encoder_layers == shape.decoder_layers and not self.frozen
        self.num_layers = shape.encoder_layers - self.frozen

    def build(self, num_layers: int | None, checkpointing: bool) -> Any:
        shape = copy.deepcopy(self.shape)
        num_layers = self.num_layers if num_layers is None else num_layers
        shape.encoder_layers = self.frozen + num_layers
        if self.is_even:
            shape.decoder_layers = num_layers
        return _readied(_class("WhisperForConditionalGeneration", "whisper")(shape).train(), self.frozen, checkpointing)

    def layers(self, network: Any) -> list[Any]:
        encoder = layers_of(network)[self.frozen :]
        return [*encoder, *network.model.decoder.layers] if self.is_even else encoder

    def batch(self, num_samples: int, seconds: float) -> dict[str, Any]:
        import torch

        num_labels = min(self.shape.max_target_positions, 8 + math.ceil(seconds * TOKENS_PER_SECOND))
        features = torch.zeros(num_samples, self.shape.num_mel_bins, round(WHISPER_SECONDS * 100))
        labels = torch.ones(num_samples, num_labels, dtype=torch.long)
        return {"input_features": features, "decoder_input_ids": labels.clone(), "labels": labels}

    def loss(self, network: Any, batch: Mapping[str, Any]) -> Any:
        import torch.nn.functional as F

        logits_BLV = network(
            input_features=batch["input_features"], decoder_input_ids=batch["decoder_input_ids"], use_cache=False
        ).logits
        return F.cross_entropy(logits_BLV.float().transpose(1, 2), batch["labels"], reduction="none").sum()


def layers_of(network: Any) -> list[Any]:
    """Return the encoder's layers, lowest first."""
    inside = getattr(network, "base_model", network)
    encoder = inside.encoder if hasattr(inside, "encoder") else inside
    return list(encoder.layers)


def _readied(network: Any, num_frozen: int, checkpointing: bool) -> Any:
    """Freeze the lowest layers with all that is below them, and turn checkpointing on."""
    from colabkit.pipelines.asr.model.recognizer import freeze_lowest

    freeze_lowest(network, num_frozen)
    if checkpointing:
        network.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return network


def _pad_as_training_does(network: Any) -> None:
    """Let the group norm of base models take every sample by itself, as where samples are padded: the worst case."""
    from colabkit.pipelines.asr.model.recognizer import OwnLengthNorm, make_exact

    make_exact(network)
    inside = network.base_model
    norms = [module for module in inside.modules() if isinstance(module, OwnLengthNorm)]
    if not norms:
        return
    inside._forward_pre_hooks.clear()  # it reads the lengths, which nobody knows yet
    inside._forward_pre_hooks_with_kwargs.clear()
    conv = inside.feature_extractor.conv_layers[0].conv

    def tell(module: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        waves = args[0] if args else kwargs["input_values"]
        frames = (waves.shape[-1] - conv.kernel_size[0]) // conv.stride[0] + 1
        norms[0].lengths = [frames - frames // 16] * len(waves)

    inside.register_forward_pre_hook(tell, with_kwargs=True)


def _class(name: str, model_type: str) -> Any:
    module = model_type.replace("-", "_")
    return getattr(importlib.import_module(f"transformers.models.{module}.modeling_{module}"), name)


def lighter(config: Config) -> dict[str, Workload]:
    """Return variants of the workload that take less memory, by the words that say what to do."""
    try:
        shape = config_of_model(config.model, offline=True)
    except DataError:
        return {}
    half = (getattr(shape, "num_hidden_layers", None) or shape.encoder_layers) // 2
    if half <= config.model.frozen_layers:
        return {}
    frozen = replace(config, model=replace(config.model, frozen_layers=half))
    return {f"the lower {half} layers frozen (--set model.frozen_layers={half})": workload(frozen, offline=True)}


# Published batch x accumulation for an effective batch of 32 (A100-80: 64), for models of about these sizes.
_DOCUMENTED = {
    "facebook/hubert-base-ls960": {
        "T4": "8 x 4",
        "V100-16": "12-16 x 2-4",
        "A100-40": "32-48 x 1-2",
        "A100-80": "64 x 1",
    },
    "facebook/wav2vec2-xls-r-1b": {"L4": "4 x 8", "A100-40": "8"},
    "facebook/wav2vec2-xls-r-300m": {"T4": "8"},
}
_ALIKE = {
    "facebook/wav2vec2-base": "facebook/hubert-base-ls960",
    "facebook/hubert-xlarge-ll60k": "facebook/wav2vec2-xls-r-1b",
    "facebook/wav2vec2-large-xlsr-53": "facebook/wav2vec2-xls-r-300m",
    "facebook/hubert-large-ll60k": "facebook/wav2vec2-xls-r-300m",
    "facebook/wav2vec2-large-lv60": "facebook/wav2vec2-xls-r-300m",
    "microsoft/wavlm-base-plus": "facebook/hubert-base-ls960",
}


def documented(model_name: str, device_name: str) -> str:
    """Return what published tables give for this model on this device, "" where they give nothing."""
    known = hub_id(model_name) if model_name else None
    return _DOCUMENTED.get(_ALIKE.get(known, known), {}).get(device_name, "")


def _rule(config: Config, work: Workload, typical_seconds: float) -> Callable[[Device], tuple[int, int]]:
    """Return what gives a device's batch by the documented rule of thumb."""

    @cache
    def model_bytes() -> float:
        import torch

        from colabkit.training.sizing.tracing.optimizer_memory import bytes_a_weight

        with torch.device("meta"):
            sizes = [(p.numel(), p.requires_grad) for p in work.build(None, False).parameters()]
        states = bytes_a_weight(config.train.optimizer)
        return 4 * sum(n for n, _ in sizes) + (4 + states) * sum(n for n, trains in sizes if trains)

    target = config.train.effective_batch or max(1, int(config.train.effective_seconds / typical_seconds))
    return lambda device: seed_rule(
        typical_seconds, model_bytes(), device.total_bytes, safety_margin=config.sizing.safety_margin, target=target
    )
