"""The frame of 20 ms that all of the pipeline counts by: network, labels and windows agree on it."""

from __future__ import annotations

import pytest
import torch

from colabkit.pipelines import find
from colabkit.pipelines.diarization import FRAME_SAMPLES, FRAME_SECONDS, RATE_HZ
from colabkit.pipelines.diarization.config import InferConfig
from colabkit.pipelines.diarization.infer import window_starts
from colabkit.pipelines.diarization.model.network import ENCODER_TYPES
from colabkit.pipelines.diarization.rttm import Turn, turns_to_frames


def test_a_frame_is_20_ms():
    assert (RATE_HZ, FRAME_SAMPLES, FRAME_SECONDS) == (16_000, 320, 0.02)


@pytest.mark.parametrize("encoder_type", ENCODER_TYPES)
@pytest.mark.parametrize("num_frames", [50, 73])
def test_the_network_says_one_thing_a_frame(make_model, encoder_type, num_frames):
    with torch.no_grad():
        logits, embeddings = make_model(encoder_type=encoder_type).eval()(torch.zeros(1, num_frames * FRAME_SAMPLES))
    assert logits.shape[1] == embeddings.shape[1] == num_frames


def test_labels_and_windows_lie_on_the_same_frames():
    starts, length = window_starts(1000, InferConfig(window_seconds=4.0, hop_seconds=1.0))
    assert length * FRAME_SAMPLES == 4 * RATE_HZ and starts[1] * FRAME_SAMPLES == RATE_HZ
    second = Turn(starts[1] * FRAME_SECONDS, (starts[1] + length) * FRAME_SECONDS, "ann")
    active, _ = turns_to_frames([second], 1000, FRAME_SECONDS)
    assert active[:, 0].nonzero()[0].tolist() == list(range(starts[1], starts[1] + length))


def test_the_pipeline_is_found_by_its_notebook():
    assert find("01").name == "diarization" and find("01").notebook == "01_streaming_diarization"
