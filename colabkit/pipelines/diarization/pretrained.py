"""HuBERT, WavLM and wav2vec 2.0 as the encoder of FastDiarizationModel.

Axes: B batch, T audio sample at 16 kHz, F frame of 20 ms, G frame of 40 ms, L layer, H hidden of the encoder, D hidden.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from colabkit.core.errors import DataError, StateError
from colabkit.pipelines.diarization import FRAME_SAMPLES

CLASS_NAMES = {"hubert": "Hubert", "wavlm": "WavLM", "wav2vec2": "Wav2Vec2"}
SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128,
         "conv_dim": (32,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
# What is for pretraining: hidden stretches would still have to be labelled, and dropped layers get no gradient.
TRAINS_EVERYTHING = {"mask_time_prob": 0.0, "mask_feature_prob": 0.0, "layerdrop": 0.0, "add_adapter": False}
COMPANIONS = ("torchaudio", "torchvision")  # transformers imports them wherever they are installed, whole or broken
ON_THE_HUB = {"hubert": "facebook/hubert-base-ls960", "wavlm": "microsoft/wavlm-base-plus", "wav2vec2": "facebook/wav2vec2-base"}


class PretrainedEncoder(nn.Module):
    """A Hub model's layers, mixed with learnt weights. Shapes: wave (B, T) -> core (B, D, G), fine (B, D, F).

    F = ceil(T / 320) and G = ceil(F / 2), frames centred as those of the log-mel encoder. `encoder_name` is a Hub id
    or a folder; empty: a small network of the same kind with random weights, for tests and trials without a download.
    `freeze` keeps the encoder as it came, in evaluation mode; what is behind it is trained.
    Raises: DataError when the model cannot be had or is of another kind; StateError without a usable transformers.
    Source: the weighted sum of layers, Yang et al. 2021, SUPERB.
    """

    def __init__(self, encoder_type: str, encoder_name: str, hidden_size: int, *, freeze: bool):
        super().__init__()
        self.backbone, self.normalises = load_backbone(encoder_type, encoder_name)
        config = self.backbone.config
        stride, reach = 1, 1
        for kernel, step in zip(config.conv_kernel, config.conv_stride, strict=True):
            reach, stride = reach + (kernel - 1) * stride, stride * step
        if stride != FRAME_SAMPLES:
            raise DataError("Cannot use this encoder", got=f"a frame every {stride} samples", expected=f"every {FRAME_SAMPLES}",
                            where=encoder_name, fix=f"--set model.encoder_name={ON_THE_HUB[encoder_type]}")
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


@contextmanager
def broken_companions_masked() -> Iterator[None]:
    """Make transformers believe that packages which are installed but do not import are not installed.

    A torchaudio built for another torch raises OSError on import and takes models with it that never use it.
    """
    broken = [name for name in COMPANIONS if not _imports(name)]
    utils = importlib.import_module("transformers.utils.import_utils") if "transformers" in sys.modules else None
    sys.modules.update(dict.fromkeys(broken))  # None: `import` and `find_spec` say that there is no such package
    for name in broken:
        is_available = getattr(utils, f"is_{name}_available", None)
        if hasattr(is_available, "cache_clear"):
            is_available.cache_clear()  # asked before; and what it learns now stays true afterwards
    try:
        yield
    finally:
        for name in broken:
            if sys.modules.get(name, broken) is None:
                del sys.modules[name]


def _imports(name: str) -> bool:
    """Say whether a package is absent or imports well, remembering nothing of a failed attempt."""
    if importlib.util.find_spec(name) is None:
        return True
    try:
        importlib.import_module(name)
    except Exception:  # an OSError from the linker, a RuntimeError from an operator registry, an ImportError
        return False
    return True


@broken_companions_masked()
def load_backbone(encoder_type: str, encoder_name: str) -> tuple[nn.Module, bool]:
    """Return the encoder of a Hub id or folder (or a small random one), and whether it wants unit-variance waves.

    Raises: DataError when it cannot be had, is of another kind, or its weights are not whole.
    """
    config_class, model_class, extractor_class, auto_config = (
        _transformers_class(name) for name in (f"{CLASS_NAMES[encoder_type]}Config", f"{CLASS_NAMES[encoder_type]}Model",
                                               "Wav2Vec2FeatureExtractor", "AutoConfig"))
    if not encoder_name:
        config = config_class(**SMALL, **TRAINS_EVERYTHING)
        return model_class(config), True
    name = str(Path(encoder_name).expanduser()) if Path(encoder_name).expanduser().is_dir() else encoder_name
    with _quietly(), _named_faults(encoder_type, encoder_name):
        config = auto_config.from_pretrained(name)
        if config.model_type != encoder_type:
            raise _other_kind(encoder_type, encoder_name, config.model_type)
        config = config_class.from_pretrained(name, **TRAINS_EVERYTHING)
        model, info = model_class.from_pretrained(name, config=config, output_loading_info=True)
    lacking = sorted(info["missing_keys"]) + sorted(str(key) for key in info.get("mismatched_keys") or ())
    if lacking:
        raise DataError("The encoder's weights are not whole", got=f"{len(lacking)} tensors missing, such as {lacking[0]}",
                        expected="all weights of the model", where=encoder_name,
                        fix=f"delete the folder and fetch it again, or --set model.encoder_name={ON_THE_HUB[encoder_type]}")
    return model.float(), _normalises(extractor_class, name, config)


def _normalises(extractor_class: Any, name: str, config: Any) -> bool:
    """Read whether the model was trained on normalised waves; a model that does not say is judged by its norm layers."""
    try:
        with _quietly():
            return bool(extractor_class.from_pretrained(name).do_normalize)
    except (OSError, ValueError):  # there is no preprocessor_config.json
        return config.feat_extract_norm == "layer"


def _other_kind(encoder_type: str, encoder_name: str, found: str) -> DataError:
    fix = f"--set model.encoder_type={found}" if found in CLASS_NAMES else \
        f"--set model.encoder_name={ON_THE_HUB[encoder_type]}"
    return DataError("The encoder is of another kind", got=found, expected=encoder_type, where=encoder_name, fix=fix)


@contextmanager
def _named_faults(encoder_type: str, encoder_name: str) -> Iterator[None]:
    """Turn what goes wrong on the way from the Hub or a folder into one error that says how to mend it."""
    from safetensors import SafetensorError
    try:
        yield
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        text = f"{type(error).__name__}: {error}"
        chain = text + " " + repr(error.__cause__)
        if any(word in chain.lower() for word in ("gated repo", "401 client error", "403 client error", "unauthorized")):
            fix = "accept the model's terms on its Hub page, then set HF_TOKEN (on Colab: Secrets) and run this again"
        elif Path(encoder_name).expanduser().is_dir():
            fix = "the folder needs config.json and model.safetensors: make it with model.save_pretrained(folder)"
        else:
            fix = (f"connect to the Internet, or --set model.encoder_name=FOLDER of a downloaded model; Hub ids look like "
                   f"{ON_THE_HUB[encoder_type]}, private ones need HF_TOKEN; or --set model.encoder_type=lightweight-cnn")
        raise DataError("The pretrained encoder cannot be had", got=text.splitlines()[0][:200],
                        expected="a Hub id or a folder with a model", where=encoder_name, fix=fix) from error


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep transformers' notes and bars about a model's head, which is not used here, off the screen."""
    from transformers.utils import logging
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _transformers_class(name: str) -> Any:
    try:
        return getattr(importlib.import_module("transformers"), name)
    except Exception as error:  # whatever a half-installed package raises
        raise StateError("Pretrained encoders need a usable transformers", got=f"{type(error).__name__}: {error}"[:200],
                         expected="transformers 4.46 or newer", where=f"from transformers import {name}",
                         fix="pip install -U transformers, or --set model.encoder_type=lightweight-cnn") from error
