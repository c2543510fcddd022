"""The step that is sized is the one trained: the same tensors, frozen parts, checkpointing; on any tensors, offline."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from colabkit.core.errors import DataError, UsageError
from colabkit.io.models.transformers_models import broken_companions_masked
from colabkit.pipelines.asr import RATE_HZ
from colabkit.pipelines.asr.config import Config, DataConfig, ModelConfig, SizingConfig, TrainConfig
from colabkit.pipelines.asr.model.features import MelFeatures, WaveFeatures
from colabkit.pipelines.asr.model.kinds import SMALL_STRIDE
from colabkit.pipelines.asr.model.recognizer import Recognizer, freeze_lowest, make_exact
from colabkit.pipelines.asr.text.vocabulary import Vocabulary
from colabkit.pipelines.asr.workload import documented, layers_of, lighter, request, workload, workload_of
from colabkit.training.sizing.devices import find
from colabkit.training.sizing.tracing.accounting import Meter

CHARACTERS = Vocabulary.of("abcdefghijklmnopqrstuvwxyz'")


@pytest.fixture(autouse=True)
def companions():
    with broken_companions_masked():
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return folders with the configs of small models of each family."""
    from transformers import HubertConfig, Wav2Vec2Config, WhisperConfig

    root = tmp_path_factory.mktemp("models")
    small = {
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "conv_dim": (16,) * 7,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 2,
    }
    whisper = {
        "d_model": 32,
        "encoder_layers": 3,
        "decoder_layers": 3,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "vocab_size": 300,
        "max_target_positions": 448,
        "pad_token_id": 1,
        "bos_token_id": 1,
        "eos_token_id": 1,
        "decoder_start_token_id": 2,
    }
    shapes = {
        "layer": Wav2Vec2Config(**small, feat_extract_norm="layer", do_stable_layer_norm=True),
        "group": HubertConfig(**small),
        "whisper": WhisperConfig(**whisper),
        "turbo": WhisperConfig(**whisper | {"decoder_layers": 1}),
    }
    for name, shape in shapes.items():
        shape.save_pretrained(root / name)
    return {name: str(root / name) for name in shapes}


def config(name: str = "", **model) -> Config:
    return Config(model=ModelConfig(name=name, **model))


def metered(step, parameters) -> int:
    meter = Meter()
    meter.hold(parameters)
    with meter:
        step()
    return meter.peak_bytes - sum(p.nbytes for p in parameters)


@pytest.mark.parametrize("name", ["", "layer", "group"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_sized_step_takes_what_the_trained_step_takes(folders, name, checkpointing):
    settings = config(folders.get(name, ""))
    work = workload(settings, vocabulary_size=len(CHARACTERS))
    model, seconds, num_samples = work.build(None, checkpointing), 4.0, 6
    sized = metered(lambda: work.loss(model, work.batch(num_samples, seconds)).backward(), list(model.parameters()))

    model = work.build(None, checkpointing)
    inside = model.base_model
    inside._forward_pre_hooks.clear()
    make_exact(model)  # the real one, which reads the lengths of each batch
    features = (
        WaveFeatures(list(zip(model.config.conv_kernel, model.config.conv_stride, strict=True)), normalised=True)
        if name
        else MelFeatures(stride=SMALL_STRIDE)
    )
    recognizer = Recognizer(model, model.config.model_type, features, CHARACTERS)
    lengths = [round(seconds * RATE_HZ)] + [round(seconds * RATE_HZ * 15 / 16)] * (num_samples - 1)
    num_labels = work.batch(1, seconds)["labels"].shape[1]

    def train() -> None:
        inputs = features.collate(
            [features(np.random.default_rng(0).normal(size=n).astype(np.float32)) for n in lengths]
        )
        recognizer.losses(inputs, [torch.full((num_labels,), 3)] * num_samples, lengths).sum().backward()

    trained = metered(train, list(model.parameters()))
    assert sized == pytest.approx(trained, rel=0.04)
    assert sized > 0.985 * trained


def test_whisper_takes_what_the_trained_step_takes(folders):
    from types import SimpleNamespace

    work = workload(config(folders["whisper"]))
    model = work.build(None, False)
    sized = metered(lambda: work.loss(model, work.batch(2, 10.0)).backward(), list(model.parameters()))
    model = work.build(None, False)
    made = work.batch(2, 10.0)
    coder = SimpleNamespace(shifted=lambda labels, ignored: labels.roll(1, 1).masked_fill(labels == ignored, 1))
    recognizer = Recognizer(model, "whisper", None, coder)

    def train() -> None:
        recognizer.losses({"input_features": made["input_features"].clone()}, list(made["labels"]), []).sum().backward()

    trained = metered(train, list(model.parameters()))
    assert sized == pytest.approx(trained, rel=0.02)


@pytest.mark.parametrize("name", ["", "layer", "group", "whisper", "turbo"])
def test_depth_follows_what_is_asked_for(folders, name):
    work = workload(config(folders.get(name, "")))
    whole, short = work.build(None, False), work.build(2, False)
    stacks = 2 if name == "whisper" else 1
    assert len(work.layers(whole)) == stacks * work.num_layers and len(work.layers(short)) == 2 * stacks
    assert short.training


@pytest.mark.parametrize("name, frozen", [("layer", 2), ("group", 3), ("whisper", 1)])
def test_frozen_layers_are_those_that_training_freezes(folders, name, frozen):
    work = workload(config(folders[name], frozen_layers=frozen))
    model = work.build(None, False)
    ours = {n for n, p in model.named_parameters() if not p.requires_grad}
    plain = workload(config(folders[name])).build(None, False)
    freeze_lowest(plain, frozen)
    assert ours == {n for n, p in plain.named_parameters() if not p.requires_grad}
    assert work.num_layers == len(layers_of(model)) - frozen
    assert all(p.requires_grad for layer in work.layers(model) for p in layer.parameters())
    assert len(layers_of(work.build(1, False))) == frozen + 1


def test_the_feature_encoder_is_frozen_where_it_is_asked_for(folders):
    for freeze in (True, False):
        model = workload(config(folders["layer"], freeze_feature_encoder=freeze)).build(None, False)
        assert all(p.requires_grad != freeze for p in model.base_model.feature_extractor.parameters())


def test_identity_tells_apart_what_is_built_differently(folders):
    settings = [
        config(),
        config(hidden_size=64),
        config(folders["layer"]),
        config(folders["layer"], frozen_layers=1),
        config(folders["layer"], freeze_feature_encoder=False),
        config(folders["group"]),
    ]
    identities = [workload(one).identity for one in settings]
    assert len(set(identities)) == len(identities)
    assert workload(config(folders["layer"])).identity == identities[2]
    assert workload(config(), vocabulary_size=500).identity != identities[0]


def test_a_known_model_is_built_without_its_weights_on_the_meta_device():
    with torch.device("meta"):
        model = workload(config("facebook/wav2vec2-xls-r-1b"), offline=True).build(None, True)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(962, rel=0.01)
    assert model.is_gradient_checkpointing


def test_workload_of_a_model_keeps_its_settings(folders):
    plain = workload(config(folders["layer"], frozen_layers=2, freeze_feature_encoder=True)).build(None, False)
    work, network = workload_of(plain)
    assert network is plain
    trained, again = (
        {n for n, p in model.named_parameters() if p.requires_grad} for model in (plain, work.build(None, False))
    )
    assert trained == again and trained
    assert plain.config.num_hidden_layers == 4


def test_workload_of_a_name():
    work, network = workload_of("facebook/wav2vec2-base")
    assert work.name == "facebook/wav2vec2-base" and all(p.device.type == "meta" for p in network.parameters())


@pytest.mark.parametrize("wrong", [torch.nn.Linear(2, 2), 5])
def test_workload_of_something_else(wrong):
    with pytest.raises(UsageError, match="how this model trains"):
        workload_of(wrong)


def test_a_kind_that_is_not_trained_here_and_a_name_that_is_unknown(tmp_path):
    from transformers import BertConfig

    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="fine-tune"):
        workload(config(str(tmp_path)))
    with pytest.raises(DataError) as error:
        workload(config("facebook/wav2vec2-bse"), offline=True)
    assert "facebook/wav2vec2-base" in error.value.fix


def test_the_request_is_what_the_settings_say():
    settings = Config(
        model=ModelConfig(name="facebook/wav2vec2-base"),
        data=DataConfig(longest_seconds=20.0),
        train=TrainConfig(effective_batch=48, optimizer="adafactor", processes=2),
        sizing=SizingConfig(safety_margin=0.9, at_once=5, checkpointing="no", precision="fp32"),
    )
    asked = request(settings)
    assert asked.lengths == (1.0, 10.0, 20.0) and asked.typical_seconds == 10.0 and asked.effective_batch == 48
    assert (asked.optimizer, asked.world, asked.safety_margin, asked.most) == ("adafactor", 2, 0.9, 5)
    assert (asked.checkpointing, asked.precision) == ("no", "fp32")
    assert request(replace(settings, data=DataConfig(longest_seconds=6.0))).typical_seconds == 6.0


def test_lighter_variants_freeze_the_lower_half():
    variants = lighter(config("facebook/wav2vec2-base"))
    ((words, work),) = variants.items()
    assert "frozen_layers=6" in words and work.num_layers == 6
    assert not lighter(config("facebook/wav2vec2-base", frozen_layers=6))


def test_published_tables():
    assert (
        documented("facebook/hubert-base-ls960", "T4") == "8 x 4" and documented("hubert-base", "A100-80") == "64 x 1"
    )
    assert documented("xls-r-1b", "L4") == "4 x 8" and documented("xls-r-300m", "T4") == "8"
    assert documented("openai/whisper-small", "T4") == "" and documented("", "T4") == ""


def test_the_rule_of_thumb_knows_the_model():
    rule = request(config("facebook/wav2vec2-xls-r-1b")).rule
    assert rule(find("T4"))[0] < rule(find("L4"))[0] < rule(find("A100-40"))[0] < rule(find("H200"))[0] == 64
