"""The card of a run's model from what its steps wrote, and the way to a Hub on loopback."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from colabkit.core import files
from colabkit.loopback.hub import HubServer
from colabkit.pipelines.asr.config import DataConfig, PublishConfig, demo
from colabkit.pipelines.asr.configure.manager import ASRConfigManager
from colabkit.pipelines.asr.configure.profiles import summarise
from colabkit.pipelines.asr.configure.step import TRAINING_CONFIG
from colabkit.pipelines.asr.evaluate.metrics import score
from colabkit.pipelines.asr.publish.step import PICTURES, facts_of, publish_model
from colabkit.pipelines.asr.workload import workload
from colabkit.training.sizing.devices import find
from tests.told import Told

TOKEN = "hf_" + "w" * 34


@pytest.fixture
def run(run, recognizer, monkeypatch):
    """Return a run whose steps before have written what the card is made of, and whose output is a folder apart."""
    folders = {id: run.path / id for id in ("01_data", "03_configure", "04_train", "05_evaluate", "06_publish")}
    for folder in folders.values():
        folder.mkdir()
    run.folder_of, run.output = folders.__getitem__, folders["06_publish"]
    run.report = SimpleNamespace(data={"metrics": {"train_steps": 77}})
    sources = [{"source": "hub:o/speech/en/train"}, {"source": "/home/ann/secret"}, {"source": "s3://ann/test"}]
    files.write_json(folders["01_data"] / "listing.json", {"sources": sources, "splits": {"train": {"hours": 1.25}}})
    scores = score(["a b c", "d e"], ["a b c", "d f"])
    files.write_json(folders["05_evaluate"] / "scores.json", {**scores.to_dict(), "worst": scores.worst(9)})
    manager = ASRConfigManager(device=find("T4"), teller=Told())
    manager.dataset = summarise([1.0, 2.0], num_samples=2, how="all")
    chosen = manager.configure(workload(demo()), effective_batch=16, learning_rate=2e-4)
    manager.profile_model(recognizer.model)
    manager.save_config(chosen, folders["03_configure"] / TRAINING_CONFIG)
    recognizer.save(folders["04_train"] / "model")
    for step, name in PICTURES.items():
        (folders[step] / name).write_bytes(f"picture of {step}".encode())
    return run


@pytest.fixture
def config():
    return replace(demo(), data=DataConfig(source=("hub:o/speech/en/train", "/home/ann/secret")))


def test_the_card_says_what_the_steps_before_found(run, config):
    facts = facts_of(config, run)
    assert facts.title == "small CTC model, fine-tuned" and (facts.family, facts.base_model) == ("ctc", "")
    assert facts.train_hours == 1.25 and facts.datasets == [s["source"] for s in sources_of(run)]
    [(tested_on, scores)] = facts.scores.items()
    assert tested_on == "held-out part of hub:o/speech/en/train, recordings of its own" and scores["wer"] == 0.2
    assert facts.settings["effective batch"] == "16 samples" and facts.settings["learning rate"] == 2e-4
    assert facts.settings["steps"] == 77 and [row["hypothesis"] for row in facts.examples] == ["d f"]


def test_a_test_source_is_named_and_not_said_to_be_trained_on(run, config):
    facts = facts_of(replace(config, data=replace(config.data, test_source="s3://ann/test")), run)
    assert list(facts.scores) == ["recordings in a bucket"]
    assert facts.datasets == ["hub:o/speech/en/train", "/home/ann/secret"]


def test_without_a_repository_card_and_pictures_stay_in_the_run(run, config):
    assert publish_model(config, run) == {} and run.chosen["publish.repo"][0] == "none"
    assert {p.name for p in run.output.iterdir()} == {"README.md", *PICTURES.values()}
    assert (run.output / "memory.png").read_bytes() == b"picture of 03_configure"
    assert "ann" not in (run.output / "README.md").read_text()


def test_model_card_and_pictures_are_pushed_and_that_is_told(run, config, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)  # read once, when it is imported
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    (run.output / "notes.json").write_text("{}")
    with HubServer() as hub:
        hub.writers = {TOKEN: ("me",)}
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        found = publish_model(replace(config, publish=PublishConfig(repo="me/words", private=False)), run)
        held = hub.models["me/words"]
        pushed = held.find("main").files
        assert found["url"].endswith("me/words") and not held.private
        assert {"model.safetensors", "config.json", "vocab.json", "README.md", *PICTURES.values()} <= set(pushed)
        assert "notes.json" not in pushed and len([line for line in run.said if "pushed" in line]) == 2


def sources_of(run):
    return files.read_json(run.folder_of("01_data") / "listing.json")["sources"]
