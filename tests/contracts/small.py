"""Settings that make one run of a pipeline as short as it can be while every step still does its work."""

from __future__ import annotations

from typing import Any

from colabkit.core.config import differences, identity_settings, with_settings
from colabkit.core.errors import UsageError
from colabkit.pipelines import Pipeline

SETTINGS: dict[str, tuple[str, ...]] = {
    "asr": (
        "data.num_voices=10", "data.sentences_per_voice=3", "data.held_out_fraction=0.2", "data.validation_fraction=0.2",
        "sizing.sample_size=5", "model.hidden_size=16", "model.num_layers=1", "train.steps=12", "train.effective_batch=4",
        "train.checkpoint_every_steps=3", "train.validate_every_steps=6", "train.validation_samples=2", "train.tracker=none",
        "evaluate.num_samples=2", "example.num_samples=1"),
    "dataset": (
        "segments.num_channels=2", "segments.seconds_per_channel=25", "codec.fit_seconds=20", "codec.num_codebooks=2",
        "codec.codebook_size=16", "encode.piece_mib=0.5", "listen.num_segments=1", "publish.shard_mb=0.3"),
    "diarization": (
        "speech.num_voices=10", "speech.validation_fraction=0.2", "speech.seconds_per_voice=3", "speech.max_hours=0.006",
        "simulate.window_seconds=2", "model.hidden_size=16", "model.embedding_size=8", "model.num_blocks=2",
        "train.steps=12", "train.effective_batch=4", "train.checkpoint_every_steps=3", "train.validate_every_steps=6",
        "train.num_validation_mixes=1", "train.tracker=none", "infer.window_seconds=10", "infer.hop_seconds=10",
        "evaluate.num_mixes=1", "evaluate.mix_seconds=8", "example.seconds=10"),
}


def settings_of(pipeline: Pipeline) -> tuple[str, ...]:
    """Return the settings to put on top of the demo preset; a pipeline without an entry is run as the demo itself."""
    return SETTINGS.get(pipeline.name, ())


def small_config(pipeline: Pipeline) -> Any:
    """Return the demo preset's Config with the small settings."""
    return with_settings(pipeline.presets["demo"](), settings_of(pipeline))


def changes_of(pipeline: Pipeline) -> list[tuple[str, Any, Any]]:
    """Return (setting, value now, another valid value) for one number in every section that a step uses."""
    config = small_config(pipeline)
    found = []
    for section in dict.fromkeys(name for step in pipeline.steps for name in step.uses):
        for name, value in identity_settings(getattr(config, section), f"{section}.").items():
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            try:
                changed = with_settings(config, {name: value + 1})
            except UsageError:
                continue  # a rule of the pipeline's own forbids this one
            found += differences(changed, config)
            break
    return [(name, was, now) for name, was, now in found]
