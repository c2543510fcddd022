"""Google Cloud Storage on loopback: read and written by obstore, listed by generations, signed in, refused in words."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate

import pytest

from colabkit.core.errors import ChangedError, UsageError
from colabkit.io.places import Pinned, open_place
from colabkit.loopback.messages import Answer, Request, answer_range
from colabkit.loopback.serving import HttpServer
from tests.servers.gcs import GcsServer


@pytest.fixture
def gcs(monkeypatch):
    with GcsServer() as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        server.put("bucket", "there", b"x")
        server.put("closed", "there", b"x")
        server.deny("closed")
        yield server


def test_read_write_list(gcs):
    objects = open_place("gs://bucket/some/prefix")
    assert objects.get_if_there("a b/ü") is None and list(objects.list()) == []
    for number in range(5):
        objects.put(f"{number}", b"%d" % number)
    gcs.put("bucket", "some/prefix/a b/ü", b"0123456789")
    assert objects.get("a b/ü", 2, 5) == b"234"
    listed = list(objects.list())
    assert [found.name for found in listed] == ["0", "1", "2", "3", "4", "a b/ü"]
    assert len({found.version for found in listed}) == 6
    assert [found.name for found in objects.list("a b")] == ["a b/ü"] and objects.below("a b").address.endswith(
        "prefix/a b"
    )
    with pytest.raises(ChangedError):
        objects.get("a b/ü", version="another")


def test_refusals(gcs):
    with pytest.raises(UsageError, match="no such bucket"):
        open_place("gs://nowhere-at-all").put("x", b"x")
    with pytest.raises(UsageError, match="no right to write") as caught:
        open_place("gs://closed").put("x", b"x")
    assert "storage.objects.create" in caught.value.expected and "gcloud auth" in caught.value.fix
    with pytest.raises(UsageError, match="list this bucket|not public"):
        list(open_place("gs://closed").list())


def test_a_server_that_says_how_long_to_wait_is_left_alone_so_long(gcs):
    place, told = open_place("gs://bucket"), [Answer(429, {"Retry-After": "1"}, b"{}")] * 2
    true_answer = gcs.answer
    for ask, refusals in (
        (lambda: place.get("there"), told),
        (lambda: [found.name for found in place.list()], told[:1]),
    ):
        left = list(refusals)
        gcs.answer = lambda request, left=left: left.pop() if left else true_answer(request)
        began = time.monotonic()
        assert ask() in (b"x", ["there"]) and time.monotonic() - began > 1 and not left


class GuardedGcs(HttpServer):
    """A bucket that wants a bearer token, and the server that gives tokens to a service account."""

    def __init__(self):
        super().__init__()
        self.good, self.given = {"t1"}, ["t1", "t2", "t3"]

    def answer(self, request: Request) -> Answer:
        if request.path == "/token":
            self.good = {self.given[0]}
            text = json.dumps({"access_token": self.given.pop(0), "expires_in": 3600, "token_type": "Bearer"})
            return Answer(200, {"Content-Type": "application/json"}, text.encode())
        if request.fields.get("authorization", "").removeprefix("Bearer ") not in self.good:
            return Answer(401, {}, b"{}")
        if not request.path.startswith("/storage/"):
            fields = {"ETag": '"e"', "X-Goog-Generation": "7", "Last-Modified": formatdate(usegmt=True)}
            return answer_range(request, 5, lambda start, stop: b"12345"[start:stop], fields)
        first = "pageToken" not in request.target
        page = {"items": [{"name": "a.wav" if first else "b.wav", "size": "5", "generation": "7"}]}
        return Answer(200, {}, json.dumps(page | ({"nextPageToken": "x"} if first else {})).encode())


def test_gcs_tokens_come_and_are_renewed(monkeypatch, tmp_path):
    key = tmp_path / "key.pem"
    made = subprocess.run(["openssl", "genrsa", "-out", key, "2048"], capture_output=True)
    if made.returncode:
        pytest.skip("openssl makes no key here")
    from colabkit.io.places.gcs import GcsBucket

    with GuardedGcs() as server:
        account = {
            "type": "service_account",
            "project_id": "p",
            "private_key_id": "k",
            "private_key": key.read_text(),
            "client_email": "a@b.c",
            "client_id": "1",
            "token_uri": f"{server.url}/token",
        }
        (tmp_path / "account.json").write_text(json.dumps(account))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", os.fspath(tmp_path / "account.json"))
        store = Pinned(GcsBucket("bucket", endpoint=server.url))
        assert [o.name for o in store.list()] == ["a.wav", "b.wav"] and store.read("a.wav") == b"12345"
        assert store.read("b.wav", 0, 2) == b"12"
        server.good = set()  # revoked before its time
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(lambda k: store.read(("a.wav", "b.wav")[k % 2], 1, 3), range(20))) == {b"23"}
        assert len(server.given) == 1  # one new token was enough
        assert pickle.loads(pickle.dumps(store)).read("b.wav", 0, 2) == b"12"
        server.good, server.given = set(), ["wrong"]
        server.answer = lambda request: Answer(401, {}, b"{}") if request.path != "/token" else Answer(400, {}, b"{}")
        with pytest.raises(UsageError, match="credentials") as caught:
            store.read("a.wav", 1, 3)
        assert "gcloud" in caught.value.fix
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    with GuardedGcs() as server, pytest.raises(UsageError, match="no Google credentials were found"):
        Pinned(GcsBucket("bucket", endpoint=server.url))
