"""Pushing to a Hub on loopback: what is committed without its content, waits that are ordered, refusals in words."""

from __future__ import annotations

import base64
import hashlib
import time

import pytest

from colabkit.core.errors import Stopped, UsageError
from colabkit.io.places.http.patience import Unreachable
from colabkit.io.transfer.hub_repo import HubPush, hub_page, require_name, without_upload_bars
from tests.servers.busy_hub import BusyHub, Quota
from tests.told import Told

TOKEN = "hf_" + "w" * 34
LARGE = bytes(range(256)) * 1000


@pytest.fixture
def hub(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with BusyHub() as server:
        server.writers = {TOKEN: ("me",)}
        yield server


def push_to(hub, **how) -> HubPush:
    return HubPush("me/voices", "dataset", token=TOKEN, endpoint=hub.url, **{"teller": Told()} | how)


def line(path: str, content: bytes) -> dict:
    return {
        "key": "lfsFile",
        "value": {"path": path, "algo": "sha256", "oid": hashlib.sha256(content).hexdigest(), "size": len(content)},
    }


def test_what_is_uploaded_is_committed_by_name(hub):
    from huggingface_hub import CommitOperationAdd

    push = push_to(hub)
    info = push.make(private=True)
    assert info.private and hub.repos["me/voices"].private and push.page == f"{hub.url}/datasets/me/voices"
    push.ask(
        lambda: push.api.preupload_lfs_files("me/voices", [CommitOperationAdd("a.parquet", LARGE)], repo_type="dataset")
    )
    small = {
        "key": "file",
        "value": {"path": "ä b.txt", "content": base64.b64encode(b"small").decode(), "encoding": "base64"},
    }
    head = push.ask(lambda: push.commit_lines([line("a.parquet", LARGE), small], "Two files", info.sha))
    tree = push.ask(lambda: push.tree(head))
    assert tree["a.parquet"].lfs.sha256 == hashlib.sha256(LARGE).hexdigest() and push.tree(head, "nothing") == {}
    assert push.ask(lambda: push.read("ä b.txt", head)) == b"small"
    with pytest.raises(ValueError):
        push.ask(
            lambda: push.commit_lines([line("b.parquet", b"never sent")], "x", head),
            refused=lambda status, told: ValueError(f"{status} {told}"),
        )
    with pytest.raises(UsageError, match="not uploaded"):
        push.ask(lambda: push.commit_lines([line("b.parquet", b"never sent")], "x", head))


def test_a_commit_on_an_old_parent_is_asked_again(hub):
    push = push_to(hub, deadline_seconds=5)
    first = push.make(private=False).sha
    small = {"key": "file", "value": {"path": "a", "content": "YQ==", "encoding": "base64"}}
    push.ask(lambda: push.commit_lines([small], "one", first))
    parents = iter([first, first])
    head = push.ask(
        lambda: push.commit_lines(
            [{**small, "value": {**small["value"], "path": "b"}}], "two", next(parents, None) or push.info().sha
        )
    )
    assert set(push.tree(head)) == {".gitattributes", "a", "b"}
    assert [s for _, p, _, s in hub.requests if "/commit/" in p] == [200, 412, 412, 200]


def test_ordered_waits_are_obeyed_and_long_ones_sat_out_or_told(hub):
    told = Told()
    push = push_to(hub, teller=told, deadline_seconds=1.0, quota_seconds=30)
    hub.api_quota = Quota(0, 3)
    began = time.monotonic()
    import threading

    threading.Timer(1.0, lambda: setattr(hub, "api_quota", None)).start()
    push.make(private=True)
    assert time.monotonic() - began >= 2 and "waiting" in told.said[0]
    hub.api_quota = Quota(0, 3600)
    with pytest.raises(Unreachable, match="Cannot push"):
        push_to(hub, deadline_seconds=1.0).make(private=True)
    with pytest.raises(Stopped):
        push_to(hub, deadline_seconds=1.0, quota_seconds=4000, teller=Told(stop=lambda: True)).make(private=True)


def test_names_and_pages():
    assert require_name("me/voices", "dataset") == "me/voices"
    for name in ("voices", "me/", "me/a b", "me/a--b", "me/a..b", "a/b/c"):
        with pytest.raises(UsageError, match="no name of a dataset"):
            require_name(name, "dataset")
    assert (
        hub_page("a/b", "dataset", "http://h/") == "http://h/datasets/a/b"
        and hub_page("a/b", "model", "http://h") == "http://h/a/b"
    )


def test_bars_come_back():
    from huggingface_hub.utils import are_progress_bars_disabled

    before = are_progress_bars_disabled()
    with without_upload_bars():
        assert are_progress_bars_disabled()
    assert are_progress_bars_disabled() == before
