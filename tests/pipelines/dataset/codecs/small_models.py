"""Small models of the real classes whose weights make many codes, and what transformers' own call says of a wave."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from colabkit.core.versions.differences import too_old_for_codec

W2V_BERT = {
    "model_type": "wav2vec2-bert",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "feature_projection_input_dim": 160,
    "conv_depthwise_kernel_size": 5,
    "output_hidden_size": 32,
}
SEMANTIC = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "encoder_hidden_size": 4,
    "quantization_dim": 64,
    "semantic_model_config": W2V_BERT,
}
CONFIGS: dict[str, tuple[str, str, dict, dict]] = {  # kind -> model class, config class, config, extractor
    "neucodec": ("NeuCodecModel", "NeuCodecConfig", SEMANTIC, {"sampling_rate": 16000, "hop_length": 320}),
    "xcodec2": ("Xcodec2Model", "Xcodec2Config", SEMANTIC, {"sampling_rate": 16000, "hop_length": 320}),
    "mimi": (
        "MimiModel",
        "MimiConfig",
        {
            "hidden_size": 32,
            "num_filters": 4,
            "codebook_size": 64,
            "codebook_dim": 16,
            "num_quantizers": 6,
            "vector_quantization_hidden_dimension": 16,
            "upsample_groups": 32,
            "num_hidden_layers": 2,
            "intermediate_size": 48,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "sliding_window": 20,
        },
        {"sampling_rate": 24000},
    ),
    "dac": (
        "DacModel",
        "DacConfig",
        {
            "encoder_hidden_size": 4,
            "decoder_hidden_size": 32,
            "downsampling_ratios": [2, 4, 5, 8],
            "n_codebooks": 5,
            "codebook_size": 128,
            "codebook_dim": 4,
            "sampling_rate": 24000,
        },
        {"sampling_rate": 24000, "hop_length": 320},
    ),
    "encodec": (
        "EncodecModel",
        "EncodecConfig",
        {
            "hidden_size": 16,
            "num_filters": 4,
            "codebook_size": 64,
            "codebook_dim": 16,
            "sampling_rate": 24000,
            "target_bandwidths": [0.9, 1.8, 3.6],
        },
        {"sampling_rate": 24000},
    ),
}
KINDS = tuple(CONFIGS)
WAVE_ONLY = ("mimi", "dac", "encodec")  # hear no mel features
EXTRACTORS = {
    "neucodec": "NeuCodecFeatureExtractor",
    "xcodec2": "Xcodec2FeatureExtractor",
    "mimi": "EncodecFeatureExtractor",
    "dac": "DacFeatureExtractor",
    "encodec": "EncodecFeatureExtractor",
}


def make_folder(kind: str, folder: Path, **changes: Any) -> Path:
    """Save a small model with random weights, far enough from zero that its codes differ from frame to frame.

    An LSTM gets smaller ones: with large ones it is chaotic, as no trained one is, and a last bit becomes another code.
    Skips the test where the transformers that is installed has no such codec yet.
    """
    import transformers

    if since := too_old_for_codec(kind):
        pytest.skip(f"{kind} came with transformers {since}, this is {transformers.__version__}")
    model_class, config_class, config, extractor = CONFIGS[kind]
    torch.manual_seed(7)
    model = getattr(transformers, model_class)(getattr(transformers, config_class)(**{**config, **changes}))
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if "embed_sum" in name or name.endswith(("codebook.embed", "codebook.weight")):
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
            elif name.startswith("decoder."):
                continue
            elif tensor.dim() > 1 and "filter" not in name and tensor.is_floating_point() and "original0" not in name:
                gain = (0.5 if "lstm" in name else 1.4) / tensor[0].numel() ** 0.5
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * gain)
            elif kind in ("encodec", "mimi") and name.endswith("bias"):
                tensor.mul_(0.02)  # or the wave would be lost beside what is always there
        if kind in ("neucodec", "xcodec2"):
            model.quantizer.project_in.weight.mul_(1.5)
        if kind in ("encodec", "mimi"):
            fill_codebooks(kind, model, generator)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "feature_extractor_type": EXTRACTORS[kind],
                "feature_size": 1 if kind not in ("neucodec", "xcodec2") else 80,
                **extractor,
            }
        )
    )
    return folder


def speech(num: int, rate_hz: int = 16_000, seed: int = 0) -> np.ndarray:
    """Return so many samples of something loud and soft, with tones: float32 in [-1, 1]."""
    rng = np.random.default_rng(seed)
    time = np.arange(num) / rate_hz
    tone = np.sin(2 * np.pi * np.cumsum(120 + 60 * np.sin(2 * np.pi * 3 * time)) / rate_hz) if num else time
    level = 0.02 + 0.3 * np.abs(np.sin(2 * np.pi * 1.7 * time + seed))
    return (level * (0.6 * tone + 0.4 * rng.standard_normal(num))).astype(np.float32).clip(-1, 1)


def alone(kind: str, folder: Path, wave: np.ndarray) -> np.ndarray:
    """Return one wave's (codebook, frame) codes by transformers' documented call: feature extractor, then model.encode.

    Codecs of waves compute in float64. The extractors of NeuCodec and X-codec2 need torchaudio.
    """
    import transformers

    model = _loaded(kind, str(folder))
    extractor = getattr(transformers, EXTRACTORS[kind]).from_pretrained(folder)
    with torch.inference_mode():
        if kind in ("neucodec", "xcodec2"):
            return (
                model.encode(**extractor(audio=wave, sampling_rate=16_000, return_tensors="pt")).audio_codes[0].numpy()
            )
        inputs = extractor(raw_audio=wave, sampling_rate=extractor.sampling_rate, return_tensors="pt")
        if kind == "dac":
            return model.encode(inputs["input_values"].double()).audio_codes[0].numpy()
        codes = model.encode(inputs["input_values"].double(), inputs["padding_mask"]).audio_codes
        return (codes[0] if kind == "mimi" else codes[0][0]).numpy()


def fill_codebooks(kind: str, model: Any, generator: torch.Generator) -> None:
    """Fill codebooks with what the encoder gives for some speech, each of half the size of the one before."""
    wave = torch.from_numpy(speech(240_000, 24_000))[None, None]
    if kind == "encodec":
        stacks = [(model.quantizer.layers, model.encoder(wave), "embed")]
    else:
        encoded = model.encoder(wave)
        # Before transformers 5.21 the encoder ends before its transformer.
        latents = (
            encoded.latents
            if hasattr(encoded, "latents")
            else model.downsample(model.encoder_transformer(encoded.transpose(1, 2))[0].transpose(1, 2))
        )
        parts = (model.quantizer.semantic_residual_vector_quantizer, model.quantizer.acoustic_residual_vector_quantizer)
        stacks = [(part.layers, part.input_proj(latents), "embed_sum") for part in parts]
    for layers, found_1CT, name in stacks:
        found = found_1CT[0].T
        for number, layer in enumerate(layers):
            codebook = getattr(layer.codebook, name)
            chosen = found[torch.randperm(len(found), generator=generator)[: len(codebook)]]
            codebook.copy_(chosen if number == 0 else (chosen - found.mean(0)) * 0.5**number)


@lru_cache(maxsize=8)
def _loaded(kind: str, folder: str) -> Any:
    import transformers

    model = getattr(transformers, CONFIGS[kind][0]).from_pretrained(folder).eval()
    return model.double() if kind in WAVE_ONLY else model


def lengths_of(codec: Any, frames: int) -> list[int]:
    """Return all numbers of samples that become so many frames."""
    hop = codec.family.hop
    return [n for n in range(max(1, (frames - 1) * hop - 2), (frames + 1) * hop + 2) if codec.num_frames(n) == frames]


def batch_of(codec, frames: int) -> list[np.ndarray]:
    """Return waves of every kind of length with so many frames, one of them silent."""
    lengths = lengths_of(codec, frames)
    chosen = [lengths[0], lengths[-1], *np.random.default_rng(frames).choice(lengths, 3)]
    silence = np.zeros(lengths[len(lengths) // 2], np.float32)
    return [*(speech(int(n), codec.rate_hz_in, seed=int(n) % 97) for n in chosen), silence]
