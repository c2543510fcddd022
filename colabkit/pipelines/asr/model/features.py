"""Features: waves to a model's input, alone and put together to padded tensors, for each family of models.

    features = open_features(folder_or_hub_id, model_config)
    inputs = features.collate([features(wave) for wave in waves])     # model(**inputs)

A sample means the same to the model alone and padded: each is normalised by itself, and padding is masked.
Axes: B sample, S audio sample at 16 kHz, T frame, F feature.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from scipy import fft, sparse

from colabkit.core import files
from colabkit.core.errors import BrokenSampleError, DataError
from colabkit.pipelines.asr import RATE_HZ
from colabkit.pipelines.asr.model.kinds import MASK_FRAMES

PREPROCESSOR = "preprocessor_config.json"
_FLOOR = 1.192092955078125e-07  # of mel energies; Kaldi's, the smallest step of a float32


class Features(Protocol):
    """A family's features.

    `step_samples`: audio samples from one frame of the model's output to the next (Whisper: none).
    """

    step_samples: int

    def __call__(self, wave_S: np.ndarray) -> np.ndarray: ...
    def collate(self, inputs: list[np.ndarray]) -> dict[str, Any]: ...
    def num_frames(self, num_samples: int) -> int: ...
    def save(self, folder: Path) -> None: ...


class WaveFeatures:
    """Waves as they are, or each brought to mean 0 and variance 1: wav2vec 2.0, XLS-R, HuBERT.

    `strides`: (kernel, stride) of each convolution. `masked`: whether transformers masks the padding of this model.
    Source: transformers' Wav2Vec2FeatureExtractor.
    """

    name = "input_values"

    def __init__(self, strides: list[tuple[int, int]], *, normalised: bool, masked: bool = True):
        self.strides, self.normalised, self.masked = strides, normalised, masked
        self.step_samples = math.prod(stride for _, stride in strides)

    def __call__(self, wave_S: np.ndarray) -> np.ndarray:
        wave_S = _checked(wave_S, self.least_samples)
        if not self.normalised:
            return wave_S
        return ((wave_S - wave_S.mean()) / np.sqrt(wave_S.var() + 1e-7)).astype(np.float32)

    @property
    def least_samples(self) -> int:
        reach, step = 1, 1
        for kernel, stride in self.strides:
            reach, step = reach + (kernel - 1) * step, step * stride
        return reach

    def num_frames(self, num_samples: int) -> int:
        """Return how many frames of output a wave of so many samples gives."""
        for kernel, stride in self.strides:
            num_samples = (num_samples - kernel) // stride + 1 if num_samples >= kernel else 0
        return num_samples

    def collate(self, inputs: list[np.ndarray]) -> dict[str, Any]:
        """Return input_values (B, S) and attention_mask (B, S) as tensors."""
        return _padded(self.name, inputs, least=self.least_samples + MASK_FRAMES * self.step_samples)

    def save(self, folder: Path) -> None:
        files.write_json(
            Path(folder) / PREPROCESSOR,
            {
                "feature_extractor_type": "Wav2Vec2FeatureExtractor",
                "do_normalize": self.normalised,
                "feature_size": 1,
                "padding_side": "right",
                "padding_value": 0.0,
                "return_attention_mask": self.masked,
                "sampling_rate": RATE_HZ,
            },
        )


class MelFeatures:
    """Log-mel energies of w2v-BERT 2.0: as Kaldi's, each band normalised over the sample, `stride` frames put together.

    Equal to transformers' SeamlessM4TFeatureExtractor, all frames at once instead of one after another. A frame has 25
    ms, every 10 ms. Shape of a sample: (T, 80 * stride).
    """

    name = "input_features"
    FRAME, HOP, FFT = 400, 160, 512

    def __init__(self, *, stride: int = 2, num_bands: int = 80, padding_value: float = 0.0):
        self.stride, self.num_bands, self.padding_value = stride, num_bands, padding_value
        self.step_samples = stride * self.HOP
        # Sparse, for one core: a dense product would be shared among threads that wait for each other.
        self.mel_FK = sparse.csr_array(_mel_filters(num_bands, self.FFT).T)
        place = np.arange(self.FRAME)
        self.window = ((0.5 - 0.5 * np.cos(2 * np.pi * place / (self.FRAME - 1))) ** 0.85).astype(np.float32)  # Povey's

    def __call__(self, wave_S: np.ndarray) -> np.ndarray:
        wave_S = _checked(wave_S, self.least_samples)
        feats_TF = self.log_mel(wave_S)
        feats_TF = (feats_TF - feats_TF.mean(0)) / np.sqrt(feats_TF.var(0, ddof=1) + 1e-7)
        whole = len(feats_TF) - len(feats_TF) % self.stride
        return np.ascontiguousarray(feats_TF[:whole].reshape(-1, self.stride * self.num_bands), np.float32)

    @property
    def least_samples(self) -> int:
        return self.FRAME + (max(self.stride, 2) - 1) * self.HOP  # a variance needs two frames

    def log_mel(self, wave_S: np.ndarray) -> np.ndarray:
        """Return the log energies of the mel bands before anything is normalised. Shape: (T, F)."""
        frames_TS = np.lib.stride_tricks.sliding_window_view(wave_S * np.float32(2**15), self.FRAME)[:: self.HOP]
        frames_TS = frames_TS - frames_TS.mean(1, keepdims=True)
        emphasised_TS = np.empty_like(frames_TS)
        emphasised_TS[:, 1:] = frames_TS[:, 1:] - np.float32(0.97) * frames_TS[:, :-1]
        emphasised_TS[:, 0] = frames_TS[:, 0] * np.float32(1 - 0.97)
        spectrum_TK = fft.rfft(emphasised_TS * self.window, self.FFT)
        power_TK = np.square(spectrum_TK.real) + np.square(spectrum_TK.imag)
        return np.log(np.maximum((self.mel_FK @ power_TK.T).T, np.float32(_FLOOR)))

    def num_frames(self, num_samples: int) -> int:
        """Return how many frames of output a wave of so many samples gives."""
        return max(0, (num_samples - self.FRAME) // self.HOP + 1) // self.stride

    def collate(self, inputs: list[np.ndarray]) -> dict[str, Any]:
        """Return input_features (B, T, F) and attention_mask (B, T) as tensors."""
        return _padded(self.name, inputs, self.padding_value, least=MASK_FRAMES + 1)

    def save(self, folder: Path) -> None:
        files.write_json(
            Path(folder) / PREPROCESSOR,
            {
                "feature_extractor_type": "SeamlessM4TFeatureExtractor",
                "feature_size": self.num_bands,
                "num_mel_bins": self.num_bands,
                "padding_side": "right",
                "padding_value": self.padding_value,
                "return_attention_mask": True,
                "sampling_rate": RATE_HZ,
                "stride": self.stride,
            },
        )


class WhisperFeatures:
    """Log-mel energies of exactly 30 s, shorter waves filled with silence. Shape of a sample: (80 or 128, 3000).

    Source: transformers' WhisperFeatureExtractor, which computes them.
    """

    name = "input_features"

    def __init__(self, extractor: Any):
        self.extractor, self.step_samples = extractor, 0
        self.seconds = float(extractor.chunk_length)

    def __call__(self, wave_S: np.ndarray) -> np.ndarray:
        wave_S = _checked(wave_S, 1)
        if len(wave_S) > self.extractor.n_samples:
            raise BrokenSampleError(
                "The recording is longer than Whisper takes",
                got=f"{len(wave_S) / RATE_HZ:.1f} s",
                expected=f"{self.seconds:g} s at most",
                fix=f"--set data.longest_seconds={self.seconds:g}",
            )
        return self.extractor(wave_S, sampling_rate=RATE_HZ, return_tensors="np").input_features[0]

    def whole(self, wave_S: np.ndarray) -> dict[str, Any]:
        """Return input_features (1, F, T) and attention_mask (1, T) of a wave of any length, as tensors."""
        return dict(
            self.extractor(
                _checked(wave_S, 1),
                sampling_rate=RATE_HZ,
                truncation=False,
                padding="longest",
                return_attention_mask=True,
                return_tensors="pt",
            )
        )

    def num_frames(self, num_samples: int) -> int:
        """Return a bound that no text reaches: Whisper's output is not tied to frames."""
        return 1 << 30

    def collate(self, inputs: list[np.ndarray]) -> dict[str, Any]:
        """Return input_features (B, F, T) as a tensor."""
        import torch

        return {self.name: torch.from_numpy(np.stack(inputs))}

    def save(self, folder: Path) -> None:
        self.extractor.save_pretrained(folder)


def open_features(name: str, config: Any) -> Features:
    """Return the features that a model's folder or Hub id says it was trained with; `config` is the model's.

    Raises: DataError for a sampling rate other than 16 kHz.
    """
    from colabkit.io.models.transformers_models import normalises, quietly, transformers_class

    if config.model_type == "whisper":
        with quietly():
            return WhisperFeatures(transformers_class("WhisperFeatureExtractor").from_pretrained(name))
    if config.model_type == "wav2vec2-bert":
        try:
            with quietly():
                extractor = transformers_class("SeamlessM4TFeatureExtractor").from_pretrained(name)
        except (OSError, ValueError):  # there is no preprocessor_config.json
            return MelFeatures(stride=max(1, config.feature_projection_input_dim // 80))
        if extractor.sampling_rate != RATE_HZ:
            raise DataError(
                "The model hears at another rate",
                got=f"{extractor.sampling_rate} Hz",
                expected=f"{RATE_HZ} Hz",
                where=name,
                fix="choose a model that was trained on speech at 16 kHz",
            )
        return MelFeatures(
            stride=extractor.stride, num_bands=extractor.num_mel_bins, padding_value=extractor.padding_value
        )
    return WaveFeatures(
        list(zip(config.conv_kernel, config.conv_stride, strict=True)),
        normalised=normalises(name, config),
        masked=config.feat_extract_norm == "layer",
    )


def _checked(wave_S: np.ndarray, least_samples: int) -> np.ndarray:
    """Return the wave as float32, filled up where it is too short for one frame.

    Raises: BrokenSampleError for what is no wave.
    """
    wave_S = np.asarray(wave_S, np.float32)
    if wave_S.ndim != 1 or not wave_S.size or not np.isfinite(wave_S).all():
        raise BrokenSampleError(
            "A recording is no sound",
            got=f"shape {wave_S.shape}" if wave_S.ndim != 1 or not wave_S.size else "numbers that are not finite",
            expected="one channel of finite numbers",
            fix="leave the recording out, or convert it again",
        )
    return np.pad(wave_S, (0, max(0, least_samples - len(wave_S))))


def _padded(name: str, inputs: list[np.ndarray], value: float = 0.0, *, least: int) -> dict[str, Any]:
    """Return inputs padded to the longest, and to `least`: SpecAugment refuses batches shorter than what it hides."""
    import torch

    longest = max(least, *map(len, inputs))
    padded = np.full((len(inputs), longest, *inputs[0].shape[1:]), value, np.float32)
    mask_BT = np.zeros((len(inputs), longest), np.int64)
    for i, values in enumerate(inputs):
        padded[i, : len(values)] = values
        mask_BT[i, : len(values)] = 1
    return {name: torch.from_numpy(padded), "attention_mask": torch.from_numpy(mask_BT)}


def _mel_filters(num_bands: int, fft: int, lowest_hz: float = 20.0, highest_hz: float = RATE_HZ / 2) -> np.ndarray:
    """Return triangles that are even in mel, as Kaldi makes them. Shape: (fft / 2 + 1, num_bands) float32."""

    def mel(hz: np.ndarray) -> np.ndarray:
        return 1127.0 * np.log(1.0 + np.asarray(hz) / 700.0)

    edges = np.linspace(mel(lowest_hz), mel(highest_hz), num_bands + 2)
    places = mel(np.arange(fft // 2 + 1) * RATE_HZ / fft)[:, None]
    rising = (places - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - places) / (edges[2:] - edges[1:-1])
    return np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)
