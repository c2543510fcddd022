"""Models of every kind: from a folder with a new head, frozen parts, padding without effect, saved for transformers."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from colabkit.core.errors import DataError, UsageError
from colabkit.pipelines.asr.config import ModelConfig
from colabkit.pipelines.asr.model.examples import collate, losses, read_example
from colabkit.pipelines.asr.model.recognizer import OwnLengthNorm, build_model, load_model
from colabkit.pipelines.asr.text.vocabulary import Vocabulary
from tests.pipelines.asr.ctc import collapse

CTC_KINDS = [
    ("wav2vec2", "group"),
    ("wav2vec2", "layer"),
    ("hubert", "group"),
    ("hubert", "layer"),
    ("wavlm", "group"),
    ("wavlm", "layer"),
    ("wav2vec2-bert", "layer"),
]
KINDS = [*CTC_KINDS, ("whisper", "short")]
STILL = {"dropout": 0.0, "mask_time": 0.0}


@pytest.fixture
def build(saved_bases, vocabulary):
    def make(kind, norm="layer", **settings):
        return build_model(ModelConfig(name=str(saved_bases(kind, norm)), **settings), vocabulary)

    return make


@pytest.fixture
def examples(tones):
    def make(recognizer, numbers=(0, 1, 2, 3)):
        speech = tones(8)
        return [read_example(speech, recognizer, number) for number in numbers]

    return make


@pytest.mark.parametrize("kind, norm", CTC_KINDS)
def test_a_sample_means_the_same_alone_and_padded(build, examples, kind, norm):
    recognizer = build(kind, norm, **STILL)
    batch = examples(recognizer)
    assert len({e.num_samples for e in batch}) == 4
    recognizer.model.eval()
    with torch.no_grad():
        together = recognizer.log_probs(collate(recognizer, batch))
        for row, one in zip(together, batch, strict=True):
            frames = recognizer.features.num_frames(one.num_samples)
            torch.testing.assert_close(
                row[:frames], recognizer.log_probs(collate(recognizer, [one]))[0, :frames], rtol=0, atol=5e-6
            )


@pytest.mark.parametrize("kind, norm", KINDS)
def test_gradients_of_parts_add_up_to_those_of_the_whole(build, examples, kind, norm):
    recognizer = build(kind, norm, **STILL, freeze_feature_encoder=False)
    batch = examples(recognizer)
    found = []
    for parts in ([[0, 1, 2, 3]], [[0], [1], [2], [3]], [[0, 3], [1, 2]]):
        recognizer.model.zero_grad()
        for part in parts:
            (losses(recognizer, [batch[i] for i in part]).sum() / 100).backward()
        found.append({name: p.grad.clone() for name, p in recognizer.model.named_parameters() if p.grad is not None})
    assert sum(float(g.abs().sum()) for g in found[0].values()) > 0
    for other in found[1:]:
        for name, gradient in found[0].items():
            scale = float(gradient.abs().max()) + 1e-3
            torch.testing.assert_close(other[name] / scale, gradient / scale, rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind, norm", CTC_KINDS)
def test_loss_is_that_of_transformers_for_one_sample(build, examples, kind, norm):
    recognizer = build(kind, norm, **STILL)
    recognizer.model.eval()
    for one in examples(recognizer):
        with torch.no_grad():
            theirs = recognizer.model(**collate(recognizer, [one]), labels=one.labels[None]).loss
            torch.testing.assert_close(losses(recognizer, [one])[0], theirs, rtol=1e-5, atol=1e-4)


def test_loss_of_whisper_is_that_of_transformers(build, examples):
    recognizer = build("whisper", "short", **STILL)
    [one] = examples(recognizer, [0])
    with torch.no_grad():
        theirs = recognizer.model(**collate(recognizer, [one]), labels=one.labels[None]).loss
        torch.testing.assert_close(losses(recognizer, [one])[0] / len(one.labels), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind, norm", KINDS)
def test_saved_and_loaded_it_computes_the_same(build, examples, tmp_path, kind, norm):
    recognizer = build(kind, norm)
    recognizer.save(tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert loaded.kind == kind and not loaded.model.training
    recognizer.model.eval()
    with torch.no_grad():
        for one in examples(recognizer, [0, 1]):
            torch.testing.assert_close(losses(loaded, [one]), losses(recognizer, [one]), rtol=1e-5, atol=1e-5)
    assert loaded.coder.encode("ab cd") == recognizer.coder.encode("ab cd")


@pytest.mark.parametrize("kind, norm", CTC_KINDS)
def test_plain_transformers_reads_what_is_saved(build, examples, tones, tmp_path, kind, norm):
    from transformers import AutoFeatureExtractor, AutoModelForCTC, AutoProcessor, AutoTokenizer

    recognizer = build(kind, norm)
    recognizer.save(tmp_path)
    model, extract = AutoModelForCTC.from_pretrained(tmp_path).eval(), AutoFeatureExtractor.from_pretrained(tmp_path)
    inputs = extract(tones(8).read(0), sampling_rate=16_000, return_tensors="pt")
    recognizer.model.eval()
    with torch.no_grad():
        theirs, ours = model(**inputs).logits, recognizer.model(**collate(recognizer, examples(recognizer, [0]))).logits
    frames = recognizer.features.num_frames(len(tones(8).read(0)))
    torch.testing.assert_close(theirs[:, :frames], ours[:, :frames], rtol=0, atol=1e-3)
    path = theirs[0].argmax(-1).tolist()
    assert (
        AutoTokenizer.from_pretrained(tmp_path).decode(path).split() == recognizer.coder.decode(collapse(path)).split()
    )
    assert "Wav2Vec2" in type(AutoProcessor.from_pretrained(tmp_path)).__name__


def test_the_head_is_new_and_of_the_vocabulary_s_size(build, vocabulary):
    first, second = build("wav2vec2"), build("wav2vec2")
    head = first.model.lm_head
    assert head.out_features == len(vocabulary) and float(head.weight.detach().abs().max()) > 0
    assert torch.equal(head.weight, second.model.lm_head.weight)
    assert first.model.config.pad_token_id == vocabulary.blank


def test_a_model_with_another_vocabulary_gets_a_new_head_and_one_with_the_same_keeps_its_own(
    build, vocabulary, tmp_path
):
    build("hubert").save(tmp_path)
    stored = load_model(tmp_path).model.lm_head.weight.detach().clone()
    told = []
    same = build_model(ModelConfig(name=str(tmp_path)), vocabulary, seed=5, choose=lambda *choice: told.append(choice))
    assert torch.equal(same.model.lm_head.weight, stored) and told[-1][1] == "kept"
    for characters in ("wxyz", "abcdefgh"):  # as many characters, and more
        other = build_model(
            ModelConfig(name=str(tmp_path)),
            Vocabulary.of(characters),
            seed=5,
            choose=lambda *choice: told.append(choice),
        )
        assert told[-1][1] == "new" and other.model.lm_head.out_features == len(other.coder)
        assert not torch.equal(other.model.lm_head.weight[: len(stored)], stored)


@pytest.mark.parametrize("kind", ["wav2vec2", "hubert", "wav2vec2-bert", "whisper"])
def test_frozen_layers_and_what_is_below_them_do_not_train(build, kind):
    recognizer = build(kind, frozen_layers=1)
    encoder = recognizer.model.base_model.encoder
    frozen = {name for name, p in recognizer.model.named_parameters() if not p.requires_grad}
    assert not any(p.requires_grad for p in encoder.layers[0].parameters())
    assert all(p.requires_grad for layer in encoder.layers[1:] for p in layer.parameters())
    assert any("conv" in name or "projection" in name for name in frozen)
    with pytest.raises(UsageError, match="frozen_layers"):
        build(kind, frozen_layers=9)


def test_the_feature_encoder_is_frozen_on_demand(build):
    for freeze in (True, False):
        model = build("wav2vec2", freeze_feature_encoder=freeze).model
        assert all(p.requires_grad is not freeze for p in model.wav2vec2.feature_extractor.parameters())
        assert model.lm_head.weight.requires_grad


def test_settings_reach_the_network(build):
    config = build("wav2vec2", dropout=0.25, mask_time=0.2).model.config
    assert (config.hidden_dropout, config.final_dropout, config.mask_time_prob, config.layerdrop) == (
        0.25,
        0.25,
        0.2,
        0.0,
    )
    assert build("whisper", dropout=0.25).model.config.dropout == 0.25
    assert not build("wav2vec2", mask_time=0.0).model.config.apply_spec_augment


def test_spec_augment_hides_parts_of_short_samples_too(build, vocabulary):
    recognizer = build("wav2vec2", mask_time=0.5)
    inputs = [recognizer.features(np.ones(n, np.float32)) for n in (100, 500, 2_000)]
    assert recognizer.log_probs(recognizer.features.collate(inputs)).isfinite().all()


def test_the_small_network_is_made_without_a_download(vocabulary, small_model, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    first, second, other = (build_model(small_model, vocabulary, seed=seed) for seed in (0, 0, 1))
    states = [recognizer.model.state_dict() for recognizer in (first, second, other)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not all(torch.equal(states[0][name], states[2][name]) for name in states[0])
    assert first.kind == "wav2vec2-bert" and first.features.step_samples == 480
    with pytest.raises(UsageError, match="hidden_size"):
        build_model(replace(small_model, hidden_size=30), vocabulary)


# --- what cannot be used ---


def break_weights(folder):
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:2_000])


def drop_weights(folder):
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    save_file(
        {k: v for k, v in state.items() if "layers.1.attention" not in k},
        folder / "model.safetensors",
        {"format": "pt"},
    )


def change_kind(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))


BREAKS = {
    "cut off": (break_weights, DataError, "save_pretrained"),
    "not whole": (drop_weights, DataError, "not whole"),
    "no config": (lambda folder: (folder / "config.json").unlink(), DataError, "config.json"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), DataError, "save_pretrained"),
    "another kind": (change_kind, UsageError, "bert"),
    "no JSON": (lambda folder: (folder / "config.json").write_text("{"), DataError, "config.json"),
}


@pytest.mark.parametrize("how", BREAKS)
def test_a_faulty_folder_is_told_with_what_mends_it(saved_bases, vocabulary, tmp_path, how):
    folder = shutil.copytree(saved_bases("wav2vec2"), tmp_path / "model")
    act, kind, words = BREAKS[how]
    act(folder)
    with pytest.raises(kind) as caught:
        build_model(ModelConfig(name=str(folder)), vocabulary)
    assert words in str(caught.value) and str(folder) in str(caught.value) and caught.value.fix


def test_without_a_network_it_says_so(vocabulary, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError) as caught:
        build_model(ModelConfig(name="nobody/none-such"), vocabulary)
    assert "nobody/none-such" in str(caught.value) and "model.name=FOLDER" in caught.value.fix


def test_a_folder_without_a_vocabulary_cannot_transcribe(saved_bases):
    with pytest.raises(DataError):  # its head is missing, too
        load_model(saved_bases("wav2vec2"))


def test_own_length_norm_is_the_plain_one_for_samples_of_one_length():
    norm = torch.nn.GroupNorm(4, 4)
    x = torch.randn(3, 4, 20)
    plain = norm(x)
    norm.__class__ = OwnLengthNorm
    for lengths in (None, [20, 20, 20]):
        norm.lengths = lengths
        assert torch.equal(norm(x), plain)
    norm.lengths = [20, 7, 2]
    out = norm(x)
    alone = torch.nn.functional.group_norm(x[1:2, :, :7], 4, norm.weight, norm.bias, norm.eps)
    torch.testing.assert_close(out[1:2, :, :7], alone)
    assert not out[1, :, 7:].any()
