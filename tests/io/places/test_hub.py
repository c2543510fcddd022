"""Datasets of the Hub on loopback: pinned to a commit, read by ranges, refused in words that open them."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from colabkit.core.errors import UsageError
from colabkit.io.places import open_place
from colabkit.io.places.http.ranges import Refused, Unreachable
from colabkit.io.places.hub import HubDataset, parse_hub_address
from colabkit.loopback.hub import HubServer
from tests.io.places.conftest import FILES, pinned


def test_hub_addresses():
    assert parse_hub_address("hub:openslr/librispeech_asr/clean/train.100@abc") == (
        "openslr/librispeech_asr",
        ["clean", "train.100"],
        "abc",
    )
    assert parse_hub_address("hub:org/name@refs/convert/parquet") == ("org/name", [], "refs/convert/parquet")
    assert parse_hub_address("hub:squad") == ("squad", [], None)
    assert parse_hub_address("hub:org/name/") == ("org/name", [], None)
    for address in ("hub:", "hub:@main", "hub:org/name@", "org/name", "hub:/"):
        with pytest.raises(UsageError, match="no address of a Hub dataset"):
            parse_hub_address(address)


def test_hub_revisions_and_folders(at, hub):
    first = hub.add_dataset("org/revisions", {"x.wav": b"first", "sub/é/y.wav": b"sub"})
    converted = hub.add_dataset("org/revisions", {"0.parquet": b"converted"}, revision="refs/convert/parquet")
    hub.add_dataset("org/revisions", {"x.wav": b"second!"})
    at("hub")
    assert pinned("hub:org/revisions").read("x.wav") == b"second!"
    old = pinned(f"hub:org/revisions@{first}")
    assert old.read("x.wav") == b"first" and old.address == f"hub:org/revisions@{first}"
    store = pinned("hub:org/revisions@refs/convert/parquet")
    assert store.address == f"hub:org/revisions@{converted}" and store.read("0.parquet") == b"converted"
    folder = pinned(f"hub:org/revisions/sub@{first}")
    assert [o.name for o in folder.list()] == ["é/y.wav"] and folder.read("é/y.wav") == b"sub"
    assert folder.address == f"hub:org/revisions/sub@{first}" and pinned(folder.address).list() == folder.list()
    with pytest.raises(UsageError, match="no such folder"):
        pinned("hub:org/revisions/nowhere").list()


def test_hub_is_a_place_as_others_are_but_not_written(at):
    place = open_place(at("hub"))
    inner = place.below("dir")
    assert [found.name for found in place.list("dir")] == [f"dir/{found.name}" for found in inner.list()]
    assert place.find("a.wav").size == 1 and place.find("nowhere") is None and place.get_if_there("nowhere") is None
    assert inner.get("b c.flac", 2, 5) == FILES["dir/b c.flac"][2:5] and inner.find("b c.flac").size == 70_000
    assert inner.address == place.address.replace("@", "/dir@")
    for write in (lambda: place.put("x", b"x"), lambda: inner.delete("b c.flac")):
        with pytest.raises(UsageError, match="read here, and not written") as caught:
            write()
        assert "hf://buckets/" in caught.value.fix


def test_hub_says_what_opens_a_dataset(at, hub, monkeypatch):
    hub.add_dataset("org/gated", {"x.wav": b"gated"}, gated=True)
    hub.add_dataset("org/private", {"x.wav": b"private"}, private=True)
    hub.tokens, hub.tokens_without_access = {"hf_good"}, {"hf_other"}
    at("hub")

    def refusal(address):
        with pytest.raises(UsageError) as caught:
            pinned(address)
        assert "hf_" not in str(caught.value)
        return str(caught.value)

    text = refusal("hub:org/gated")
    assert (
        f"accept the terms at {hub.url}/datasets/org/gated" in text and "HF_TOKEN" in text and "hf auth login" in text
    )
    assert "private" in refusal("hub:org/private") and "HF_TOKEN" in refusal("hub:org/private")
    assert "org/absent" in refusal("hub:org/absent")
    assert "no such revision" in refusal("hub:org/na-me_1.0@nowhere")
    assert "no name of a Hub dataset" in refusal("hub:org/na--me..x")
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    assert "accept the terms" in refusal("hub:org/gated") and "account of this token" in refusal("hub:org/private")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "settings/tokens" in refusal("hub:org/gated")
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    for name in ("gated", "private"):
        assert pinned(f"hub:org/{name}").read("x.wav") == name.encode()
    monkeypatch.delenv("HF_TOKEN")
    assert HubDataset("org/private", token="hf_good").get("x.wav") == b"private"


def test_hub_offline_and_unreachable(at, hub, monkeypatch):
    at("hub")
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match="offline mode"):
        pinned("hub:org/na-me_1.0")
    monkeypatch.undo()
    monkeypatch.setattr("colabkit.io.places.hub._OPENING_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(Unreachable, match=f"127.0.0.1:{port}"):
        HubDataset("org/na-me_1.0", endpoint=f"http://127.0.0.1:{port}")


def test_hub_token_that_expires_while_reading(at, hub, monkeypatch):
    big = random.Random(2).randbytes(100_000)
    hub.add_dataset("org/expires", {"x.tar": big, "y.wav": b"small"}, private=True)
    hub.tokens = {"hf_first"}
    at("hub")
    monkeypatch.setenv("HF_TOKEN", "hf_first")
    store = pinned("hub:org/expires")
    assert store.read("y.wav") == b"small" and store.read("x.tar", 5, 10) == big[5:10]
    hub.tokens = {"hf_second"}
    assert store.read("x.tar", 10, 20) == big[10:20]  # the signed link works still
    monkeypatch.setenv("HF_TOKEN", "hf_second")  # somebody logs in again
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: store.read("y.wav"), range(40))) == {b"small"}
    hub.tokens = {"hf_third"}
    with pytest.raises(Refused) as caught:
        store.read("y.wav")
    assert "HF_TOKEN" in caught.value.fix and "hf_" not in str(caught.value) and caught.value.status == 401


def test_hub_signed_links_that_expire(monkeypatch):
    with HubServer(link_seconds=0.2) as hub:
        hub.add_dataset("org/name", {"x.tar": FILES["dir2/big.tar"]})
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        store = pinned("hub:org/name")
        for _ in range(3):
            assert store.read("x.tar", 7, 300_000) == FILES["dir2/big.tar"][7:300_000]
            assert store.read("x.tar", 9, 12) == FILES["dir2/big.tar"][9:12]
            time.sleep(0.25)
        resolved = [path for _, path, _, _ in hub.requests if "/resolve/" in path]
        assert len(resolved) == 3  # once a link, not once a read
        assert not any(status == 400 for *_, status in hub.requests)  # the token never went along


def test_hub_writes_nothing_to_disk(at, hub, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    code = f"""
from colabkit.io.places import Pinned, open_place
store = Pinned(open_place({at("hub")!r}))
print(sum(len(store.read(o.name)) for o in store.list()))
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_HOME", "XDG_", "HUGGINGFACE"))}
    done = subprocess.run(
        [sys.executable, "-B", "-c", code],
        capture_output=True,
        text=True,
        env={**environment, "HOME": os.fspath(home)},
    )
    assert done.stdout.strip() == str(sum(map(len, FILES.values()))), done.stderr
    assert not [p for p in home.rglob("*") if p.is_file()]
