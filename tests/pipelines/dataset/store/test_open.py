"""The store and the Hub of a run, opened: a folder of the run, an S3 as set and as found, both on loopback."""

from __future__ import annotations

import json
import urllib.request

import pytest

from colabkit.core.errors import UsageError
from colabkit.pipelines.dataset.config import LOOPBACK, PublishConfig, StoreConfig
from colabkit.pipelines.dataset.store.open import HubPlace, open_hub, open_store, profile_of


@pytest.fixture
def environment(monkeypatch):
    for name in ("AWS_ENDPOINT_URL", "S3_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "mouse")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "cheese")


def test_where_none_is_named_it_is_a_folder_of_the_run(tmp_path):
    store = open_store(StoreConfig(), tmp_path)
    store.put("a/b", b"c")
    assert (tmp_path / "store" / "a" / "b").read_bytes() == b"c"
    assert open_store(StoreConfig(), tmp_path).get("a/b") == b"c"
    shared = open_store(StoreConfig(address=str(tmp_path / "shared")), tmp_path)
    shared.put("x", b"y")
    assert (tmp_path / "shared" / "x").is_file() and store.find("x") is None


def test_an_address_that_is_none_is_refused(tmp_path):
    with pytest.raises(UsageError, match="Cannot open this kind of address"):
        open_store(StoreConfig(address="ftp://host/x"), tmp_path)


def test_settings_go_before_what_is_found(environment, monkeypatch):
    monkeypatch.setenv("S3_ENDPOINT_URL", "https://found.example")
    found = profile_of(StoreConfig(address="s3://bucket/prefix"))
    assert (found.bucket, found.endpoint, found.access_key) == ("bucket", "https://found.example", "mouse")
    assert found.verify and found.path_style, "of an endpoint of its own"
    chosen = profile_of(
        StoreConfig(address="s3://bucket", endpoint="https://set.example", region="eu-x", path_style="no", verify=False)
    )
    assert (chosen.endpoint, chosen.region, chosen.path_style, chosen.verify) == (
        "https://set.example",
        "eu-x",
        False,
        False,
    )
    assert profile_of(StoreConfig(address="s3://bucket", endpoint="https://set.example", path_style="yes")).path_style


def test_on_loopback_a_run_has_one_store_as_long_as_the_process_lives(tmp_path):
    first = open_store(StoreConfig(address=LOOPBACK), tmp_path / "a")
    first.put("segments/x", b"of a")
    assert open_store(StoreConfig(address=LOOPBACK), tmp_path / "." / "a").get("segments/x") == b"of a"
    assert list(open_store(StoreConfig(address=LOOPBACK), tmp_path / "b").list()) == []
    kept = [path.read_bytes() for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert b"of a" in kept, "it lies in the run's folder"


def test_the_hub_is_the_one_that_is_set_or_one_of_this_process(tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    assert open_hub(PublishConfig(), tmp_path) == HubPlace()
    assert open_hub(PublishConfig(endpoint="https://hub.example"), tmp_path).endpoint == "https://hub.example"
    served = open_hub(PublishConfig(endpoint=LOOPBACK, repo="lab/voices"), tmp_path)
    assert constants.HF_HUB_DISABLE_XET, "the one on loopback does not speak it"
    identified = {"Authorization": f"Bearer {served.token}"}
    asked = urllib.request.Request(f"{served.endpoint}/api/whoami-v2", headers=identified)
    with urllib.request.urlopen(asked, timeout=10) as answer:
        who = json.load(answer)
    assert "lab" in {who["name"], *(org["name"] for org in who["orgs"])}, "it may write where the dataset is to be"
    assert served.token not in repr(served)
    assert open_hub(PublishConfig(endpoint=LOOPBACK, repo="lab/voices"), tmp_path) == served
