"""Models of transformers: packages that do not import, what is told of models that cannot be had or are not whole."""

from __future__ import annotations

import importlib.util
import sys
from types import SimpleNamespace

import pytest

from colabkit.core.errors import DataError, StateError
from colabkit.io.models import transformers_models
from colabkit.io.models.architectures import config_of
from colabkit.io.models.transformers_models import (
    broken_companions_masked,
    lacking_weights,
    named_faults,
    normalises,
    place_of,
    quietly,
    require_whole,
    transformers_class,
)


def test_a_companion_that_does_not_import_is_absent_for_a_while(tmp_path, monkeypatch):
    (tmp_path / "companion_of_another_torch.py").write_text("raise OSError('undefined symbol')")
    (tmp_path / "companion_that_is_well.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    broken, well = "companion_of_another_torch", "companion_that_is_well"
    monkeypatch.setattr(transformers_models, "COMPANIONS", (broken, well, "companion_that_nobody_installed"))
    with broken_companions_masked():
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(broken)
        assert importlib.import_module(well) is sys.modules[well]
    assert broken not in sys.modules and importlib.util.find_spec(broken) is not None
    with pytest.raises(RuntimeError), broken_companions_masked():
        raise RuntimeError
    assert broken not in sys.modules


def test_a_class_that_cannot_be_had_is_told_with_what_else_there_is():
    from transformers import AutoConfig

    assert transformers_class("AutoConfig") is AutoConfig
    with pytest.raises(StateError, match="Codecs need a usable transformers") as caught:
        transformers_class("NoSuchModel", what="Codecs", otherwise="set codec.name=mel")
    assert caught.value.fix == "pip install -U transformers, or set codec.name=mel"


def test_places_are_folders_or_names(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    assert place_of("~/model") == str(tmp_path / "model") and place_of("~/absent") == "~/absent"
    assert place_of("openai/whisper-tiny") == "openai/whisper-tiny"


@pytest.mark.parametrize(
    ("error", "name", "fix"),
    [
        (OSError("You are trying to access a gated repo."), "org/name", "accept the model's terms"),
        (OSError("no file named model.safetensors"), "FOLDER", "make it with model.save_pretrained"),
        (ValueError("offline"), "org/name", "--set model.encoder_name=FOLDER of a downloaded model"),
        (RuntimeError("size mismatch\nof many lines"), "org/name", "or use a codec"),
    ],
)
def test_faults_are_told_with_what_mends_them(error, name, fix, tmp_path):
    name = str(tmp_path) if name == "FOLDER" else name
    with (
        pytest.raises(DataError, match="The pretrained encoder cannot be had") as caught,
        named_faults(name, what="encoder", setting="model.encoder_name", example="org/it", otherwise="use a codec"),
    ):
        raise error
    assert fix in caught.value.fix and caught.value.where == name and "\n" not in caught.value.got
    assert str(error).splitlines()[0] in caught.value.got and caught.value.__cause__ is error


def test_a_refusal_of_the_hub_is_known_by_its_cause():
    with (
        pytest.raises(DataError) as caught,
        named_faults("org/name", what="encoder", setting="x", example="org/it"),
    ):
        raise OSError("cannot load") from ValueError("401 Client Error")
    assert "HF_TOKEN" in caught.value.fix and "Secrets" in caught.value.fix


def test_other_errors_pass():
    with pytest.raises(KeyError), named_faults("org/name", what="encoder", setting="x", example="org/it"):
        raise KeyError("a fault of ours")


def test_notes_are_quiet_and_heard_again():
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    with pytest.raises(KeyError), quietly():
        assert logging.get_verbosity() == logging.ERROR and not logging.is_progress_bar_enabled()
        raise KeyError
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_weights_that_are_lacking():
    info = {"missing_keys": {"b", "a"}, "mismatched_keys": [("z", (1,), (2,))], "unexpected_keys": {"x"}}
    assert lacking_weights(info) == ["a", "b", "z"]
    require_whole([], "org/name", what="encoder", fix="choose another")
    with pytest.raises(DataError, match="The encoder's weights are not whole") as caught:
        require_whole(["a", "b"], "org/name", what="encoder", fix="choose another")
    assert "2 tensors missing, such as a" in str(caught.value) and caught.value.fix == "choose another"


@pytest.mark.parametrize("told", [True, False])
def test_whether_waves_are_normalised(told, tmp_path):
    from transformers import Wav2Vec2FeatureExtractor

    other_way = SimpleNamespace(feat_extract_norm="group" if told else "layer")
    Wav2Vec2FeatureExtractor(do_normalize=told).save_pretrained(tmp_path / "told")
    assert normalises(str(tmp_path / "told"), other_way) is told
    (tmp_path / "silent").mkdir()
    assert normalises(str(tmp_path / "silent"), other_way) is not told


def test_a_model_with_code_of_its_own_is_refused_without_a_question(tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody is asked"))
    ran = tmp_path / "ran"
    (tmp_path / "config.json").write_text(
        '{"model_type": "odd", "auto_map": {"AutoConfig": "configuration_odd.OddConfig"}}', encoding="utf-8"
    )
    (tmp_path / "configuration_odd.py").write_text(
        f"open({str(ran)!r}, 'w')\nclass OddConfig: pass\n", encoding="utf-8"
    )
    with pytest.raises(DataError, match="code of its own"):
        config_of(str(tmp_path))
    assert not ran.exists()
