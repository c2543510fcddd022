"""Hearing of many samples: in their order, alone or together, with losses, when memory runs out, broken ones told."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from colabkit.pipelines.asr.config import ModelConfig
from colabkit.pipelines.asr.evaluate.decode import greedy
from colabkit.pipelines.asr.model import hear as module
from colabkit.pipelines.asr.model.examples import losses, read_example
from colabkit.pipelines.asr.model.hear import hear
from colabkit.pipelines.asr.model.recognizer import build_model


@pytest.fixture
def recognizer(vocabulary, small_model):
    return build_model(small_model, vocabulary)  # its hooks are of one test alone


@pytest.fixture
def alone(recognizer):
    """Return what a sample sounds like by itself: its text, and its loss by token."""

    def alone(speech, number):
        example = read_example(speech, recognizer, number)
        recognizer.model.eval()
        with torch.no_grad():
            inputs = recognizer.features.collate([example.inputs])
            [log_probs_TC] = recognizer.log_probs(inputs).numpy()
            [loss] = losses(recognizer, [example]).tolist()
        return greedy(log_probs_TC[: len(example.inputs)], recognizer.coder).text, loss / len(example.labels)

    return alone


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_samples_come_in_the_order_asked_as_each_is_heard_alone(
    tones, recognizer, alone, problems, at_once, monkeypatch
):
    monkeypatch.setattr(module, "GROUP_SAMPLES", 4)
    speech, numbers, done = tones(12, broken=(5,)), [7, 5, 0, 11, 3, 2, 9], []
    recognizer.model.train()
    found = hear(
        recognizer,
        speech,
        numbers,
        capacity=lambda seconds: at_once,
        problem=problems,
        with_loss=True,
        workers=2,
        advance=done.append,
    )
    assert found[1] is None and list(problems) == ["tones 5"] and sum(done) == len(numbers)
    assert recognizer.model.training, "as it was before"
    for number, one in zip(numbers, found, strict=True):
        if one is not None:
            text, loss = alone(speech, number)
            assert one.text == text and one.loss == pytest.approx(loss, rel=1e-4)


def test_loss_is_not_a_number_where_it_is_not_asked_for_and_texts_are_made_by_decode(tones, recognizer, problems):
    speech, shapes = tones(3), []

    def decode(log_probs_TC: np.ndarray) -> str:
        shapes.append(log_probs_TC.shape)
        return "heard"

    found = hear(recognizer, speech, [0, 1, 2], capacity=lambda seconds: 2, problem=problems, decode=decode)
    assert [one.text for one in found] == ["heard"] * 3 and all(math.isnan(one.loss) for one in found)
    frames = [recognizer.features.num_frames(len(speech.read(i))) for i in range(3)]
    assert sorted(shapes) == sorted((count, len(recognizer.coder)) for count in frames), "no padding is decoded"


def test_when_memory_runs_out_fewer_go_through_and_one_alone_is_an_error(tones, recognizer, alone, problems):
    speech, seen, most = tones(6), [], 2

    def check(module, args, kwargs):
        seen.append(len(kwargs["input_features"]))
        if seen[-1] > most:
            raise torch.OutOfMemoryError("CUDA out of memory")

    expected = [alone(speech, number)[0] for number in range(6)]
    recognizer.model.register_forward_pre_hook(check, with_kwargs=True)
    found = hear(recognizer, speech, range(6), capacity=lambda seconds: 6, problem=problems)
    assert [one.text for one in found] == expected and max(seen) > most
    most = 0
    recognizer.model.train()
    with pytest.raises(torch.OutOfMemoryError):
        hear(recognizer, speech, range(6), capacity=lambda seconds: 6, problem=problems)
    assert recognizer.model.training and seen[-1] == 1


def test_whisper_is_heard_with_its_loss(tones, saved_bases, vocabulary, problems):
    recognizer = build_model(ModelConfig(name=str(saved_bases("whisper", "short"))), vocabulary)
    speech = tones(3)
    found = hear(recognizer, speech, [2, 0], capacity=lambda seconds: 2, problem=problems, with_loss=True)
    recognizer.model.eval()
    for number, one in zip([2, 0], found, strict=True):
        example = read_example(speech, recognizer, number)
        with torch.no_grad():
            assert one.loss == pytest.approx(float(losses(recognizer, [example])) / len(example.labels), rel=1e-4)
        assert isinstance(one.text, str)
