"""Writes to a Hub on loopback: rights, signatures, contents, and commits at once."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor

from tests.loopback.conftest import LARGE


def test_writes_need_a_right_a_signature_and_the_content_they_name(hub, http):
    hub.writers, hub.tokens = {"writer": ("me",)}, {"reader"}
    ask = lambda path, body, token="writer": http.request(  # noqa: E731
        "POST", hub.url + path, body=body, headers={"Authorization": f"Bearer {token}"} if token else {}
    )
    make = json.dumps({"name": "m", "organization": "me", "type": "model", "visibility": "private"})
    tokens = (None, "reader", "writer", "writer")
    assert [ask("/api/repos/create", make, token).status for token in tokens] == [401, 403, 200, 409]
    assert ask("/api/repos/create", make.replace('"me"', '"you"')).status == 403
    head = json.dumps({"key": "header", "value": {"summary": "x"}})
    small = json.dumps({"key": "file", "value": {"path": "a.txt", "content": "aGVsbG8=", "encoding": "base64"}})
    assert ask("/api/models/me/m/commit/main", f"{head}\n{small}", "reader").status == 403
    done = ask("/api/models/me/m/commit/main", f"{head}\n{small}").json()
    assert hub.models["me/m"].commits[done["commitOid"]].files["a.txt"].content == b"hello"
    oid = hashlib.sha256(LARGE).hexdigest()
    wanted = json.dumps({"objects": [{"oid": oid, "size": len(LARGE)}]})
    assert ask("/me/m.git/info/lfs/objects/batch", wanted, "reader").status == 403
    action = ask("/me/m.git/info/lfs/objects/batch", wanted).json()["objects"][0]["actions"]["upload"]["href"]
    large = json.dumps({"key": "lfsFile", "value": {"path": "b.bin", "algo": "sha256", "oid": oid, "size": len(LARGE)}})
    assert ask("/api/models/me/m/commit/main", f"{head}\n{large}").status == 400  # not uploaded yet
    put = lambda address, body: http.request("PUT", address, body=body).status  # noqa: E731
    assert (put(action + "0", LARGE), put(action, LARGE[1:]), put(action, LARGE)) == (403, 400, 200)
    assert "actions" not in ask("/me/m.git/info/lfs/objects/batch", wanted).json()["objects"][0]
    old = json.dumps({"key": "header", "value": {"summary": "x", "parentCommit": "0" * 40}})
    assert ask("/api/models/me/m/commit/main", f"{old}\n{large}").status == 412
    assert ask("/api/models/me/m/commit/main", f"{head}\n{large}").status == 200
    read = http.request(
        "GET", f"{hub.url}/me/m/resolve/main/b.bin", headers={"Authorization": "Bearer writer"}, redirect=False
    )
    assert read.status == 302 and http.request("GET", read.headers["Location"]).data == LARGE
    assert http.request("GET", f"{hub.url}/me/m/resolve/main/b.bin").status == 401


def test_commits_at_once_lose_nothing(hub, http):
    hub.writers = {"writer": ("me",)}
    fields = {"Authorization": "Bearer writer"}
    http.request(
        "POST", f"{hub.url}/api/repos/create", body=json.dumps({"name": "d", "type": "dataset"}), headers=fields
    )

    def commit(i: int) -> int:
        lines = [
            {"key": "header", "value": {"summary": "x"}},
            {"key": "file", "value": {"path": f"{i}.txt", "content": "YQ==", "encoding": "base64"}},
        ]
        return http.request(
            "POST", f"{hub.url}/api/datasets/me/d/commit/main", body="\n".join(map(json.dumps, lines)), headers=fields
        ).status

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(commit, range(40))) == {200}
    assert len(hub.repos["me/d"].find("main").files) == 41 and len(hub.repos["me/d"].commits) == 41
