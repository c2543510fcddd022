"""Settings of the ASR pipeline, one section a concern, and the presets demo, quick and full."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from colabkit.core.config import KEEPS_RESULT, Formerly


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """Where transcribed speech comes from."""

    source: Annotated[
        tuple[str, ...],
        "voices (made on the spot), hub:ORG/NAME/CONFIG/SPLIT, s3://BUCKET/PREFIX, "
        "gs://BUCKET/PREFIX, a folder, or a table in it; several are put together",
    ] = ("voices",)
    test_source: Annotated[str, "speech to evaluate on; empty: a part of the source"] = ""
    columns: Annotated[
        tuple[str, ...], "ROLE=COLUMN where columns have unusual names, as in text=raw_transcription"
    ] = ()
    transcripts: Annotated[
        str,
        "a table (.csv, .tsv, .json, .jsonl) or LibriSpeech *.trans.txt files with the transcripts of a "
        "folder; empty: looked for beside the audio",
    ] = ""
    cache_gib: Annotated[
        float | None,
        "disk for audio read before, the least used goes first; 0: nothing is kept; none: chosen",
        KEEPS_RESULT,
    ] = None
    index_hours: Annotated[float | None, "speech to list of each source at most; none: all of it"] = None
    split_by: Annotated[
        Literal["auto", "speaker", "sample"], "what stays together in one split; auto: speakers where they are known"
    ] = "auto"
    held_out_fraction: Annotated[float, "share never trained on, to evaluate with"] = 0.1
    validation_fraction: Annotated[float, "share to watch training with"] = 0.05
    shortest_seconds: Annotated[float, "shorter samples are left aside"] = 0.1
    longest_seconds: Annotated[
        float, "longer samples are left aside when training, and cut into pieces when transcribing"
    ] = 30.0
    num_voices: Annotated[int, "how many voices to make"] = 24
    sentences_per_voice: Annotated[int, "sentences each voice says"] = 12
    vocabulary: Annotated[
        tuple[str, ...], "words that the voices' sentences are made of; empty: everyday sentences"
    ] = ()
    seed: Annotated[int, "which voices, which split, which order"] = 0

    def faults(self) -> Iterator[str]:
        if not self.source or not all(self.source):
            yield "source: is empty, expected voices, hub:..., s3://..., gs://... or a folder"
        if not 0 < self.held_out_fraction + self.validation_fraction < 0.9:
            yield "held_out_fraction: with validation_fraction must lie between 0 and 0.9"
        if not 0 <= self.shortest_seconds < self.longest_seconds:
            yield f"longest_seconds: got {self.longest_seconds}, expected more than shortest_seconds"
        if self.cache_gib is not None and self.cache_gib < 0:
            yield f"cache_gib: got {self.cache_gib}, expected 0 or more"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextConfig:
    """How transcripts are cleaned, and what characters the model writes."""

    language: Annotated[
        str, "ISO 639-1 code, as in en, de, kaa, tr: for case rules, number words and Whisper's prompt"
    ] = "en"
    case: Annotated[
        Literal["lower", "upper", "keep"], "case of the characters; scripts without case are left alone"
    ] = "lower"
    digits: Annotated[
        Literal["spell", "keep", "refuse"],
        "what becomes of digits: spelt out as words, kept as characters, or their samples left aside",
    ] = "spell"
    punctuation: Annotated[Literal["drop", "keep"], "punctuation marks; apostrophes inside words always stay"] = "drop"
    rare_fraction: Annotated[
        float, "samples with a character rarer than this share of all characters are left aside"
    ] = 0.0
    keep: Annotated[str, "further characters to keep"] = ""

    def faults(self) -> Iterator[str]:
        if not 0 <= self.rare_fraction < 0.01:
            yield f"rare_fraction: got {self.rare_fraction}, expected 0 to 0.01"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The network to fine-tune."""

    name: Annotated[
        str,
        "Hub id or folder of a wav2vec 2.0, XLS-R, HuBERT, w2v-BERT 2.0 or Whisper model; empty: a small "
        "w2v-BERT with random weights",
    ] = ""
    freeze_feature_encoder: Annotated[bool, "leave the convolutions of wav2vec 2.0 and HuBERT as they came"] = True
    frozen_layers: Annotated[int, "leave so many of the lowest layers as they came"] = 0
    dropout: Annotated[float, "dropout of the layers"] = 0.1
    mask_time: Annotated[float, "share of time hidden in training (SpecAugment)"] = 0.05
    hidden_size: Annotated[int, "width of the small network"] = 96
    num_layers: Annotated[int, "layers of the small network"] = 3

    def faults(self) -> Iterator[str]:
        if not 0 <= self.mask_time < 1:
            yield f"mask_time: got {self.mask_time}, expected 0 to 1"
        if self.frozen_layers < 0:
            yield f"frozen_layers: got {self.frozen_layers}, expected 0 or more"


@dataclass(frozen=True, slots=True, kw_only=True)
class SizingConfig:
    """What is chosen from hardware, dataset and model; auto and none are chosen and printed with the reason."""

    safety_margin: Annotated[float, "share of the free memory that training may use", KEEPS_RESULT] = 0.85
    sample_size: Annotated[int, "samples to measure durations from"] = 200
    at_once: Annotated[
        int | None,
        "samples that go through a process at once, at most; none: what memory allows",
        KEEPS_RESULT,
        Formerly("batch_samples"),
    ] = None
    checkpointing: Annotated[
        Literal["auto", "yes", "no"], "gradient checkpointing: less memory for a third more time", KEEPS_RESULT
    ] = "auto"
    precision: Annotated[Literal["auto", "fp32", "fp16", "bf16"], "auto: what the GPU is fast at"] = "auto"
    workers: Annotated[int | None, "threads that read and decode audio; none: by CPU and RAM", KEEPS_RESULT] = None
    probe: Annotated[bool, "confirm the predicted memory with a few real steps where there is a GPU", KEEPS_RESULT] = (
        True
    )

    def faults(self) -> Iterator[str]:
        if not 0.70 <= self.safety_margin <= 0.95:
            yield f"safety_margin: got {self.safety_margin}, expected 0.70 to 0.95"
        if self.sample_size < 1:
            yield f"sample_size: got {self.sample_size}, expected at least 1"
        if self.at_once is not None and self.at_once < 1:
            yield f"at_once: got {self.at_once}, expected at least 1, or none"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Training with the Trainer of transformers."""

    effective_batch: Annotated[
        int | None, "samples of one optimizer step, whatever fits into memory at once; none: effective_seconds says it"
    ] = 32
    effective_seconds: Annotated[
        float | None,
        "the other way to say it: audio of one optimizer step at most, padding included; with effective_batch=none",
    ] = None
    epochs: Annotated[float, "times through the training data"] = 10.0
    steps: Annotated[int | None, "optimizer steps, instead of epochs"] = None
    learning_rate: Annotated[float, "peak learning rate"] = 3e-4
    warmup_fraction: Annotated[float, "share of the steps until the peak; then linearly down to zero"] = 0.1
    weight_decay: Annotated[float, "weight decay"] = 0.01
    optimizer: Annotated[
        Literal["adamw", "adamw_8bit", "adafactor"], "adamw_8bit and adafactor hold smaller states"
    ] = "adamw"
    clip_norm: Annotated[float, "largest norm of the gradient"] = 1.0
    seed: Annotated[int, "initial weights, order of samples, dropout"] = 0
    validate_every_steps: Annotated[int, "steps between validations"] = 250
    validation_samples: Annotated[int, "samples to validate on at most"] = 200
    checkpoint_every_steps: Annotated[int, "steps between checkpoints", KEEPS_RESULT] = 100
    processes: Annotated[int, "processes that train together; 0: one a GPU", KEEPS_RESULT] = 0
    tracker: Annotated[
        Literal["auto", "wandb", "tensorboard", "none"], "where metrics go besides history.jsonl", KEEPS_RESULT
    ] = "auto"

    def faults(self) -> Iterator[str]:
        for name in (
            "effective_batch",
            "effective_seconds",
            "validate_every_steps",
            "validation_samples",
            "checkpoint_every_steps",
        ):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                yield f"{name}: got {getattr(self, name)}, expected at least 1"
        if self.effective_batch is not None and self.effective_seconds is not None:
            yield (
                f"effective_seconds: got {self.effective_seconds:g} beside effective_batch={self.effective_batch}, "
                "expected one of them: add --set train.effective_batch=none, or leave effective_seconds out"
            )
        if self.effective_batch is None and self.effective_seconds is None:
            yield "effective_batch: got none, expected a number, or --set train.effective_seconds=SECONDS instead"
        if self.steps is not None and self.steps < 1:
            yield f"steps: got {self.steps}, expected at least 1, or none"
        if self.epochs <= 0:
            yield f"epochs: got {self.epochs}, expected more than 0"
        if not 0 <= self.warmup_fraction < 1:
            yield f"warmup_fraction: got {self.warmup_fraction}, expected 0 to 1"
        if self.processes < 0:
            yield f"processes: got {self.processes}, expected 1 or more, or 0 for one a GPU"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateConfig:
    """WER and CER on held-out speech."""

    decoder: Annotated[
        Literal["greedy", "beam", "ngram"],
        "beam: prefix beam search; ngram: with a word n-gram model of the training transcripts",
    ] = "greedy"
    beam_width: Annotated[int, "hypotheses kept in beam search"] = 32
    ngram_order: Annotated[int, "words the n-gram model looks at"] = 3
    lm_weight: Annotated[float, "weight of the n-gram model"] = 0.5
    word_bonus: Annotated[float, "added for each word, so that short hypotheses do not win"] = 1.0
    num_samples: Annotated[int | None, "samples to evaluate on at most; none: all held out"] = None
    num_worst: Annotated[int, "worst examples to show"] = 10
    confidence: Annotated[float, "of the intervals around WER and CER"] = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishConfig:
    """The trained model on the Hugging Face Hub."""

    repo: Annotated[str, "ORG/NAME to push to; empty: the model stays in the run's folder"] = ""
    private: Annotated[bool, "make the repository private"] = True
    licence: Annotated[
        str, "licence to state in the model card, as in apache-2.0; empty: the card says to check the base model's"
    ] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleConfig:
    """A recording to transcribe with timestamps."""

    file: Annotated[str, "audio file; empty: held-out samples, one after another"] = ""
    num_samples: Annotated[int, "held-out samples to put together where no file is given"] = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All settings of the ASR pipeline."""

    data: Annotated[DataConfig, "transcribed speech"] = field(default_factory=DataConfig)
    text: Annotated[TextConfig, "transcripts"] = field(default_factory=TextConfig)
    model: Annotated[ModelConfig, "network"] = field(default_factory=ModelConfig)
    sizing: Annotated[SizingConfig, "automatic choices"] = field(default_factory=SizingConfig)
    train: Annotated[TrainConfig, "training"] = field(default_factory=TrainConfig)
    evaluate: Annotated[EvaluateConfig, "evaluation"] = field(default_factory=EvaluateConfig)
    publish: Annotated[PublishConfig, "publishing"] = field(default_factory=PublishConfig)
    example: Annotated[ExampleConfig, "example"] = field(default_factory=ExampleConfig)


def demo() -> Config:
    """Offline, on speech made on the spot: end to end in under two minutes on two CPU cores."""
    words = ("red", "green", "blue", "white", "one", "two", "three", "four", "left", "right", "open", "close")
    return Config(
        data=DataConfig(
            vocabulary=words, num_voices=290, sentences_per_voice=4, held_out_fraction=0.1, validation_fraction=0.05
        ),
        model=ModelConfig(hidden_size=128, num_layers=2, dropout=0.05, mask_time=0.08),
        train=TrainConfig(
            steps=500,
            effective_batch=16,
            learning_rate=5e-3,
            validate_every_steps=125,
            validation_samples=48,
            checkpoint_every_steps=100,
        ),
    )


def quick() -> Config:
    """One sitting on a free Colab T4: ten hours of LibriSpeech, wav2vec 2.0 base, streamed from the Hub."""
    return Config(
        data=DataConfig(
            source=("hub:openslr/librispeech_asr/clean/train.100",),
            test_source="hub:openslr/librispeech_asr/clean/test",
            index_hours=10.0,
        ),
        model=ModelConfig(name="facebook/wav2vec2-base"),
        train=TrainConfig(epochs=15.0, learning_rate=1e-4),
        evaluate=EvaluateConfig(num_samples=1000),
    )


def full() -> Config:
    """The real thing: XLS-R 300M on all of LibriSpeech's clean training speech, on any GPU."""
    base = quick()
    librispeech = ("clean/train.100", "clean/train.360")
    return replace(
        base,
        data=replace(
            base.data, source=tuple(f"hub:openslr/librispeech_asr/{s}" for s in librispeech), index_hours=None
        ),
        model=replace(base.model, name="facebook/wav2vec2-xls-r-300m"),
        train=replace(base.train, epochs=5.0, validate_every_steps=1000, checkpoint_every_steps=500),
        evaluate=replace(base.evaluate, num_samples=None, decoder="ngram"),
    )


PRESETS = {"demo": demo, "quick": quick, "full": full}
