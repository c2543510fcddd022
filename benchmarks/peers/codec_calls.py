"""Peers of the codec benchmarks: transformers' documented call, padded batches, and neucodec's encode_code, emulated.

No weights can be had without a network: models have their published sizes and random weights, scaled so that codes
vary, with codebooks taken from what the encoder gives. neucodec 0.0.6 is emulated by the same modules in the order of
its model.py: w2v-BERT features of each wave in numpy on the CPU, all 24 layers of w2v-BERT with every hidden state kept
(layer 16 is used), then the acoustic encoder, one wave a call. Its weight normalisation, which costs it some more, is
left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

Call = Callable[[Sequence[np.ndarray]], list[np.ndarray]]
CLASSES = {
    "neucodec": ("NeuCodecModel", "NeuCodecConfig"),
    "mimi": ("MimiModel", "MimiConfig"),
    "dac": ("DacModel", "DacConfig"),
    "encodec": ("EncodecModel", "EncodecConfig"),
}
PUBLISHED = {
    "neucodec": {},
    "mimi": {},
    "encodec": {},
    "dac": {"downsampling_ratios": [2, 4, 5, 8], "n_codebooks": 32, "sampling_rate": 24_000},
}
SMALL = {
    "neucodec": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": 16,
        "encoder_hidden_size": 8,
        "quantization_dim": 128,
        "semantic_model_config": {
            "model_type": "wav2vec2-bert",
            "hidden_size": 64,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "intermediate_size": 128,
            "output_hidden_size": 64,
        },
    },
    "mimi": {
        "hidden_size": 64,
        "num_filters": 8,
        "codebook_size": 256,
        "codebook_dim": 32,
        "num_quantizers": 8,
        "vector_quantization_hidden_dimension": 32,
        "upsample_groups": 64,
        "num_hidden_layers": 2,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
    },
    "dac": {
        "encoder_hidden_size": 8,
        "decoder_hidden_size": 64,
        "downsampling_ratios": [2, 4, 5, 8],
        "n_codebooks": 8,
        "codebook_size": 256,
        "sampling_rate": 24_000,
    },
    "encodec": {"hidden_size": 32, "num_filters": 8, "codebook_size": 256, "target_bandwidths": [2.4]},
}


def speech(seconds: float, rate_hz: int, seed: int) -> np.ndarray:
    """Return something with a melody, loud and soft: (sample,) float32."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    tone = np.sin(2 * np.pi * np.cumsum(130 + 60 * np.sin(2 * np.pi * (1 + seed % 5) * time)) / rate_hz)
    level = 0.02 + 0.3 * np.abs(np.sin(2 * np.pi * 1.7 * time + seed))
    return (level * (0.6 * tone + 0.4 * rng.standard_normal(len(time)))).astype(np.float32).clip(-1, 1)


@torch.no_grad()
def build(kind: str, *, small: bool, device: str = "cpu") -> Any:
    """Return a model of published or small size with random weights, in evaluation mode."""
    import transformers

    model_class, config_class = (getattr(transformers, name) for name in CLASSES[kind])
    torch.manual_seed(0)
    with torch.device(device):
        model = model_class(config_class(**(SMALL if small else PUBLISHED)[kind])).eval()
        for name, tensor in model.named_parameters():
            if name.startswith(("decoder.", "acoustic_decoder.")) or "original0" in name:
                continue
            if name.endswith("bias") and kind in ("mimi", "encodec"):
                tensor.mul_(0.02)
            elif tensor.dim() > 1:
                tensor.normal_(0, (0.5 if "lstm" in name else 1.4) / tensor[0].numel() ** 0.5)
        wave = torch.from_numpy(speech(20.0 if kind in ("mimi", "encodec") else 1.0, 24_000, 1)).to(device)[None, None]
        if kind == "encodec":
            fill([layer.codebook for layer in model.quantizer.layers], "embed", model.encoder(wave))
        elif kind == "mimi":
            latents = model.encoder(wave).latents
            for part in (
                model.quantizer.semantic_residual_vector_quantizer,
                model.quantizer.acoustic_residual_vector_quantizer,
            ):
                fill([layer.codebook for layer in part.layers], "embed_sum", part.input_proj(latents))
        elif kind == "neucodec":
            model.quantizer.project_in.weight.mul_(1.5)
    return model.requires_grad_(False)


def fill(codebooks: list, name: str, found_1CT: torch.Tensor) -> None:
    """Fill codebooks with vectors the encoder gave, with a little noise, each a little smaller than the one before.

    Much smaller ones would be lost beside what random codebooks leave over, and rounding would choose among their
    entries.
    """
    found = found_1CT[0].T
    for number, codebook in enumerate(codebooks):
        chosen = found[torch.randint(len(found), (len(getattr(codebook, name)),), device=found.device)]
        chosen = chosen + 0.3 * found.std(0) * torch.randn_like(chosen)
        getattr(codebook, name).copy_(chosen if number == 0 else (chosen - found.mean(0)) * 0.93**number)


def documented(kind: str, model: Any, *, padded: bool) -> Call:
    """Return transformers' own way for waves at 24 kHz: its feature extractor, then model.encode.

    `padded` takes all waves at once.
    """
    from transformers import DacFeatureExtractor, EncodecFeatureExtractor

    extractor = (
        DacFeatureExtractor(sampling_rate=24_000, hop_length=320)
        if kind == "dac"
        else EncodecFeatureExtractor(sampling_rate=24_000)
    )
    device = next(model.parameters()).device
    hop = 1_920 if kind == "mimi" else 320

    @torch.inference_mode()
    def encode(waves: Sequence[np.ndarray]) -> list[np.ndarray]:
        if not padded and len(waves) > 1:
            return [codes for wave in waves for codes in encode([wave])]
        inputs = extractor(raw_audio=list(waves) if padded else waves[0], sampling_rate=24_000, return_tensors="pt").to(
            device
        )
        more = {} if kind == "dac" else {"padding_mask": inputs["padding_mask"]}
        codes = model.encode(inputs["input_values"], **more).audio_codes.cpu().numpy()
        codes = codes[0] if kind == "encodec" else codes
        return [one[:, : -(-len(wave) // hop)] for one, wave in zip(codes, waves, strict=True)]

    return encode


class NeuCodecsOwn:
    """encode_code of neucodec 0.0.6, with the weights of a model of transformers below layer 16."""

    def __init__(self, model: Any, num_layers: int = 24):
        from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2BertConfig, Wav2Vec2BertModel

        self.model, self.extractor = model, SeamlessM4TFeatureExtractor()
        inner = model.config.semantic_model_config
        self.used = inner.num_hidden_layers
        device = next(model.parameters()).device
        settings = {**inner.to_dict(), "num_hidden_layers": max(num_layers, self.used)}
        with torch.device(device):
            self.semantic = Wav2Vec2BertModel(Wav2Vec2BertConfig(**settings)).eval().requires_grad_(False)
        self.semantic.feature_projection = model.semantic_encoder.feature_projection
        for number, layer in enumerate(model.semantic_encoder.encoder.layers):
            self.semantic.encoder.layers[number] = layer

    @torch.no_grad()
    def __call__(self, waves: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [self._one(wave) for wave in waves]

    def _one(self, wave: np.ndarray) -> np.ndarray:
        model, device = self.model, next(self.model.parameters()).device
        y = torch.from_numpy(wave)[None, None]
        y = torch.nn.functional.pad(y, (0, 320 - y.shape[-1] % 320))
        features = self.extractor(y[0].cpu(), sampling_rate=16_000, return_tensors="pt").input_features.to(device)
        acoustic = model.acoustic_encoder(y.to(device))
        semantic = self.semantic(features, output_hidden_states=True).hidden_states[self.used].transpose(1, 2)
        semantic = model.semantic_adapter(semantic)
        shortest = min(acoustic.shape[-1], semantic.shape[-1])
        joined = torch.cat([semantic[..., :shortest], acoustic[..., :shortest]], 1)
        return model.quantizer(model.fc_encoder(joined.transpose(1, 2)))[1].transpose(1, 2)[0].cpu().numpy()
