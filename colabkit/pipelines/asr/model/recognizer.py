"""The network to fine-tune, with all it takes to hear and to write: features of its input, tokens of its output.

    recognizer = build_model(config.model, vocabulary, language="en")
    recognizer.save(folder)                       # AutoModelForCTC.from_pretrained(folder) reads it, too
    recognizer = load_model(folder)

Axes: B sample, T frame of the output, C token, L target token.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from colabkit.core.errors import ColabkitError, UsageError
from colabkit.io.models.transformers_models import (
    broken_companions_masked,
    lacking_weights,
    named_faults,
    place_of,
    quietly,
    require_whole,
    transformers_class,
)
from colabkit.pipelines.asr.config import ModelConfig
from colabkit.pipelines.asr.model.features import Features, MelFeatures, open_features
from colabkit.pipelines.asr.model.kinds import (
    CLASS_NAMES,
    EXAMPLE,
    SMALL_STRIDE,
    is_ctc,
    require_kind,
    small_shape,
    training_changes,
)
from colabkit.pipelines.asr.model.whisper import WhisperText
from colabkit.pipelines.asr.text.vocabulary import Vocabulary

HEAD = "lm_head."
IGNORED = -100  # fills up targets


@dataclass(frozen=True)
class Recognizer:
    """A network of transformers and its `kind` (its model_type), what it hears, and the tokens it writes."""

    model: nn.Module
    kind: str
    features: Features
    coder: Vocabulary | WhisperText

    @property
    def is_ctc(self) -> bool:
        return is_ctc(self.kind)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def save(self, folder: Path) -> None:
        """Write a folder that transformers, and `load_model`, read."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with quietly():
            self.model.save_pretrained(folder)
        self.features.save(folder)
        self.coder.save(folder)

    def log_probs(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the log-probabilities of tokens of a collated batch (B, T, C), in float32."""
        return self.model(**inputs).logits.float().log_softmax(-1)

    def losses(
        self, inputs: dict[str, torch.Tensor], labels: Sequence[torch.Tensor], num_samples: Sequence[int]
    ) -> torch.Tensor:
        """Return the loss of each sample, summed over its target tokens (B,).

        Samples are `num_samples` audio samples long. CTC: -log p(text | audio); zero, with no gradient, for a text that
        does not fit into the frames. Whisper: cross-entropy.
        """
        if self.is_ctc:
            return self.ctc_losses(self.log_probs(inputs), labels, num_samples)
        labels_BL = nn.utils.rnn.pad_sequence(list(labels), batch_first=True, padding_value=IGNORED).to(self.device)
        logits_BLC = self.model(
            **inputs, decoder_input_ids=self.coder.shifted(labels_BL, IGNORED), use_cache=False
        ).logits
        return F.cross_entropy(
            logits_BLC.float().transpose(1, 2), labels_BL, ignore_index=IGNORED, reduction="none"
        ).sum(1)

    def ctc_losses(
        self, log_probs_BTC: torch.Tensor, labels: Sequence[torch.Tensor], num_samples: Sequence[int]
    ) -> torch.Tensor:
        """Return the CTC loss of each sample (B,)."""
        frames_B = torch.tensor([self.features.num_frames(n) for n in num_samples])
        lengths_B = torch.tensor([len(one) for one in labels])
        with torch.backends.cudnn.flags(enabled=False):  # its CTC takes blank 0 and short texts only
            targets = torch.cat(list(labels)).to(log_probs_BTC.device)
            return F.ctc_loss(
                log_probs_BTC.transpose(0, 1),
                targets,
                frames_B,
                lengths_B,
                blank=self.coder.blank,
                reduction="none",
                zero_infinity=True,
            )


@broken_companions_masked()
def build_model(
    config: ModelConfig,
    vocabulary: Vocabulary,
    *,
    language: str = "en",
    seed: int = 0,
    choose: Callable[[str, Any, str], Any] | None = None,
) -> Recognizer:
    """Build the settings' model: one of the Hub or a folder with a head for the vocabulary, or a small random one.

    Raises: DataError when the model cannot be had or its weights are not whole; UsageError for another kind, or more
    layers to freeze than there are; StateError without a usable transformers.
    """
    torch.manual_seed(seed)
    if not config.name:
        shape = small_shape(config)
        model = _class("Wav2Vec2BertForCTC")(_for_training(shape, config, vocabulary))
        return Recognizer(_prepared(model, config), shape.model_type, MelFeatures(stride=SMALL_STRIDE), vocabulary)
    name = place_of(config.name)
    shape = _shape_of(name, config.name)
    coder = vocabulary if is_ctc(shape.model_type) else WhisperText.open(name, language)
    with _faults(config.name):
        features = open_features(name, shape)
        model, info = _model_class(shape.model_type).from_pretrained(
            name,
            config=_for_training(shape, config, vocabulary),
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            use_safetensors=True,
            dtype=torch.float32,
        )
    lacking = lacking_weights(info)
    require_whole(
        [key for key in lacking if not key.startswith(HEAD) and "masked_spec_embed" not in key],
        config.name,
        what="model",
        fix="delete the folder and fetch it again, or choose another model.name",
    )
    if is_ctc(shape.model_type):
        keeps = _vocabulary_of(name) == vocabulary and not any(key.startswith(HEAD) for key in lacking)
        if not keeps:
            _make_head_anew(model, seed)
        if choose:
            choose(
                "model.head",
                "kept" if keeps else "new",
                "the model already writes these characters"
                if keeps
                else f"for the {len(vocabulary)} characters of these transcripts",
            )
    else:
        coder.prepare(model)
    return Recognizer(_prepared(model, config), shape.model_type, features, coder)


@broken_companions_masked()
def load_model(folder: str | Path) -> Recognizer:
    """Load a model that was fine-tuned, of a folder or the Hub, to transcribe with.

    Raises: as build_model, and DataError where the folder holds no vocabulary.
    """
    name = place_of(str(folder))
    shape = _shape_of(name, str(folder))
    with _faults(str(folder)):
        features = open_features(name, shape)
        model, info = _model_class(shape.model_type).from_pretrained(
            name, output_loading_info=True, use_safetensors=True, dtype=torch.float32
        )
    require_whole(
        [key for key in lacking_weights(info) if key != "masked_spec_embed"],
        str(folder),
        what="model",
        fix="copy the folder again",
    )
    coder = _vocabulary_or_fault(name) if is_ctc(shape.model_type) else WhisperText.open(name, None)
    if isinstance(coder, WhisperText):
        coder.prepare(model)
    make_exact(model)
    return Recognizer(model.eval(), shape.model_type, features, coder)


def _class(name: str) -> Any:
    return transformers_class(name, what="ASR models")


def _model_class(model_type: str) -> Any:
    if model_type == "wavlm":  # its attention gives torch two kinds of masks, which torch warns of at every step
        warnings.filterwarnings("ignore", message="Support for mismatched key_padding_mask and attn_mask")
    return _class(CLASS_NAMES[model_type] + ("ForCTC" if is_ctc(model_type) else "ForConditionalGeneration"))


def _for_training(shape: Any, config: ModelConfig, vocabulary: Vocabulary) -> Any:
    for name, value in training_changes(shape, config).items():
        setattr(shape, name, value)
    if is_ctc(shape.model_type):
        shape.vocab_size, shape.pad_token_id = len(vocabulary), vocabulary.blank
        shape.bos_token_id = shape.eos_token_id = None  # of another vocabulary
    return shape


@contextmanager
def _faults(name: str) -> Iterator[None]:
    """named_faults and quietly at once, for models of this pipeline."""
    otherwise = "leave model.name empty for a small network with random weights"
    with quietly(), named_faults(name, what="model", setting="model.name", example=EXAMPLE, otherwise=otherwise):
        yield


def _shape_of(place: str, name: str) -> Any:
    """Return the config of the model at a place. Raises: UsageError for a kind that is not fine-tuned here."""
    with _faults(name):
        shape = _class("AutoConfig").from_pretrained(place, trust_remote_code=False)
    require_kind(shape.model_type, name)
    return shape


def _vocabulary_of(name: str) -> Vocabulary | None:
    """Return the vocabulary that a model came with, None where it has none that can be read."""
    from transformers.utils import cached_file

    try:
        found = [
            cached_file(
                name, file, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
            )
            for file in ("vocab.json", "tokenizer_config.json")
        ]
        return Vocabulary.load(Path(found[0]).parent) if found[0] else None
    except (OSError, ValueError, ColabkitError):
        return None


def _vocabulary_or_fault(name: str) -> Vocabulary:
    if Path(name).is_dir():
        return Vocabulary.load(Path(name))
    found = _vocabulary_of(name)
    if found is None:
        raise UsageError(
            "The model writes no characters",
            got=name,
            expected="a model that was fine-tuned for CTC",
            fix="fine-tune it first: colabkit run asr --set model.name=" + name,
        )
    return found


def _make_head_anew(model: nn.Module, seed: int) -> None:
    """Make the weights of the head anew, the same for the same seed whatever was loaded before."""
    torch.manual_seed(seed)
    with torch.no_grad():
        model.lm_head.weight.normal_(0.0, getattr(model.config, "initializer_range", 0.02))
        model.lm_head.bias.zero_()


def _prepared(model: nn.Module, config: ModelConfig) -> nn.Module:
    """Freeze what is to be frozen, and make padding not matter."""
    if config.freeze_feature_encoder and hasattr(model, "freeze_feature_encoder"):
        model.freeze_feature_encoder()
    freeze_lowest(model, config.frozen_layers)
    make_exact(model)
    return model.train()


def freeze_lowest(model: nn.Module, num_layers: int) -> None:
    """Freeze the lowest layers of the encoder and all that lies below them.

    Raises: UsageError when there are not so many.
    """
    if not num_layers:
        return
    inside = model.base_model
    encoder = inside.encoder
    if num_layers > len(encoder.layers):
        raise UsageError(
            "Cannot freeze so many layers",
            got=num_layers,
            expected=f"at most {len(encoder.layers)}",
            where="model.frozen_layers",
            fix=f"--set model.frozen_layers={len(encoder.layers)}",
        )
    below = [getattr(inside, name, None) for name in ("feature_extractor", "feature_projection")]
    below += [getattr(encoder, name, None) for name in ("pos_conv_embed", "conv1", "conv2", "embed_positions")]
    if getattr(inside.config, "do_stable_layer_norm", True) is False:
        below.append(getattr(encoder, "layer_norm", None))  # there it stands before the layers
    for module in (*filter(None, below), *encoder.layers[:num_layers]):
        module.requires_grad_(False)
    if getattr(inside, "masked_spec_embed", None) is not None:
        inside.masked_spec_embed.requires_grad_(False)


class OwnLengthNorm(nn.GroupNorm):
    """The group norm over time of wav2vec 2.0 and HuBERT base, over each sample's own length: padding changes nothing.

    `lengths`: of each sample, in frames; None: all are whole.
    """

    lengths: list[int] | None = None

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        lengths, num_frames = self.lengths, input.shape[-1]
        if lengths is None or len(lengths) != len(input) or min(lengths) >= num_frames:
            return super().forward(input)
        return torch.cat(
            [
                F.pad(super(OwnLengthNorm, self).forward(one[..., :length]), (0, num_frames - length))
                for one, length in zip(input.split(1), lengths, strict=True)
            ]
        )


def make_exact(model: nn.Module) -> None:
    """Make a sample's output independent of what it is padded with; weights and their names stay as they are.

    A norm over time takes in the padding: these models were trained on samples of one length, and hear each sample
    alone as they were trained; padded, too, after this.
    """
    inside = model.base_model
    layers = getattr(getattr(inside, "feature_extractor", None), "conv_layers", ())
    if not len(layers) or not isinstance(getattr(layers[0], "layer_norm", None), nn.GroupNorm):
        return
    norm = layers[0].layer_norm
    norm.__class__ = OwnLengthNorm  # the same module, so that no reference to it and no weight moves
    conv = layers[0].conv

    def tell(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        mask_BS = kwargs.get("attention_mask", args[1] if len(args) > 1 else None)
        norm.lengths = (
            None
            if mask_BS is None
            else [max(1, (n - conv.kernel_size[0]) // conv.stride[0] + 1) for n in mask_BS.sum(-1).tolist()]
        )

    inside.register_forward_pre_hook(tell, with_kwargs=True)
