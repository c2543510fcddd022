"""Examples: what the model hears and should write, read ahead in order, broken ones told."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from colabkit.core.errors import BrokenSampleError
from colabkit.pipelines.asr.model.examples import collate, read_example, read_examples


def test_an_example_is_what_the_model_hears_and_should_write(tones, recognizer):
    speech = tones(3)
    example = read_example(speech, recognizer, 1)
    assert recognizer.coder.decode(example.labels) == speech.texts[1]
    assert len(example.inputs) == recognizer.features.num_frames(example.num_samples)
    assert example.seconds == speech.seconds[1] and example.labels.dtype == torch.int64
    inputs = collate(recognizer, [example, read_example(speech, recognizer, 2)])
    assert inputs["input_features"].shape[0] == 2 and set(inputs) == {"input_features", "attention_mask"}


def test_samples_are_read_ahead_in_order_and_broken_ones_told(tones, recognizer, problems):
    speech = tones(12, broken=(2,))
    found = list(read_examples(speech, recognizer, [5, 2, 0, 11], workers=2, problem=problems))
    assert [number for number, _ in found] == [5, 2, 0, 11] and found[1][1] is None and list(problems) == ["tones 2"]
    assert found[3][1].num_samples == len(speech.read(11))


def test_a_wave_that_is_no_sound_names_the_sample(tones, recognizer):
    speech = tones(2)
    speech.read = lambda i: np.full(800, np.nan, np.float32)
    with pytest.raises(BrokenSampleError, match="tones 1"):
        read_example(speech, recognizer, 1)
