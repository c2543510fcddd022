"""Families of transformers' codecs: how each pads a wave, which calls make codes of it and a wave of codes.

Each family gives, for a batch of waves with the same number of frames, the codes that its documented call (feature
extractor and `model.encode`) gives for each wave alone. Axes: B wave, N sample, M mel frame, K codebook, F frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from colabkit.core.errors import DataError, UsageError
from colabkit.core.versions.differences import modules_of_encoder
from colabkit.pipelines.dataset.codecs.kaldi_mel import normalised_log_mels
from colabkit.pipelines.dataset.codecs.ragged import LEAST_FRAMES, ended_alike

FLOAT32_EXACT = 2**24  # Mimi and EnCodec count samples in float32: more of them cannot be told apart

# seconds at once: wide convolutions over a batch fall out of a CPU's caches; DAC takes 1.5 to 2.4x as long
ALONE_ON_CPU = 1.0


class Family:
    """One kind of codec. `decoder` names the modules that only decoding needs."""

    decoder: tuple[str, ...] = ()
    most_samples = FLOAT32_EXACT
    seconds_on_cpu = 8.0  # at once; measured with Mimi and EnCodec, 32 s are a quarter to a half slower than 2 to 8 s

    def __init__(self, config: Any, extractor: dict[str, Any]):
        """`extractor`: the feature extractor's settings; {} where the model brings none."""
        self.config = config
        self.rate_hz_in = self.rate_hz_out = int(extractor.get("sampling_rate") or config.sampling_rate)
        self.most_codebooks, self.num_codebooks = 1, 1

    def choose_codebooks(self, num: int) -> None:
        """Take the first `num` codebooks only. Raises: UsageError where the model cannot."""
        if not 1 <= num <= self.most_codebooks:
            raise UsageError(
                "The codec has not so many codebooks",
                got=num,
                expected=f"1 to {self.most_codebooks}",
                fix="choose a number of codebooks in that range, or 0 for the model's own choice",
            )
        self.num_codebooks = num

    def parts(self, lengths: Sequence[int], frames: int) -> list[list[int]]:
        """Return which waves go through the network together."""
        return [list(range(len(lengths)))]


class Semantic(Family):
    """NeuCodec and X-codec2: a wave encoder and a w2v-BERT of its mel features, one codebook of finite scalars."""

    decoder = ("acoustic_decoder",)
    seconds_on_cpu = ALONE_ON_CPU

    def __init__(self, config: Any, extractor: dict[str, Any]):
        self.config = config
        self.is_neucodec = config.model_type == "neucodec"
        self.rate_hz_in = int(config.input_sampling_rate if self.is_neucodec else config.sampling_rate)
        self.rate_hz_out = int(config.output_sampling_rate) if self.is_neucodec else self.rate_hz_in
        self.hop = math.prod(config.downsampling_ratios)
        self.num_codebooks = self.most_codebooks = 1
        self.codebook_size = math.prod(config.quantization_levels)
        if self.rate_hz_in != 16_000 or self.hop != 320:
            raise DataError(
                "The codec's frames do not fit its mel features",
                got=f"{self.hop} samples at {self.rate_hz_in} Hz",
                expected="320 samples at 16000 Hz",
                fix="choose a model with the layout of neuphonic/neucodec",
            )

    def num_frames(self, num_samples: int) -> int:
        # One sample of padding, then up to a whole frame. NeuCodec takes no mel frame across the edges, and so loses a
        # frame.
        return num_samples // self.hop + (0 if self.is_neucodec else 1)

    def encode(self, model: Any, waves: Sequence[np.ndarray], device: Any) -> Any:
        import torch

        length = (len(waves[0]) // self.hop + 1) * self.hop
        wave_BN = stacked(waves, length).to(device)
        edge = 0 if self.is_neucodec else self.hop // 2
        mels_BMC = normalised_log_mels(torch.nn.functional.pad(wave_BN, (edge, edge)))
        features = mels_BMC.reshape(len(waves), mels_BMC.shape[1] // 2, -1)
        seen = torch.ones(features.shape[:2], dtype=torch.int64, device=device)
        return model.encode(wave_BN[:, None], input_features=features, input_features_mask=seen).audio_codes

    def decode(self, model: Any, codes_BKF: Any) -> Any:
        return model.decode(audio_codes=codes_BKF).audio_values[:, 0]


class Mimi(Family):
    """A causal encoder with a transformer, a semantic and many acoustic codebooks at 12.5 Hz."""

    decoder = ("decoder",)

    def __init__(self, config: Any, extractor: dict[str, Any]):
        super().__init__(config, extractor)
        self.hop = int(config.frame_size)
        self.codebook_size = int(config.codebook_size)
        self.num_codebooks = self.most_codebooks = int(config.num_quantizers)
        require_mono(config)

    def num_frames(self, num_samples: int) -> int:
        return -(-num_samples // self.hop)

    def parts(self, lengths: Sequence[int], frames: int) -> list[list[int]]:
        return parts_of_causal(lengths, frames, self.config.use_causal_conv)

    def encode(self, model: Any, waves: Sequence[np.ndarray], device: Any) -> Any:
        lengths = [len(wave) for wave in waves]
        with ended_alike(modules_of_encoder(model), lengths):
            return model.encode(
                stacked(waves, max(lengths))[:, None].to(device), num_quantizers=self.num_codebooks
            ).audio_codes

    def decode(self, model: Any, codes_BKF: Any) -> Any:
        return model.decode(audio_codes=codes_BKF).audio_values[:, 0]


class Dac(Family):
    """A convolutional encoder with a residual quantizer; waves are filled up to whole frames."""

    decoder = ("decoder",)
    seconds_on_cpu = ALONE_ON_CPU

    def __init__(self, config: Any, extractor: dict[str, Any]):
        super().__init__(config, extractor)
        self.hop = math.prod(config.downsampling_ratios)
        self.padded_to = int(extractor.get("hop_length") or self.hop)
        self.codebook_size = int(config.codebook_size)
        self.num_codebooks = self.most_codebooks = int(config.n_codebooks)

    def num_frames(self, num_samples: int) -> int:
        length = -(-num_samples // self.padded_to) * self.padded_to
        for stride in self.config.downsampling_ratios:
            length = (length + 2 * math.ceil(stride / 2) - 2 * stride) // stride + 1
        return max(0, length)

    def encode(self, model: Any, waves: Sequence[np.ndarray], device: Any) -> Any:
        length = -(-max(map(len, waves)) // self.padded_to) * self.padded_to
        return model.encode(stacked(waves, length)[:, None].to(device), n_quantizers=self.num_codebooks).audio_codes

    def parts(self, lengths: Sequence[int], frames: int) -> list[list[int]]:
        return grouped([-(-length // self.padded_to) for length in lengths])

    def decode(self, model: Any, codes_BKF: Any) -> Any:
        return model.decode(audio_codes=codes_BKF).audio_values.flatten(1)


class Encodec(Family):
    """A causal encoder with an LSTM and a residual quantizer; the number of codebooks is a bandwidth."""

    decoder = ("decoder",)

    def __init__(self, config: Any, extractor: dict[str, Any]):
        super().__init__(config, extractor)
        require_mono(config)
        if config.normalize or config.chunk_length_s:
            raise DataError(
                "This EnCodec cuts and scales its input: its codes alone are not the speech",
                got=f"normalize={config.normalize}, chunk_length_s={config.chunk_length_s}",
                expected="a model for 24 kHz speech",
                fix="choose facebook/encodec_24khz",
            )
        self.hop = int(config.hop_length)
        self.codebook_size = int(config.codebook_size)
        self.bandwidths = {self._codebooks_of(bandwidth): bandwidth for bandwidth in reversed(config.target_bandwidths)}
        self.most_codebooks = max(self.bandwidths)
        self.num_codebooks = self._codebooks_of(config.target_bandwidths[0])

    def _codebooks_of(self, bandwidth_kbps: float) -> int:
        per_codebook = math.log2(self.config.codebook_size) * self.config.frame_rate
        return min(int(max(1, bandwidth_kbps * 1000 // per_codebook)), self.config.num_quantizers)

    def choose_codebooks(self, num: int) -> None:
        if num not in self.bandwidths:
            raise UsageError(
                "The codec has no bandwidth with so many codebooks",
                got=num,
                expected="one of " + ", ".join(map(str, sorted(self.bandwidths))),
                fix="choose one of these, or 0 for the model's own choice",
            )
        self.num_codebooks = num

    def num_frames(self, num_samples: int) -> int:
        return -(-num_samples // self.hop)

    def parts(self, lengths: Sequence[int], frames: int) -> list[list[int]]:
        return parts_of_causal(lengths, frames, self.config.use_causal_conv and self.config.norm_type == "weight_norm")

    def encode(self, model: Any, waves: Sequence[np.ndarray], device: Any) -> Any:
        lengths = [len(wave) for wave in waves]
        with ended_alike(modules_of_encoder(model), lengths):
            return model.encode(
                stacked(waves, max(lengths))[:, None].to(device), bandwidth=self.bandwidths[self.num_codebooks]
            ).audio_codes[0]

    def decode(self, model: Any, codes_BKF: Any) -> Any:
        return model.decode(codes_BKF[None], [None]).audio_values[:, 0]


FAMILIES: dict[str, type[Family]] = {
    "neucodec": Semantic,
    "xcodec2": Semantic,
    "mimi": Mimi,
    "dac": Dac,
    "encodec": Encodec,
}
CLASS_NAMES = {
    "neucodec": "NeuCodecModel",
    "xcodec2": "Xcodec2Model",
    "mimi": "MimiModel",
    "dac": "DacModel",
    "encodec": "EncodecModel",
}


def stacked(waves: Sequence[np.ndarray], length: int) -> Any:
    """Return a (wave, sample) tensor with zeros behind the waves."""
    import torch

    filled = np.zeros((len(waves), length), np.float32)
    for row, wave in zip(filled, waves, strict=True):
        row[: len(wave)] = wave
    return torch.from_numpy(filled)


def grouped(keys: Sequence[int]) -> list[list[int]]:
    """Return the places of equal keys, together."""
    places: dict[int, list[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, []).append(place)
    return list(places.values())


def parts_of_causal(lengths: Sequence[int], frames: int, is_causal: bool) -> list[list[int]]:
    """Return all waves together where only their ends differ and can be mended, else those of exactly equal length."""
    return [list(range(len(lengths)))] if is_causal and frames >= LEAST_FRAMES else grouped(lengths)


def require_mono(config: Any) -> None:
    """Raise DataError for a codec of several channels."""
    if config.audio_channels != 1:
        raise DataError(
            "The codec is made for stereo music",
            got=f"{config.audio_channels} channels",
            expected="one channel",
            fix="choose a codec for speech: neucodec, mimi, dac or encodec",
        )
