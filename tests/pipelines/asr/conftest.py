"""Shared by the ASR tests: speech made of tones that a model can read, small models of the real classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from colabkit.core.errors import BrokenSampleError
from colabkit.pipelines.asr.config import DataConfig, ModelConfig
from colabkit.pipelines.asr.data.sources import list_samples
from colabkit.pipelines.asr.model.recognizer import build_model
from colabkit.pipelines.asr.text.vocabulary import Vocabulary
from colabkit.training.sizing.workload import Regime
from tests.told import Told

RATE_HZ = 16_000
LETTERS = "abcd"
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}


class Tones:
    """Speech in which each letter is its own tone, a space a pause; samples differ in length, loudness and noise."""

    def __init__(
        self, num_samples: int, *, seed: int = 0, name: str = "tones", letters: str = LETTERS, broken=(), words=()
    ):
        draw = np.random.default_rng(seed)
        self.name, self.fingerprint, self.broken = name, f"{name}-{num_samples}-{seed}", set(broken)
        self.letters, self.seed, self.reads = letters, seed, []
        self.texts = [
            " ".join(
                draw.choice(words) if words else "".join(draw.choice(list(letters), draw.integers(1, 4)))
                for _ in range(draw.integers(3, 7) if words else draw.integers(1, 4))
            )
            for _ in range(num_samples)
        ]
        self.letter_seconds = draw.uniform(0.12, 0.2, num_samples)
        self.pauses = draw.uniform(0.0, 1.0, num_samples) if words else np.zeros(num_samples)
        self.seconds = np.array([len(self.read(i)) / RATE_HZ for i in range(num_samples)])

    def __len__(self):
        return len(self.texts)

    def where(self, i: int) -> str:
        return f"{self.name} {i}"

    def read(self, i: int) -> np.ndarray:
        draw = np.random.default_rng([self.seed, i])
        length = int(self.letter_seconds[i] * RATE_HZ)
        time, parts = np.arange(length) / RATE_HZ, []
        for letter in f" {self.texts[i]} ":
            tone = (
                np.zeros(length)
                if letter == " "
                else np.sin(2 * np.pi * (300 + 400 * self.letters.index(letter)) * time)
            )
            parts.append(tone * np.clip(np.minimum(time, time[::-1]) / 0.02, 0.0, 1.0))  # loud but for its edges
        wave = draw.uniform(0.1, 0.3) * np.concatenate([*parts, np.zeros(int(self.pauses[i] * RATE_HZ))])
        return (wave + 0.003 * draw.standard_normal(len(wave))).astype(np.float32)

    def read_wave(self, i: int) -> np.ndarray:
        self.reads.append(i)
        if i in self.broken:
            raise BrokenSampleError("The audio is cut off", where=self.where(i), fix="copy it again")
        return self.read(i)


@dataclass
class Capacity:
    """What training uses of a sizing."""

    at_once: int = 1000
    regime: Regime = Regime()
    pass_seconds: float = 20.0

    def capacity(self, seconds: float) -> int:
        return self.at_once


@pytest.fixture(scope="session")
def tones():
    """Return a maker of speech of tones."""
    return Tones


@pytest.fixture(scope="session")
def sizing():
    """Return a maker of a sizing that says how many samples go through at once."""
    return Capacity


@pytest.fixture(scope="session")
def vocabulary():
    return Vocabulary.of(LETTERS)


@pytest.fixture(scope="session")
def small_model():
    return ModelConfig(hidden_size=32, num_layers=1)


@pytest.fixture(scope="module")
def recognizer(vocabulary, small_model):
    return build_model(small_model, vocabulary)


@pytest.fixture
def problems():
    """Return a dictionary {item: reason} that is filled by being called, as `problem` of a Teller is."""

    class Problems(dict):
        def __call__(self, item, reason):
            self[item] = reason

    return Problems()


@pytest.fixture
def told():
    return Told()


@pytest.fixture
def listed(tmp_path_factory, told):
    """Return a function that lists a source; `told` keeps what it says."""

    def make(*source, folder=None, language="en", **how):
        config = DataConfig(
            source=tuple(str(s) for s in source), **{"held_out_fraction": 0.2, "validation_fraction": 0.1} | how
        )
        return list_samples(config, folder or tmp_path_factory.mktemp("listing"), told, language=language)

    return make


def save_ctc_base(kind: str, norm: str, folder: Path) -> Path:
    """Save a small pretrained model, without a head, as the Hub holds them."""
    from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2Model, WavLMConfig, WavLMModel
    from transformers.models.wav2vec2_bert import Wav2Vec2BertConfig, Wav2Vec2BertModel

    torch.manual_seed(0)
    if kind == "wav2vec2-bert":
        small = {name: value for name, value in SMALL.items() if not name.startswith(("conv", "num_conv"))}
        Wav2Vec2BertModel(Wav2Vec2BertConfig(**small, output_hidden_size=32)).save_pretrained(folder)
        return folder
    classes = {
        "wav2vec2": (Wav2Vec2Config, Wav2Vec2Model),
        "hubert": (HubertConfig, HubertModel),
        "wavlm": (WavLMConfig, WavLMModel),
    }[kind]
    classes[1](classes[0](**SMALL, feat_extract_norm=norm, do_stable_layer_norm=norm == "layer")).save_pretrained(
        folder
    )
    return folder


@pytest.fixture(scope="session")
def saved_bases(tmp_path_factory):
    """Return a function that gives a small pretrained model's folder by kind; a "short" Whisper hears 5 seconds."""
    made = {}

    def make(kind: str, norm: str = "layer") -> Path:
        if (kind, norm) not in made:
            folder = tmp_path_factory.mktemp(f"{kind}-{norm}")
            made[kind, norm] = (
                save_whisper(folder, seconds=5 if norm == "short" else 30)
                if kind == "whisper"
                else save_ctc_base(kind, norm, folder)
            )
        return made[kind, norm]

    return make


def save_whisper(folder: Path, seconds: int) -> Path:
    """Save a small Whisper with random weights and a tokenizer of bytes, and all special tokens in their order."""
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    vocab = {character: i for i, character in enumerate(bytes_to_unicode().values())}
    tokenizer = WhisperTokenizer(vocab=vocab, merges=[])
    specials = [
        "<|endoftext|>",
        "<|startoftranscript|>",
        *(f"<|{code}|>" for code in LANGUAGES),
        "<|translate|>",
        "<|transcribe|>",
        "<|startoflm|>",
        "<|startofprev|>",
        "<|nospeech|>",
        "<|notimestamps|>",
        *(f"<|{0.02 * i:.2f}|>" for i in range(1501)),
    ]
    tokenizer.add_special_tokens({"extra_special_tokens": specials})
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in specials}
    tokenizer.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=80, chunk_length=seconds).save_pretrained(folder)
    torch.manual_seed(0)
    end, start = ids["<|endoftext|>"], ids["<|startoftranscript|>"]
    config = WhisperConfig(
        vocab_size=len(tokenizer),
        num_mel_bins=80,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        decoder_start_token_id=start,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        suppress_tokens=[],
        begin_suppress_tokens=[],
        max_source_positions=50 * seconds,
        max_target_positions=448 if seconds == 30 else 48,
    )
    model = WhisperForConditionalGeneration(config)
    generation = model.generation_config
    generation.is_multilingual, generation.no_timestamps_token_id = True, ids["<|notimestamps|>"]
    generation.lang_to_id = {f"<|{code}|>": ids[f"<|{code}|>"] for code in LANGUAGES}
    generation.task_to_id = {"transcribe": ids["<|transcribe|>"], "translate": ids["<|translate|>"]}
    generation.max_initial_timestamp_index, generation.prev_sot_token_id = 50, ids["<|startofprev|>"]
    model.save_pretrained(folder)
    return folder
