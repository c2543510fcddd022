"""From hardware, data set and model to a configuration: what is chosen, why, and what is refused."""

from __future__ import annotations

import json

import datasets
import numpy as np
import pytest

import colabkit
from colabkit.core.errors import DataError, StateError, UsageError
from colabkit.io.models.transformers_models import broken_companions_masked
from colabkit.pipelines.asr.configure.manager import ASRConfigManager, create_optimal_config
from colabkit.training.sizing import devices
from tests.told import Told

with broken_companions_masked():
    from transformers.models.wav2vec2.configuration_wav2vec2 import Wav2Vec2Config
    from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2ForCTC


def small_model(frozen: bool = True):
    shape = Wav2Vec2Config(
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=128,
        conv_dim=(32,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        vocab_size=30,
    )
    model = Wav2Vec2ForCTC(shape)
    if frozen:
        model.freeze_feature_encoder()
    return model


def rows(seconds, text="a"):
    return [{"duration": float(s), "text": text} for s in seconds]


LENGTHS = np.random.default_rng(0).uniform(1, 15, 300)


def test_it_is_one_call():
    said = []
    model = small_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    config, manager = colabkit.create_optimal_config(
        datasets.Dataset.from_list(rows(LENGTHS)), model, "tiny", device=devices.find("T4"), say=said.append
    )
    assert config.per_device_train_batch_size * config.gradient_accumulation_steps == config.effective_batch_size == 32
    assert (
        config.fp16
        and not config.bf16
        and not config.gradient_checkpointing
        and not config.streaming
        and config.cache_dataset
    )
    text = "\n".join(said)
    for name in (
        "per_device_train_batch_size",
        "bf16",
        "gradient_checkpointing",
        "streaming",
        "cache_dataset",
        "chunk_audio",
        "dataloader_num_workers",
    ):
        assert f"choice: {name} = " in text and ", because " in text and config.reasons[name]
    assert "T4" in text and "tiny" in text and "percentiles" in text
    assert manager.hardware.gpu_name == "T4" and manager.dataset.num_samples == 300
    assert manager.model.trainable < manager.model.parameters
    assert (
        0
        < config.predicted_gib
        <= config.limit_gib
        == pytest.approx(0.85 * devices.find("T4").usable_bytes / 2**30, abs=0.01)
    )
    assert all((value == before[name]).all() for name, value in model.state_dict().items()), "the model was changed"


def test_a_large_model_by_its_name_gets_small_batches():
    quiet = {"say": lambda text: None}
    small, _ = create_optimal_config(rows(LENGTHS), "facebook/wav2vec2-xls-r-1b", device=devices.find("L4"), **quiet)
    large, _ = create_optimal_config(
        rows(LENGTHS), "facebook/wav2vec2-xls-r-1b", device=devices.find("A100-80"), **quiet
    )
    assert small.per_device_train_batch_size < large.per_device_train_batch_size
    assert small.bf16 and large.bf16 and small.effective_batch_size == large.effective_batch_size == 32
    assert small.gradient_checkpointing


def test_a_model_that_does_not_fit_says_what_would_help():
    with pytest.raises(DataError) as told:
        create_optimal_config(
            rows(LENGTHS), "facebook/wav2vec2-xls-r-2b", device=devices.find("T4"), say=lambda text: None
        )
    text = str(told.value)
    assert "GiB" in text and "8-bit" in text and "frozen" in text


@pytest.mark.parametrize("margin", [0.5, 0.69, 0.96, 1.0, -1, "0.8", None])
def test_a_safety_margin_out_of_range(margin):
    with pytest.raises(UsageError, match="safety margin") as told:
        create_optimal_config(rows([1.0]), small_model(), safety_margin=margin)
    assert "0.70" in str(told.value) and "0.95" in str(told.value)


def test_a_bolder_margin_allows_more():
    def limit(margin):
        return create_optimal_config(
            rows(LENGTHS), small_model(), safety_margin=margin, device=devices.find("T4"), say=lambda text: None
        )[0].limit_gib

    assert limit(0.7) / 0.7 == pytest.approx(limit(0.95) / 0.95, rel=1e-3)


def test_large_data_is_streamed_and_long_audio_cut():
    long = [*rows(LENGTHS), {"duration": 45.0, "text": "a"}] * 200
    config, _ = create_optimal_config(
        long, small_model(), sample_size=60_200, device=devices.find("L4"), say=lambda text: None
    )
    assert config.streaming and "100 h" in config.reasons["streaming"]
    assert config.chunk_audio and config.chunk_seconds == 30.0 and "45.0 s" in config.reasons["chunk_audio"]


def test_a_stream_is_streamed():
    class Endless:
        def __iter__(self):
            while True:
                yield {"duration": 3.0, "text": "a"}

    config, _ = create_optimal_config(Endless(), small_model(), device=devices.find("L4"), say=lambda text: None)
    assert config.streaming and not config.cache_dataset and "cannot be known" in config.reasons["streaming"]


def test_what_is_set_is_not_chosen():
    config, _ = create_optimal_config(
        rows(LENGTHS),
        small_model(),
        device=devices.find("A100-40"),
        say=lambda text: None,
        target_batch_size=64,
        precision="fp16",
        checkpointing="yes",
        workers=0,
        num_train_epochs=50,
        learning_rate=1e-4,
        num_processes=2,
    )
    assert config.fp16 and config.gradient_checkpointing and config.dataloader_num_workers == 0
    assert (
        config.num_train_epochs == 50
        and config.learning_rate == 1e-4
        and config.reasons["learning_rate"] == "it is set"
    )
    assert config.per_device_train_batch_size * config.gradient_accumulation_steps * 2 == 64


def test_a_former_name_is_taken_with_a_hint():
    said, quiet = [], {"device": devices.find("A100-40"), "say": lambda text: None}
    config, _ = create_optimal_config(rows(LENGTHS), small_model(), **quiet | {"say": said.append}, batch_samples=4)
    again, _ = create_optimal_config(rows(LENGTHS), small_model(), **quiet, at_once=4)
    assert config.per_device_train_batch_size == again.per_device_train_batch_size == 4
    assert "  hint: batch_samples is called at_once now; it is taken as that" in said


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"learning_rat": 1}, "learning_rate"),
        ({"target_batch_size": 0}, "batch"),
        ({"num_processes": 3}, "multiple of 3"),
        ({"at_once": 0}, "1 or more"),
    ],
)
def test_settings_that_cannot_be(wrong, told):
    with pytest.raises(UsageError) as error:
        create_optimal_config(rows([1.0]), small_model(), device=devices.find("T4"), say=lambda text: None, **wrong)
    assert told in str(error.value)


def test_data_that_cannot_be_used():
    for data, words in (([], "no samples"), ([{"text": "a"}], "no audio"), ([{"duration": 1.0}], "no transcripts")):
        with pytest.raises(DataError, match=words):
            create_optimal_config(data, small_model(), say=lambda text: None)
    with pytest.raises(UsageError, match="by its name"):
        create_optimal_config("mozilla/common_voice", small_model(), say=lambda text: None)
    with pytest.raises(UsageError, match="how this model trains"):
        create_optimal_config(rows([1.0]), object(), say=lambda text: None)


def test_it_is_stored_and_read_again(tmp_path):
    config, manager = create_optimal_config(
        rows(LENGTHS), small_model(), device=devices.find("L4"), say=lambda text: None
    )
    config.per_device_train_batch_size = 2
    path = manager.save_config(config, tmp_path / "deep" / "training_config.json")
    other = ASRConfigManager(teller=Told())
    again = other.load_config(path)
    assert again == config and again.gradient_accumulation_steps == 16
    assert other.dataset == manager.dataset and other.model == manager.model
    assert other.sizing.capacity(5.0) == manager.sizing.capacity(5.0)
    first = path.read_bytes()
    assert manager.save_config(config, path).read_bytes() == first


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"format": 99, "config": {}, "made_from": {}}',
        "null",
        '{"format": 1, "config": {"batch": 3}, "made_from": {}}',
        '{"format": 1, "config": {}, "made_from": {"hardware": {"gpu_name": 1}}}',
    ],
)
def test_a_corrupt_file_is_told(tmp_path, damage):
    path = tmp_path / "training_config.json"
    path.write_text(damage)
    with pytest.raises(StateError, match="no configuration that can be used") as told:
        ASRConfigManager().load_config(path)
    assert str(path) in str(told.value) and "create_optimal_config" in told.value.fix
    assert path.read_text() == damage


def test_a_field_of_another_version_is_named(tmp_path):
    path = tmp_path / "training_config.json"
    path.write_text('{"format": 1, "config": {"bf16": true, "batch": 3}, "made_from": {}}')
    with pytest.raises(StateError, match="the unknown field batch"):
        ASRConfigManager().load_config(path)


def test_a_file_cut_anywhere_is_told(tmp_path):
    config, manager = create_optimal_config(
        rows(LENGTHS), small_model(), device=devices.find("L4"), say=lambda text: None
    )
    whole = manager.save_config(config, tmp_path / "whole.json").read_bytes()
    for stop in range(0, len(whole) - 2, max(1, len(whole) // 40)):
        (tmp_path / "cut.json").write_bytes(whole[:stop])
        with pytest.raises(StateError):
            ASRConfigManager().load_config(tmp_path / "cut.json")
    with pytest.raises(StateError, match="no such configuration"):
        ASRConfigManager().load_config(tmp_path / "missing.json")
    assert json.loads(whole)["format"] == 1
