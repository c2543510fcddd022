"""Settings of the diarization pipeline: what goes together and what does not, each fault with its setting."""

from __future__ import annotations

import pytest

from colabkit.core.config import build, to_dict, with_settings
from colabkit.core.errors import UsageError
from colabkit.pipelines.diarization.config import PRESETS, Config, demo


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_a_preset_is_without_faults_and_comes_back_from_its_record(preset):
    config = with_settings(preset(), [])
    assert build(Config, to_dict(config)) == config == preset()


@pytest.mark.parametrize(
    "given, told",
    [
        ("speech.source=", "source: is empty, expected voices"),
        ("speech.weights=1,2", "weights: got 2 for 1 sources"),
        ("speech.max_hours=0", "max_hours: got 0.0, expected more than 0"),
        ("speech.held_out_hours=-1", "held_out_hours: got -1.0"),
        ("speech.windows_per_utterance=0", "windows_per_utterance: got 0.0"),
        ("speech.index_hours=0", "expected more than 0, or none for all"),
        ("speech.held_out_fraction=0.85", "held_out_fraction: with validation_fraction"),
        ("speech.num_voices=7", "num_voices: got 7, expected at least 8"),
        ("recordings.fraction=1.1", "fraction: got 1.1, expected 0 to 1"),
        ("simulate.speaker_weights=1,1,1", "simulate.speaker_weights: 3 weights, but model.num_speakers=2"),
        ("train.steps=0", "steps: got 0, expected at least 1"),
        ("train.effective_batch=0", "effective_batch: got 0, expected at least 1"),
        ("train.processes=-1", "processes: got -1"),
        ("train.minutes=0", "minutes: got 0.0, expected more than 0"),
        ("infer.smoothing_seconds=5.1", "smoothing_seconds: got 5.1, expected 0 to 5, or none"),
    ],
)
def test_what_cannot_be_is_refused_by_name(given, told):
    with pytest.raises(UsageError) as caught:
        with_settings(demo(), [given])
    assert told in str(caught.value)


def test_all_faults_are_told_together():
    with pytest.raises(UsageError) as caught:
        with_settings(demo(), ["train.steps=0", "recordings.fraction=2", "speech.num_voices=1"])
    assert all(name in str(caught.value) for name in ("steps: got 0", "fraction: got 2.0", "num_voices: got 1"))


@pytest.mark.parametrize(
    "given", ["speech.index_hours=none", "train.minutes=none", "infer.smoothing_seconds=0", "recordings.fraction=0"]
)
def test_what_is_at_the_edge_is_taken(given):
    with_settings(demo(), [given])


def test_the_batch_by_its_former_name_is_taken_and_the_new_one_told():
    said = []
    config = build(Config, {"train": {"batch_windows": 5}}, base=demo(), say=said.append)
    assert config.train.effective_batch == 5 and any("effective_batch" in line for line in said)
