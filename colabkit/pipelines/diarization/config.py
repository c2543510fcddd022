"""Settings of the diarization pipeline, one section a concern, and the presets demo, quick and full."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from colabkit.core.config import KEEPS_RESULT, Formerly


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechConfig:
    """Where single-speaker speech comes from, to make conversations of."""

    source: Annotated[
        tuple[str, ...],
        "voices (made on the spot), hub:ORG/NAME/CONFIG/SPLIT, s3://BUCKET/PREFIX, "
        "gs://BUCKET/PREFIX, or a folder; several are mixed",
    ] = ("voices",)
    columns: Annotated[tuple[str, ...], "ROLE=COLUMN where columns have unusual names, as in speaker=client_id"] = ()
    cache_gib: Annotated[
        float, "disk for audio read before, the least used goes first; 0: nothing is kept", KEEPS_RESULT
    ] = 0.0
    weights: Annotated[tuple[float, ...], "shares of several sources; empty: by their hours"] = ()
    index_hours: Annotated[float | None, "speech to list of each source at most; none: all of it"] = None
    speaker_from: Annotated[
        Literal["auto", "column", "folder", "name"],
        "what names the speaker: a column, the top folder, or the file name up to the first dash",
    ] = "auto"
    num_voices: Annotated[int, "how many voices to make"] = 40
    seconds_per_voice: Annotated[float, "speech to make for each voice"] = 16.0
    languages: Annotated[tuple[str, ...], "languages of the voices"] = ("en", "de", "fr", "es", "it", "pt")
    held_out_fraction: Annotated[float, "share of the speakers never trained on"] = 0.2
    validation_fraction: Annotated[float, "share of the speakers to watch training with"] = 0.1
    max_hours: Annotated[float, "speech held in memory at most, 0.11 GiB an hour; more than that streams through"] = (
        12.0
    )
    held_out_hours: Annotated[float, "speech of speakers that are not trained on to read at most"] = 1.0
    windows_per_utterance: Annotated[
        float, "training windows for each utterance read, where speech streams through"
    ] = 4.0
    seed: Annotated[int, "which voices, which split"] = 0

    def faults(self) -> Iterator[str]:
        if not self.source or not all(self.source):
            yield "source: is empty, expected voices, hub:..., s3://..., gs://... or a folder"
        if self.weights and len(self.weights) != len(self.source):
            yield f"weights: got {len(self.weights)} for {len(self.source)} sources, expected one each"
        for name in ("max_hours", "held_out_hours", "windows_per_utterance"):
            if getattr(self, name) <= 0:
                yield f"{name}: got {getattr(self, name)}, expected more than 0"
        if self.index_hours is not None and self.index_hours <= 0:
            yield f"index_hours: got {self.index_hours}, expected more than 0, or none for all"
        if not 0 < self.held_out_fraction + self.validation_fraction < 0.9:
            yield "held_out_fraction: with validation_fraction must lie between 0 and 0.9"
        if self.num_voices < 8:
            yield f"num_voices: got {self.num_voices}, expected at least 8, to have some in every split"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingsConfig:
    """Real conversations with RTTM labels; optional."""

    train_source: Annotated[
        str,
        "recordings to train on too: a folder with audio, *.rttm and *.uem, or hub:, s3:// or gs:// shards with turns",
    ] = ""
    test_source: Annotated[str, "recordings to evaluate on"] = ""
    train_pattern: Annotated[str, "which RTTM files count where train_source is a folder"] = "*.rttm"
    test_pattern: Annotated[str, "which RTTM files count where test_source is a folder"] = "*.rttm"
    columns: Annotated[tuple[str, ...], "ROLE=COLUMN where columns have unusual names, as in turn_starts=begin"] = ()
    max_hours: Annotated[
        float, "recordings held in memory at most, 0.11 GiB an hour; more than that stream through"
    ] = 8.0
    fraction: Annotated[float, "share of training windows cut from real recordings"] = 0.2

    def faults(self) -> Iterator[str]:
        if not 0 <= self.fraction <= 1:
            yield f"fraction: got {self.fraction}, expected 0 to 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulateConfig:
    """How conversations are made."""

    window_seconds: Annotated[float, "length of a training window"] = 10.0
    speaker_weights: Annotated[tuple[float, ...], "weights of windows with 1, 2, 3, ... speakers"] = (0.1, 0.6, 0.3)
    same_sex_probability: Annotated[float, "conversations of women only or men only: the hard ones"] = 0.5
    room_probability: Annotated[float, "speakers that stand in a reverberant room"] = 0.6
    noise_probability: Annotated[float, "conversations with background noise"] = 0.8
    snr_db: Annotated[tuple[float, float], "signal-to-noise ratio, from and to"] = (5.0, 30.0)
    gain_db: Annotated[float, "level differences between speakers, plus and minus"] = 6.0
    tilt_db: Annotated[float, "colour differences between speakers, plus and minus"] = 6.0
    telephone_probability: Annotated[float, "conversations cut to 300-3400 Hz"] = 0.05
    speed_change: Annotated[float, "playing speed, plus and minus: makes new speakers of old ones"] = 0.12
    noise_folder: Annotated[str, "noise recordings to use beside synthetic noise"] = ""
    room_folder: Annotated[str, "impulse responses of rooms to use instead of synthetic ones"] = ""
    turn_taking_folder: Annotated[str, "RTTM files to measure pauses and overlaps from; empty: AMI meetings"] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The network."""

    encoder_type: Annotated[
        Literal["lightweight-cnn", "hubert", "wavlm", "wav2vec2"], "what turns sound into features"
    ] = "lightweight-cnn"
    encoder_name: Annotated[str, "Hub id or folder of a pretrained encoder; empty: a small one with random weights"] = (
        ""
    )
    freeze_encoder: Annotated[bool, "train all but the pretrained encoder"] = False
    num_speakers: Annotated[int, "speakers told apart inside one window; a recording may have more"] = 3
    hidden_size: Annotated[int, "width of the network"] = 128
    num_blocks: Annotated[int, "convolutional blocks"] = 4
    recurrent: Annotated[Literal["gru", "lstm"], "recurrent layer; on a CPU an LSTM takes a sixth of the time"] = "gru"
    num_attention_layers: Annotated[int, "self-attention layers"] = 2
    embedding_size: Annotated[int, "length of a speaker's embedding"] = 128
    dropout: Annotated[float, "dropout"] = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """The training loop."""

    steps: Annotated[int, "optimizer steps"] = 1500
    minutes: Annotated[
        float | None, "wall clock to spend, instead of steps; the result then depends on the machine"
    ] = None
    effective_batch: Annotated[
        int, "windows of one optimizer step, whatever fits into memory at once", Formerly("batch_windows")
    ] = 16
    learning_rate: Annotated[float, "peak learning rate (AdamW)"] = 1e-3
    weight_decay: Annotated[float, "weight decay"] = 0.01
    warmup_steps: Annotated[int, "steps until the peak; then a cosine down to zero"] = 100
    clip_norm: Annotated[float, "largest norm of the gradient"] = 2.0
    embedding_weight: Annotated[float, "weight of the speaker loss, which trains the embeddings"] = 0.2
    ema_decay: Annotated[float, "averaging of the weights over steps; 0: none"] = 0.998
    result: Annotated[
        Literal["best", "last"], "which averaged weights are the result: best in validation, or the last"
    ] = "best"
    seed: Annotated[int, "initial weights, conversations, dropout"] = 0
    validate_every_steps: Annotated[int, "steps between validations"] = 250
    num_validation_mixes: Annotated[int, "conversations to validate on"] = 24
    checkpoint_every_steps: Annotated[int, "steps between checkpoints", KEEPS_RESULT] = 100
    processes: Annotated[int, "processes that train together; 0: one a GPU", KEEPS_RESULT] = 0
    tracker: Annotated[
        Literal["auto", "wandb", "tensorboard", "none"], "where metrics go besides history.jsonl", KEEPS_RESULT
    ] = "auto"
    mixed_precision: Annotated[Literal["auto", "no", "fp16", "bf16"], "auto: what the GPU is fast at"] = "auto"

    def faults(self) -> Iterator[str]:
        for name in ("steps", "effective_batch", "validate_every_steps", "checkpoint_every_steps"):
            if getattr(self, name) < 1:
                yield f"{name}: got {getattr(self, name)}, expected at least 1"
        if self.processes < 0:
            yield f"processes: got {self.processes}, expected 1 or more, or 0 for one a GPU"
        if self.minutes is not None and self.minutes <= 0:
            yield f"minutes: got {self.minutes}, expected more than 0"


@dataclass(frozen=True, slots=True, kw_only=True)
class InferConfig:
    """From windows to a recording: sliding, stitching, clustering."""

    window_seconds: Annotated[float, "length of a window"] = 20.0
    hop_seconds: Annotated[float, "from one window to the next"] = 5.0
    num_speakers: Annotated[int | None, "speakers in the recording; none: found by clustering"] = None
    cluster_distance: Annotated[
        float | None, "cosine distance above which voices differ; none: found in validation"
    ] = None
    smoothing_seconds: Annotated[
        float | None,
        "over how long the probability of who talks is averaged; 0: each frame alone; none: found in validation",
    ] = None
    shortest_turn_seconds: Annotated[float, "shorter turns are dropped"] = 0.1
    shortest_pause_seconds: Annotated[float, "shorter pauses of one speaker are filled"] = 0.2

    def faults(self) -> Iterator[str]:
        if self.smoothing_seconds is not None and not 0 <= self.smoothing_seconds <= 5:
            yield f"smoothing_seconds: got {self.smoothing_seconds}, expected 0 to 5, or none"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateConfig:
    """Conversations of held-out speakers to measure DER on."""

    num_mixes: Annotated[int, "conversations"] = 60
    mix_seconds: Annotated[float, "length of each"] = 20.0
    num_speakers: Annotated[int, "speakers in each"] = 2
    collar_seconds: Annotated[float, "left out of the score on each side of a reference boundary (md-eval -c)"] = 0.25
    snr_db: Annotated[tuple[float, float], "background noise, from and to"] = (10.0, 25.0)
    room_probability: Annotated[float, "speakers in a reverberant room"] = 0.0
    seed: Annotated[int, "which conversations"] = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportConfig:
    """ONNX files."""

    opset: Annotated[int, "ONNX operator set"] = 17
    tolerance: Annotated[float, "largest difference from PyTorch allowed, on log probabilities"] = 1e-4
    int8: Annotated[bool, "write an int8 variant too"] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleConfig:
    """One longer conversation of held-out speakers, to look at and listen to."""

    seconds: Annotated[float, "its length"] = 60.0
    num_speakers: Annotated[int, "its speakers"] = 3
    seed: Annotated[int, "which conversation"] = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All settings of the diarization pipeline."""

    speech: Annotated[SpeechConfig, "single-speaker speech"] = field(default_factory=SpeechConfig)
    recordings: Annotated[RecordingsConfig, "real conversations"] = field(default_factory=RecordingsConfig)
    simulate: Annotated[SimulateConfig, "simulated conversations"] = field(default_factory=SimulateConfig)
    model: Annotated[ModelConfig, "network"] = field(default_factory=ModelConfig)
    train: Annotated[TrainConfig, "training"] = field(default_factory=TrainConfig)
    infer: Annotated[InferConfig, "inference"] = field(default_factory=InferConfig)
    evaluate: Annotated[EvaluateConfig, "evaluation"] = field(default_factory=EvaluateConfig)
    export: Annotated[ExportConfig, "export"] = field(default_factory=ExportConfig)
    example: Annotated[ExampleConfig, "example"] = field(default_factory=ExampleConfig)

    def faults(self) -> Iterator[str]:
        if len(self.simulate.speaker_weights) > self.model.num_speakers:
            yield (
                f"simulate.speaker_weights: {len(self.simulate.speaker_weights)} weights, but "
                f"model.num_speakers={self.model.num_speakers} can be told apart in a window"
            )


def demo() -> Config:
    """Offline, on speech made on the spot: end to end in under two minutes on two CPU cores."""
    return Config(
        speech=SpeechConfig(num_voices=120, seconds_per_voice=5.0, max_hours=0.12),  # less than there is: it streams
        simulate=SimulateConfig(window_seconds=12.0, speaker_weights=(0.1, 0.9)),
        model=ModelConfig(
            num_speakers=2, hidden_size=64, num_blocks=3, num_attention_layers=1, embedding_size=64, recurrent="lstm"
        ),
        train=TrainConfig(
            steps=580,
            effective_batch=8,
            learning_rate=3e-3,
            warmup_steps=20,
            ema_decay=0.98,
            result="last",
            validate_every_steps=116,
            num_validation_mixes=16,
            checkpoint_every_steps=40,
        ),
        evaluate=EvaluateConfig(num_mixes=160),
        example=ExampleConfig(seconds=30.0, num_speakers=2),
    )


def quick() -> Config:
    """One sitting on a free Colab T4: 100 hours of LibriSpeech, streamed from the Hub."""
    base = Config(speech=SpeechConfig(source=("hub:openslr/librispeech_asr/clean/train.100",), max_hours=6.0))
    return replace(
        base,
        model=replace(base.model, hidden_size=256, num_blocks=5),
        train=replace(
            base.train,
            steps=12_000,
            effective_batch=64,
            warmup_steps=500,
            ema_decay=0.999,
            validate_every_steps=500,
            num_validation_mixes=64,
            checkpoint_every_steps=200,
        ),
        evaluate=replace(base.evaluate, num_mixes=200),
    )


def full() -> Config:
    """The real thing: all of LibriSpeech mixed with real meetings, streamed from the Hub, on any GPU."""
    base = quick()
    librispeech = ("clean/train.100", "clean/train.360", "other/train.500")
    return replace(
        base,
        speech=replace(
            base.speech,
            source=tuple(f"hub:openslr/librispeech_asr/{s}" for s in librispeech),
            max_hours=24.0,
            held_out_hours=4.0,
        ),
        recordings=RecordingsConfig(
            train_source="hub:diarizers-community/ami/sdm/train",
            test_source="hub:diarizers-community/ami/sdm/test",
            fraction=0.25,
        ),
        simulate=replace(base.simulate, speaker_weights=(0.1, 0.5, 0.3, 0.1)),
        model=replace(base.model, num_speakers=4, num_attention_layers=3),
        train=replace(base.train, steps=100_000, learning_rate=1e-3, warmup_steps=2_000, validate_every_steps=1_000),
        evaluate=replace(base.evaluate, num_mixes=500),
    )


PRESETS = {"demo": demo, "quick": quick, "full": full}
