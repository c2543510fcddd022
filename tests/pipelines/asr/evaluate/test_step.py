"""Evaluation of a model's folder: the samples that are heard, broken ones, and the decoder that the settings name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from colabkit.core.errors import DataError
from colabkit.pipelines.asr.config import EvaluateConfig, ModelConfig
from colabkit.pipelines.asr.evaluate.decode import BeamDecoder
from colabkit.pipelines.asr.evaluate.language_model import NgramModel
from colabkit.pipelines.asr.evaluate.step import LANGUAGE_MODEL, choose_decoder, evaluate_model
from colabkit.pipelines.asr.model.hear import hear
from colabkit.pipelines.asr.model.recognizer import build_model


@pytest.fixture(scope="module")
def model(recognizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated")
    recognizer.save(folder)
    return folder


@pytest.fixture
def listing(tones):
    """Return a maker of what evaluation uses of a listing: speech of tones, with names and readers."""

    def make(broken=()):
        test = tones(9, seed=3, broken=broken)
        test.names, test.num_readers = [f"sample {i}" for i in range(len(test))], 2
        return {"train": tones(20, seed=4), "test": test}

    return make


def test_the_held_out_samples_are_scored_against_what_is_said_in_them(model, listing, recognizer, run):
    data = listing()
    scores, names = evaluate_model(EvaluateConfig(), model, data, run, capacity=lambda seconds: 3)
    heard = hear(recognizer, data["test"], range(9), capacity=lambda seconds: 1, problem=run.problem)
    assert names == data["test"].names and scores.references == tuple(data["test"].texts)
    assert scores.hypotheses == tuple(" ".join(one.text.split()) for one in heard) and scores.wer > 0


def test_so_many_samples_are_drawn_the_same_each_time_and_stay_in_order(model, listing, run):
    config, data = EvaluateConfig(num_samples=4, confidence=0.8), listing()
    scores, names = evaluate_model(config, model, data, run, capacity=lambda seconds: 9)
    again, same = evaluate_model(config, model, data, run, capacity=lambda seconds: 2)
    numbers = [int(name.split()[1]) for name in names]
    assert len(set(numbers)) == 4 and numbers == sorted(numbers) and names == same and scores.table() == again.table()
    assert scores.references == tuple(data["test"].texts[i] for i in numbers) and scores.confidence == 0.8


def test_broken_samples_are_told_and_not_scored(model, listing, run):
    scores, names = evaluate_model(EvaluateConfig(), model, listing(broken=(2, 4)), run, capacity=lambda seconds: 9)
    assert names == [f"sample {i}" for i in range(9) if i not in (2, 4)] and len(scores.references) == 7
    assert set(run.problems) == {"tones 2", "tones 4"}
    with pytest.raises(DataError, match="9 broken") as caught:
        evaluate_model(EvaluateConfig(), model, listing(broken=range(9)), run, capacity=lambda seconds: 9)
    assert caught.value.fix


def test_the_decoder_is_the_one_that_is_set(recognizer, listing, run):
    data, config = listing(), EvaluateConfig(decoder="beam", beam_width=8)
    assert choose_decoder(replace(config, decoder="greedy"), recognizer, data, run) is None
    log_probs = np.log(np.random.default_rng(0).dirichlet(np.full(len(recognizer.coder), 0.3), 30)).astype(np.float32)
    beam = choose_decoder(config, recognizer, data, run)
    assert beam(log_probs) == BeamDecoder(recognizer.coder, width=8, word_bonus=0.0).decode(log_probs).text
    assert not (run.output / LANGUAGE_MODEL).exists()
    ngram = choose_decoder(replace(config, decoder="ngram", lm_weight=0.9), recognizer, data, run)
    words = NgramModel.train(data["train"].texts, order=3)
    wanted = BeamDecoder(recognizer.coder, width=8, language_model=words, lm_weight=0.9, word_bonus=1.0)
    assert ngram(log_probs) == wanted.decode(log_probs).text != beam(log_probs)
    assert NgramModel.load(run.output / LANGUAGE_MODEL).words == words.words and run.choices == []


@pytest.mark.parametrize("decoder", ["beam", "ngram"])
def test_whisper_writes_by_itself_and_that_is_told(saved_bases, vocabulary, listing, run, decoder):
    recognizer = build_model(ModelConfig(name=str(saved_bases("whisper", "short"))), vocabulary)
    assert choose_decoder(EvaluateConfig(decoder=decoder), recognizer, listing(), run) is None
    value, reason = run.chosen["evaluate.decoder"]
    assert value == "greedy" and decoder in reason and "whisper" in reason
