"""Kinds of models that can be fine-tuned, and what training changes of a model's own settings."""

from __future__ import annotations

from typing import Any

from colabkit.core.errors import UsageError
from colabkit.pipelines.asr.config import ModelConfig

# model_type of config.json -> how its classes begin
CLASS_NAMES = {
    "wav2vec2": "Wav2Vec2",
    "hubert": "Hubert",
    "wavlm": "WavLM",
    "wav2vec2-bert": "Wav2Vec2Bert",
    "whisper": "Whisper",
}
EXAMPLE = "facebook/wav2vec2-base"  # one of them that is found on the Hub
MASK_FRAMES = 10  # what SpecAugment hides in one go: 0.2 s
SMALL_STRIDE = 3  # the small network hears frames of 30 ms


def is_ctc(model_type: str) -> bool:
    """Tell whether a kind writes characters frame by frame; Whisper writes tokens one after another."""
    return model_type != "whisper"


def require_kind(model_type: str, name: str) -> None:
    """Raise a UsageError for a kind of model that is not fine-tuned here."""
    if model_type not in CLASS_NAMES:
        raise UsageError(
            "Cannot fine-tune this kind of model",
            got=model_type,
            where=name,
            expected="wav2vec 2.0, XLS-R, HuBERT, WavLM, w2v-BERT 2.0 or Whisper",
            fix=f"--set model.name={EXAMPLE}, or another of these kinds",
        )


def training_changes(shape: Any, model: ModelConfig) -> dict[str, Any]:
    """Return the settings of a model's config that training changes. `shape` is the config as it came.

    Whole layers are never dropped: they would get no gradient. The loss is summed, to be divided by the number of
    tokens of the whole batch over all processes.
    """
    wanted = {
        "layerdrop": 0.0,
        "encoder_layerdrop": 0.0,
        "decoder_layerdrop": 0.0,
        "apply_spec_augment": model.mask_time > 0,
        "mask_time_prob": model.mask_time,
        "mask_time_length": MASK_FRAMES,
        "mask_time_min_masks": 0,
        "mask_feature_prob": 0.0,
    }
    if is_ctc(shape.model_type):
        wanted |= {
            "hidden_dropout": model.dropout,
            "attention_dropout": model.dropout,
            "feat_proj_dropout": model.dropout,
            "final_dropout": model.dropout,
            "conformer_conv_dropout": model.dropout,
            "activation_dropout": 0.0,
            "ctc_loss_reduction": "sum",
            "ctc_zero_infinity": True,
        }
    else:
        wanted |= {"dropout": model.dropout, "attention_dropout": 0.0, "activation_dropout": 0.0}
    return {name: value for name, value in wanted.items() if hasattr(shape, name)}


def small_shape(model: ModelConfig) -> Any:
    """Return the config of the small w2v-BERT with random weights: learns a closed vocabulary in a minute on a CPU."""
    from transformers.models.wav2vec2_bert.configuration_wav2vec2_bert import Wav2Vec2BertConfig

    if model.hidden_size < 8 or model.hidden_size % 8 or model.num_layers < 1:
        raise UsageError(
            "Cannot make the small network",
            got=f"{model.num_layers} layers of width {model.hidden_size}",
            expected="a layer or more, and a width that is a multiple of 8",
            where="model",
            fix="--set model.hidden_size=128 --set model.num_layers=2",
        )
    return Wav2Vec2BertConfig(
        hidden_size=model.hidden_size,
        num_hidden_layers=model.num_layers,
        num_attention_heads=4,
        intermediate_size=2 * model.hidden_size,
        output_hidden_size=model.hidden_size,
        position_embeddings_type="rotary",
        feature_projection_input_dim=80 * SMALL_STRIDE,
        conv_depthwise_kernel_size=15,
        # 1 / sqrt(width): the published 0.02 is for 1024, and makes a narrow network wait long before it learns.
        initializer_range=round(model.hidden_size**-0.5, 4),
    )
