"""The shapes kept in the package give the published sizes, offline, under the names people use."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys

import pytest
import torch

from colabkit.core.errors import DataError
from colabkit.io.models.architectures import CONFIG_CLASSES, config_of, hub_id, names
from colabkit.io.models.transformers_models import broken_companions_masked

PUBLISHED = {  # millions of parameters of the encoder, or of the whole of Whisper
    "facebook/wav2vec2-base": 95,
    "facebook/wav2vec2-large": 317,
    "facebook/wav2vec2-large-lv60": 317,
    "facebook/wav2vec2-large-xlsr-53": 315,
    "facebook/wav2vec2-xls-r-300m": 315,
    "facebook/wav2vec2-xls-r-1b": 962,
    "facebook/wav2vec2-xls-r-2b": 2162,
    "facebook/hubert-base-ls960": 95,
    "facebook/hubert-large-ll60k": 316,
    "facebook/hubert-xlarge-ll60k": 964,
    "microsoft/wavlm-base-plus": 94.7,
    "microsoft/wavlm-large": 316.6,
    "facebook/w2v-bert-2.0": 580,
    "openai/whisper-tiny": 39,
    "openai/whisper-base": 74,
    "openai/whisper-small": 244,
    "openai/whisper-medium": 769,
    "openai/whisper-large-v2": 1550,
    "openai/whisper-large-v3": 1550,
    "openai/whisper-large-v3-turbo": 809,
}
MODELS = {
    "wav2vec2": "Wav2Vec2Model",
    "hubert": "HubertModel",
    "wavlm": "WavLMModel",
    "wav2vec2-bert": "Wav2Vec2BertModel",
    "whisper": "WhisperModel",
}


def num_parameters(name: str) -> int:
    config = config_of(name, offline=True)
    name = config.model_type.replace("-", "_")
    with broken_companions_masked(), torch.device("meta"):
        module = importlib.import_module(f"transformers.models.{name}.modeling_{name}")
        model = getattr(module, MODELS[config.model_type])(config)
    return sum(p.numel() for p in model.parameters())


def test_every_shape_has_a_published_size_and_no_other():
    assert set(names()) == set(PUBLISHED)


@pytest.mark.parametrize("name", [name for name in PUBLISHED if "2b" not in name])
def test_parameters_come_out_as_published(name):
    # Papers count what pretraining adds, and Whisper's positions: up to 4% for the smallest.
    assert num_parameters(name) / 1e6 == pytest.approx(PUBLISHED[name], rel=0.04 if "whisper" in name else 0.01)


def test_the_largest():
    assert num_parameters("xls-r-2b") / 1e6 == pytest.approx(2162, rel=0.005)


@pytest.mark.parametrize(
    "written, meant",
    [
        ("xls-r-1b", "facebook/wav2vec2-xls-r-1b"),
        ("Facebook/Wav2Vec2-Base", "facebook/wav2vec2-base"),
        (" hubert-large ", "facebook/hubert-large-ll60k"),
        ("nobody/nothing", None),
        ("openai/whisper-large", "openai/whisper-large-v2"),
        ("facebook/hubert-large-ls960-ft", "facebook/hubert-large-ll60k"),
    ],
)
def test_names_people_write(written, meant):
    assert hub_id(written) == meant


def test_no_name_stands_for_two_models():
    from colabkit.io.models import architectures

    aliases = [alias.lower() for entry in architectures._known().values() for alias in entry["aliases"]]
    assert len({*aliases, *(name.lower() for name in names())}) == len(aliases) + len(names())


def test_each_asks_for_a_shape_of_its_own():
    one, other = config_of("whisper-tiny"), config_of("whisper-tiny")
    one.d_model = 1
    assert other.d_model == 384


def test_a_folder_wins_and_is_read(tmp_path):
    config = config_of("wav2vec2-base")
    config.num_hidden_layers = 5
    config.save_pretrained(tmp_path)
    assert config_of(str(tmp_path), offline=True).num_hidden_layers == 5


def test_an_unknown_model_offline_gets_the_nearest_name():
    with pytest.raises(DataError) as error:
        config_of("facebook/wav2vec2-xls-r-1bb", offline=True)
    assert "facebook/wav2vec2-xls-r-1b" in error.value.fix


def test_a_folder_that_is_no_model(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no such type"}))
    with pytest.raises(DataError):
        config_of(str(tmp_path))


def test_settings_are_known_to_their_classes():
    from colabkit.io.models import architectures

    for entry in architectures._known().values():
        module, name = CONFIG_CLASSES[entry["model_type"]]
        plain = getattr(importlib.import_module(f"transformers.models.{module}"), name)()
        assert not [setting for setting in entry["settings"] if not hasattr(plain, setting)]


def test_no_network_is_asked():
    code = (
        "import socket\n"
        "def no(*a, **k): raise OSError('the network was asked')\n"
        "socket.socket.connect = no; socket.getaddrinfo = no\n"
        "from colabkit.io.models.architectures import config_of, names\n"
        "print(sum(config_of(n).model_type != '' for n in names()))"
    )
    env = {name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.stdout.strip() == str(len(PUBLISHED)), done.stderr
