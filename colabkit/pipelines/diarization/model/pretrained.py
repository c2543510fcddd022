"""HuBERT, WavLM and wav2vec 2.0 as the encoder of FastDiarizationModel.

Axes: B batch, T audio sample at 16 kHz, F frame of 20 ms, G frame of 40 ms, L layer, H hidden of the encoder, D hidden.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from colabkit.core.errors import DataError
from colabkit.io.models.transformers_models import (
    broken_companions_masked,
    lacking_weights,
    named_faults,
    normalises,
    place_of,
    quietly,
    require_whole,
    transformers_class,
)
from colabkit.pipelines.diarization import FRAME_SAMPLES

CLASS_NAMES = {"hubert": "Hubert", "wavlm": "WavLM", "wav2vec2": "Wav2Vec2"}
SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "conv_dim": (32,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
# What is for pretraining: hidden stretches would still have to be labelled, and dropped layers get no gradient.
TRAINS_EVERYTHING = {"mask_time_prob": 0.0, "mask_feature_prob": 0.0, "layerdrop": 0.0, "add_adapter": False}
_OTHERWISE = "--set model.encoder_type=lightweight-cnn"
ON_THE_HUB = {
    "hubert": "facebook/hubert-base-ls960",
    "wavlm": "microsoft/wavlm-base-plus",
    "wav2vec2": "facebook/wav2vec2-base",
}


class PretrainedEncoder(nn.Module):
    """A Hub model's layers, mixed with learnt weights. Shapes: wave (B, T) -> core (B, D, G), fine (B, D, F).

    F = ceil(T / 320) and G = ceil(F / 2), frames centred as those of the log-mel encoder. `encoder_name` is a Hub id
    or a folder; empty: a small network of the same kind with random weights, for tests and trials without a download.
    `backbone` is an encoder that is there already. `freeze` keeps the encoder as it came, in evaluation mode; what is
    behind it is trained.
    Raises: DataError when the model cannot be had or is of another kind; StateError without a usable transformers.
    Source: the weighted sum of layers, Yang et al. 2021, SUPERB.
    """

    def __init__(
        self, encoder_type: str, encoder_name: str, hidden_size: int, *, freeze: bool, backbone: nn.Module | None = None
    ):
        super().__init__()
        self.backbone, self.normalises = (
            load_backbone(encoder_type, encoder_name) if backbone is None else (backbone, True)
        )
        config = self.backbone.config
        stride, reach = 1, 1
        for kernel, step in zip(config.conv_kernel, config.conv_stride, strict=True):
            reach, stride = reach + (kernel - 1) * stride, stride * step
        if stride != FRAME_SAMPLES:
            raise DataError(
                "Cannot use this encoder",
                got=f"a frame every {stride} samples",
                expected=f"every {FRAME_SAMPLES}",
                where=encoder_name,
                fix=f"--set model.encoder_name={ON_THE_HUB[encoder_type]}",
            )
        self.pad = reach - stride
        self.is_frozen = freeze
        self.backbone.requires_grad_(not freeze)
        self.layer_weights_L = nn.Parameter(torch.zeros(config.num_hidden_layers + 1))
        self.norm = nn.LayerNorm(config.hidden_size)
        self.to_fine = nn.Conv1d(config.hidden_size, hidden_size, 1)
        self.to_core = nn.Conv1d(config.hidden_size, hidden_size, 3, stride=2, padding=1)
        self.train(self.training)

    def train(self, mode: bool = True) -> PretrainedEncoder:
        """Switch between training and evaluation; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.is_frozen:
            self.backbone.eval()
        return self

    def forward(self, wave_BT: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        # Whole frames first, so that a window means the same with and without the zeros that complete it.
        wave_BT = F.pad(wave_BT, (0, -wave_BT.shape[-1] % FRAME_SAMPLES))
        if self.normalises:
            centred_BT = wave_BT - wave_BT.mean(-1, keepdim=True)
            wave_BT = centred_BT * (centred_BT.square().mean(-1, keepdim=True) + 1e-7).rsqrt()
        wave_BT = F.pad(wave_BT, (self.pad // 2, self.pad - self.pad // 2))
        layers = self.backbone(wave_BT, output_hidden_states=True).hidden_states
        weights_L = self.layer_weights_L.softmax(0)
        mixed_BFH = sum(weight * layer for weight, layer in zip(weights_L, layers, strict=True))
        mixed_BHF = self.norm(mixed_BFH).transpose(1, 2)
        return F.relu(self.to_core(mixed_BHF)), F.relu(self.to_fine(mixed_BHF))


@broken_companions_masked()
def load_backbone(encoder_type: str, encoder_name: str) -> tuple[nn.Module, bool]:
    """Return the encoder of a Hub id or folder (or a small random one), and whether it wants unit-variance waves.

    Raises: DataError when it cannot be had, is of another kind, or its weights are not whole.
    """
    config_class, model_class, auto_config = (
        transformers_class(name, what="Pretrained encoders", otherwise=_OTHERWISE)
        for name in (f"{CLASS_NAMES[encoder_type]}Config", f"{CLASS_NAMES[encoder_type]}Model", "AutoConfig")
    )
    if not encoder_name:
        config = config_class(**SMALL, **TRAINS_EVERYTHING)
        return model_class(config), True
    name, example = place_of(encoder_name), ON_THE_HUB[encoder_type]
    with (
        quietly(),
        named_faults(encoder_name, what="encoder", setting="model.encoder_name", example=example, otherwise=_OTHERWISE),
    ):
        config = auto_config.from_pretrained(name, trust_remote_code=False)
        if config.model_type != encoder_type:
            raise _other_kind(encoder_type, encoder_name, config.model_type)
        config = config_class.from_pretrained(name, **TRAINS_EVERYTHING)
        model, info = model_class.from_pretrained(name, config=config, output_loading_info=True, use_safetensors=True)
    require_whole(
        lacking_weights(info),
        encoder_name,
        what="encoder",
        fix=f"delete the folder and fetch it again, or --set model.encoder_name={example}",
    )
    return model.float(), normalises(name, config)


def _other_kind(encoder_type: str, encoder_name: str, found: str) -> DataError:
    fix = (
        f"--set model.encoder_type={found}"
        if found in CLASS_NAMES
        else f"--set model.encoder_name={ON_THE_HUB[encoder_type]}"
    )
    return DataError("The encoder is of another kind", got=found, expected=encoder_type, where=encoder_name, fix=fix)
