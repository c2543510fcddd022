"""Opening codecs: folders, short names, the Hub and its refusals, and what the fingerprint depends on."""

from __future__ import annotations

import json
import shutil

import pytest

from colabkit.core.errors import ColabkitError, DataError, StateError, UsageError
from colabkit.core.versions import differences
from colabkit.loopback.hub import HubServer
from colabkit.pipelines.dataset.codecs import by_name
from colabkit.pipelines.dataset.codecs.by_name import HUB_IDS, open_codec
from tests.pipelines.dataset.codecs.small_models import make_folder
from tests.servers.clients import run_client
from tests.told import Told


def test_the_fingerprint_is_that_of_the_content(folders, tmp_path):
    original = open_codec(str(folders("dac")), device="cpu").fingerprint
    elsewhere = shutil.copytree(folders("dac"), tmp_path / "copy")
    settings = json.loads((elsewhere / "config.json").read_text())
    (elsewhere / "config.json").write_text(json.dumps({**settings, "transformers_version": "9.9"}, indent=8))
    assert open_codec(str(elsewhere), device="cpu").fingerprint == original
    assert open_codec(str(elsewhere), device="cpu", precision="bf16").fingerprint != original
    content = bytearray((elsewhere / "model.safetensors").read_bytes())
    content[-3] ^= 1
    (elsewhere / "model.safetensors").write_bytes(content)
    assert open_codec(str(elsewhere), device="cpu").fingerprint != original


def test_how_frames_are_padded_is_part_of_the_fingerprint(folders, tmp_path):
    elsewhere = shutil.copytree(folders("dac"), tmp_path / "copy")
    (elsewhere / "preprocessor_config.json").write_text(json.dumps({"sampling_rate": 24000, "hop_length": 640}))
    other = open_codec(str(elsewhere), device="cpu")
    assert other.fingerprint != open_codec(str(folders("dac")), device="cpu").fingerprint
    assert other.num_frames(1) == 2


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nucodec", "did you mean neucodec"),
        ("distill-neucodec", "use neucodec"),
        ("neuphonic/distill-neucodec", "use neucodec"),
        ("kmeans-mel", "kmeans-mel:codec.safetensors"),
        ("no such", "check the name"),
    ],
)
def test_a_name_that_is_none_says_what_to_write(name, told):
    with pytest.raises(UsageError) as caught:
        open_codec(name, device="cpu")
    assert told in caught.value.fix


def test_other_settings_that_cannot_be(folders):
    with pytest.raises(UsageError, match="precision"):
        open_codec(str(folders("dac")), device="cpu", precision="int8")
    with pytest.raises(UsageError, match="device"):
        open_codec(str(folders("dac")), device="gpu")
    import torch

    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="GPU"):
            open_codec(str(folders("dac")), device="cuda")


def break_config(folder):
    (folder / "config.json").write_text("{")


def no_config(folder):
    (folder / "config.json").unlink()


def other_kind(folder):
    (folder / "config.json").write_text('{"model_type": "hubert"}')


def no_weights(folder):
    (folder / "model.safetensors").unlink()


def cut_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def lacking_weights(folder):
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize("fault", [break_config, no_config, other_kind, no_weights, cut_weights, lacking_weights])
def test_a_folder_that_is_not_whole_is_named(fault, folders, tmp_path):
    folder = shutil.copytree(folders("dac"), tmp_path / "broken")
    fault(folder)
    with pytest.raises(ColabkitError) as caught:
        open_codec(str(folder), device="cpu")
    assert isinstance(caught.value, DataError) and caught.value.fix and str(folder) in str(caught.value.where)


def test_a_transformers_older_than_the_codec_is_named(folders, tmp_path, monkeypatch):
    monkeypatch.setitem(by_name.CLASS_NAMES, "neucodec", "NotYetThereModel")
    monkeypatch.setattr(differences, "installed_version", lambda package: "5.15.0")
    shutil.copytree(folders("dac"), tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text('{"model_type": "neucodec"}')
    with pytest.raises(StateError, match="does not know neucodec") as caught:
        open_codec(str(tmp_path / "model"), device="cpu")
    assert "5.17 or newer" in str(caught.value) and "codec.name=mimi" in caught.value.fix


def test_choices_are_told(folders):
    told = Told()
    open_codec(str(folders("dac")), teller=told)
    assert list(told.chosen) == ["codec.device"]


OPEN = """
import json, sys
from colabkit.core.errors import ColabkitError
from colabkit.pipelines.dataset.codecs.by_name import open_codec
try:
    codec = open_codec(NAME, device="cpu")
    print(json.dumps({"name": codec.name, "fingerprint": codec.fingerprint}))
except ColabkitError as error:
    print(json.dumps({"kind": type(error).__name__, "told": str(error)}))
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    folder = make_folder("mimi", tmp_path_factory.mktemp("hub-mimi"))
    with HubServer() as server:
        for name, gated in (("me/mimi", False), ("me/gated", True)):
            files = {path.name: path.read_bytes() for path in folder.iterdir()} | {"pytorch_model.bin": b"x" * 100_000}
            server.add_dataset(name, files, gated=gated)
            server.models[name] = server.repos.pop(name)
            server.models[name].kind = "model"
        yield server


def opened_from(hub, name, place, **environment):
    return run_client(OPEN.replace("NAME", repr(name)), {**hub.environment(), **environment}, place)


def test_a_model_of_the_hub_is_fetched_once_and_then_needs_no_network(hub, tmp_path):
    folder = tmp_path / "same"
    folder.mkdir()
    for name, file in hub.models["me/mimi"].commits[hub.models["me/mimi"].revisions["main"]].files.items():
        if not name.endswith(".bin"):
            (folder / name).write_bytes(bytes(file.take(0, file.size)))
    local = open_codec(str(folder), device="cpu").fingerprint
    first = opened_from(hub, "me/mimi", tmp_path)
    assert first == {"name": "me/mimi", "fingerprint": local}
    assert not any("pytorch_model.bin" in path and "/resolve" in path for _, path, _, _ in hub.requests)
    again = opened_from(hub, "me/mimi", tmp_path, HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert again == first


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("me/mimi@nowhere", "leave out @nowhere"),
        ("me/nothing", "private model needs HF_TOKEN"),
        ("me/gated", "accept the terms"),
    ],
)
def test_what_the_hub_refuses_says_how_to_mend_it(name, told, hub, tmp_path):
    found = opened_from(hub, name, tmp_path)
    assert found["kind"] == "DataError" and told in found["told"]


def test_without_a_network_the_ways_out_are_named(hub, tmp_path):
    found = opened_from(hub, "mimi", tmp_path, HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert found["kind"] == "DataError" and HUB_IDS["mimi"] in found["told"]
    assert "hf download" in found["told"] and "kmeans-mel" in found["told"]
