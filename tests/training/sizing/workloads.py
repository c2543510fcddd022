"""Workloads of small transformers models with random weights, for tests and benchmarks of sizing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from colabkit.training.sizing.workload import Workload

RATE_HZ = 16_000
CHARACTERS_PER_SECOND = 20


def wav2vec2(num_layers: int = 6, *, masked: bool = True, family: str = "wav2vec2", **config: Any) -> Workload:
    """Return CTC fine-tuning of a wav2vec2, or of a HuBERT (family="hubert"), its feature encoder frozen."""
    settings = {
        "hidden_size": 64,
        "num_attention_heads": 4,
        "intermediate_size": 256,
        "vocab_size": 32,
        "conv_dim": (32,) * 7,
        "num_conv_pos_embeddings": 32,
        "num_conv_pos_embedding_groups": 4,
        "do_stable_layer_norm": True,
        "feat_extract_norm": "layer",
        "conv_bias": True,
        "layerdrop": 0.0,
        "mask_time_prob": 0.0,
        "mask_feature_prob": 0.0,
        "attn_implementation": "sdpa",
    } | config

    def build(depth: int | None, checkpointing: bool) -> nn.Module:
        if family == "hubert":
            from transformers.models.hubert.configuration_hubert import HubertConfig as Config
            from transformers.models.hubert.modeling_hubert import HubertForCTC as Model
        else:
            from transformers.models.wav2vec2.configuration_wav2vec2 import Wav2Vec2Config as Config
            from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2ForCTC as Model
        model = Model(Config(num_hidden_layers=depth or num_layers, **settings))
        model.freeze_feature_encoder()
        return _in_training(model, checkpointing)

    def loss(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        logits = model(batch["input_values"], attention_mask=batch.get("attention_mask")).logits
        return ctc(logits, batch["labels"])

    def batch(num_samples: int, seconds: float) -> dict[str, torch.Tensor]:
        made = {
            "input_values": torch.zeros(num_samples, round(seconds * RATE_HZ)),
            "labels": characters(num_samples, seconds),
        }
        if masked:
            made["attention_mask"] = padded_mask(num_samples, round(seconds * RATE_HZ))
        return made

    return Workload(
        name=family,
        identity=f"{family} {num_layers} {masked} {sorted(settings.items())}",
        num_layers=num_layers,
        build=build,
        layers=lambda model: list(getattr(model, family).encoder.layers),
        batch=batch,
        loss=loss,
    )


def wav2vec2_bert(num_layers: int = 6, **config: Any) -> Workload:
    """Return CTC fine-tuning of a w2v-BERT: conformer layers over 50 frames of 160 features a second."""
    settings = {
        "hidden_size": 64,
        "num_attention_heads": 4,
        "intermediate_size": 256,
        "vocab_size": 32,
        "layerdrop": 0.0,
        "mask_time_prob": 0.0,
        "mask_feature_prob": 0.0,
        "apply_spec_augment": False,
    } | config

    def build(depth: int | None, checkpointing: bool) -> nn.Module:
        from transformers.models.wav2vec2_bert.configuration_wav2vec2_bert import Wav2Vec2BertConfig
        from transformers.models.wav2vec2_bert.modeling_wav2vec2_bert import Wav2Vec2BertForCTC

        model = Wav2Vec2BertForCTC(Wav2Vec2BertConfig(num_hidden_layers=depth or num_layers, **settings))
        return _in_training(model, checkpointing)

    def batch(num_samples: int, seconds: float) -> dict[str, torch.Tensor]:
        return {
            "input_features": torch.zeros(num_samples, round(seconds * 50), 160),
            "labels": characters(num_samples, seconds),
            "attention_mask": padded_mask(num_samples, round(seconds * 50)),
        }

    def loss(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return ctc(model(batch["input_features"], attention_mask=batch["attention_mask"]).logits, batch["labels"])

    return Workload(
        name="w2v-BERT",
        identity=f"w2v-BERT {num_layers} {sorted(settings.items())}",
        num_layers=num_layers,
        build=build,
        layers=lambda model: list(model.wav2vec2_bert.encoder.layers),
        batch=batch,
        loss=loss,
    )


def tiny() -> Workload:
    """Return a w2v-BERT of one narrow layer over an eighth of the frames, for real steps that take no time."""
    work = wav2vec2_bert(1, hidden_size=16, num_attention_heads=2, intermediate_size=32, output_hidden_size=16)
    return replace(work, batch=lambda num_samples, seconds: work.batch(num_samples, seconds / 8))


def whisper(num_layers: int = 6, *, num_frames: int = 3000, **config: Any) -> Workload:
    """Return fine-tuning of a Whisper: 30 s of features for any length, six tokens a second; two stacks of layers."""
    settings = {
        "d_model": 64,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 256,
        "decoder_ffn_dim": 256,
        "vocab_size": 1000,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 1,
        "dropout": 0.1,
        "max_source_positions": num_frames // 2,
        "use_cache": False,
    } | config

    def build(depth: int | None, checkpointing: bool) -> nn.Module:
        from transformers.models.whisper.configuration_whisper import WhisperConfig
        from transformers.models.whisper.modeling_whisper import WhisperForConditionalGeneration

        depth = depth or num_layers
        config = WhisperConfig(encoder_layers=depth, decoder_layers=depth, num_hidden_layers=depth, **settings)
        return _in_training(WhisperForConditionalGeneration(config), checkpointing)

    def batch(num_samples: int, seconds: float) -> dict[str, torch.Tensor]:
        tokens = torch.ones(num_samples, max(4, round(seconds * 6)), dtype=torch.long)
        return {
            "input_features": torch.zeros(num_samples, 80, num_frames),
            "decoder_input_ids": tokens,
            "labels": tokens.clone(),
        }

    def loss(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        logits = model(
            input_features=batch["input_features"], decoder_input_ids=batch["decoder_input_ids"], use_cache=False
        ).logits
        return F.cross_entropy(logits.float().flatten(0, 1), batch["labels"].flatten())

    return Workload(
        name="whisper",
        identity=f"whisper {num_layers} {sorted(settings.items())}",
        num_layers=num_layers,
        build=build,
        batch=batch,
        loss=loss,
        layers=lambda model: [*model.model.encoder.layers, *model.model.decoder.layers],
    )


class Vocoder(nn.Module):
    """Convolutions that go up in time, with a critic of what they make: no layers that repeat."""

    def __init__(self, width: int):
        super().__init__()
        self.up = nn.Sequential(
            nn.Conv1d(80, width, 7, padding=3),
            nn.LeakyReLU(0.1),
            nn.ConvTranspose1d(width, width // 2, 16, 8, 4),
            nn.BatchNorm1d(width // 2),
            nn.LeakyReLU(0.1),
            nn.ConvTranspose1d(width // 2, width // 4, 16, 8, 4),
            nn.LeakyReLU(0.1),
            nn.Conv1d(width // 4, 1, 7, padding=3),
            nn.Tanh(),
        )
        self.critic = nn.Sequential(
            nn.Conv1d(1, width, 15, 4, 7),
            nn.LeakyReLU(0.1),
            nn.Conv1d(width, width, 41, 4, 20, groups=4),
            nn.LeakyReLU(0.1),
            nn.Conv1d(width, 1, 3, padding=1),
        )

    def forward(self, feats_BFT: torch.Tensor) -> torch.Tensor:
        made = self.up(feats_BFT)
        return (1 - self.critic(made)).square().mean() + self.critic(made.detach()).square().mean() + made.abs().mean()


def vocoder(width: int = 64) -> Workload:
    """Return a step of a generator and its critic over 50 frames of 80 features a second."""

    def build(depth: int | None, checkpointing: bool) -> nn.Module:
        return Vocoder(width).train()

    return Workload(
        name="vocoder",
        identity=f"vocoder {width}",
        num_layers=0,
        build=build,
        layers=lambda model: [],
        batch=lambda num_samples, seconds: torch.zeros(num_samples, 80, round(50 * seconds)),
        loss=lambda model, batch: model(batch),
    )


def ctc(logits_BTC: torch.Tensor, labels_BS: torch.Tensor) -> torch.Tensor:
    """Return the mean CTC loss of samples that fill the batch."""
    log_probs_TBC = F.log_softmax(logits_BTC, dim=-1, dtype=torch.float32).transpose(0, 1)
    frames, samples, _ = log_probs_TBC.shape
    with torch.backends.cudnn.flags(enabled=False):
        return F.ctc_loss(
            log_probs_TBC,
            labels_BS,
            torch.full((samples,), frames),
            torch.full((samples,), labels_BS.shape[1]),
            zero_infinity=True,
        )


def characters(num_samples: int, seconds: float) -> torch.Tensor:
    return torch.ones(num_samples, max(1, round(seconds * CHARACTERS_PER_SECOND)), dtype=torch.long)


def padded_mask(num_samples: int, length: int) -> torch.Tensor:
    """Return a mask of samples that all but the first are a little shorter than the longest, as in a real batch."""
    mask = torch.ones(num_samples, length, dtype=torch.long)
    mask[1:, length - length // 10 :] = 0
    return mask


def _in_training(model: Any, checkpointing: bool) -> nn.Module:
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train()
