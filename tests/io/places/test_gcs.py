"""Google Cloud Storage on loopback: read and written by obstore, listed by generations, refused in words."""

from __future__ import annotations

import time

import pytest

from colabkit.core.errors import ChangedError, UsageError
from colabkit.io.places import open_place
from colabkit.loopback.messages import Answer
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
