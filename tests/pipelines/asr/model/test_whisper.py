"""Whisper's own: the tokens of a language, the prompt that is taught, and what is written."""

from __future__ import annotations

import pytest
import torch

from colabkit.core.errors import UsageError
from colabkit.pipelines.asr.config import ModelConfig
from colabkit.pipelines.asr.model.recognizer import build_model, load_model


def test_whisper_writes_in_the_language_asked_for(saved_bases, vocabulary, tmp_path):
    config = ModelConfig(name=str(saved_bases("whisper")))
    recognizer = build_model(config, vocabulary, language="de")
    prompt = recognizer.coder.tokenizer.convert_ids_to_tokens(recognizer.coder.prompt)
    assert prompt == ["<|startoftranscript|>", "<|de|>", "<|transcribe|>", "<|notimestamps|>"]
    assert recognizer.coder.decode(recognizer.coder.encode("größer 漢字")) == "größer 漢字"
    recognizer.save(tmp_path)
    assert load_model(tmp_path).coder.language == "de"
    assert build_model(config, vocabulary, language="kaa").coder.language == "kk"  # its close relative
    with pytest.raises(UsageError, match="xx"):
        build_model(config, vocabulary, language="xx")


def test_whisper_is_taught_the_prompt_and_the_end(saved_bases, vocabulary):
    coder = build_model(ModelConfig(name=str(saved_bases("whisper"))), vocabulary).coder
    labels = torch.tensor([coder.encode("ab"), [*coder.encode("a"), -100]])
    inputs = coder.shifted(labels, -100)
    assert inputs[:, 0].tolist() == [coder.start] * 2 and torch.equal(inputs[0, 1:], labels[0, :-1])
    assert labels[0, -1] == coder.end and (inputs >= 0).all()
