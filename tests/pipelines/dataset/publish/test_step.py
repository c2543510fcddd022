"""The step as a run asks for it: the settings' splits, and a card that holds what the profile has found."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from colabkit.io.places import Folder
from colabkit.pipelines.dataset import sources
from colabkit.pipelines.dataset.config import Config, PublishConfig
from colabkit.pipelines.dataset.publish.step import publish_store
from colabkit.pipelines.dataset.recipe import STEPS
from colabkit.runs.run import Run
from colabkit.runs.state import open_run
from tests.pipelines.dataset.publish.sets import make_store

PROFILE = {
    "num_files": 12,
    "num_bytes": 34_567,
    "speakers": None,
    "hours": 0.12345,
    "rates_hz": {"16000": 11, "24000": 1},
    "dtypes": {"float32": 12},
    "num_broken": 0,
    "num_duplicate_keys": 0,
}
PUBLISH = PublishConfig(split_by="channel", shard_mb=0.06, title="Voices", licence="cc0-1.0", language="ar")


@pytest.fixture
def publish(tmp_path):
    """Return a function that publishes one store of 12 encoded segments into the run's folder."""
    store = Folder(make_store(tmp_path / "store", 12))

    def publish(**changed):
        config = Config(publish=replace(PUBLISH, **changed))
        folder = open_run(tmp_path, "dataset", "a")
        with Run(
            pipeline="dataset", steps=STEPS, config=config, preset="demo", run_folder=folder, say=publish.said.append
        ) as run:
            publish.output = run.output
            return publish_store(config, store, run)

    publish.store, publish.said = store, []
    return publish


def test_a_card_holds_the_settings_and_the_profile_that_was_uploaded(publish):
    publish.store.put(sources.PROFILE, json.dumps(PROFILE).encode())
    done = publish()
    assert done.splits == {"Atheer": 6, "Zad_TV": 6} and done.num_shards > 2
    card = (publish.output / "README.md").read_text()
    assert card == done.card == (publish.output / "dataset/README.md").read_text()
    for told in (
        "pretty_name: Voices",
        "license: cc0-1.0",
        "| hours | 0.12 |",
        "| sample rates | 16000 Hz, 24000 Hz |",
        "| broken files | 0 |",
        "![durations](durations.png)",
    ):
        assert told in card, told
    assert "| speakers |" not in card, "nobody has counted them"
    assert any(line.endswith("12 segments, Atheer 6, Zad_TV 6") for line in publish.said)


def test_without_a_profile_the_card_goes_without(publish):
    assert "sample rates" not in publish(limit=3).card


def test_a_dry_run_leaves_nothing(publish):
    assert publish(dry_run=True).num_rows == 12
    assert not (publish.output / "README.md").exists() and not (publish.output / "dataset").exists()
