"""Buckets of any kind: faults that pass, patience and its end, conditional writes, forks, refusals."""

from __future__ import annotations

import os
import time

import pytest

from colabkit.core.errors import UsageError
from colabkit.io.places import S3Profile, Taken, open_place
from colabkit.io.places.http.patience import Unreachable
from colabkit.loopback.messages import Answer
from colabkit.loopback.s3 import S3Server, refuse
from tests.io.places.conftest import KEY, SECRET, Faults, pinned, without_secrets


@pytest.mark.parametrize(("kind", "address"), [("s3", "s3://no-such-bucket/x"), ("gcs", "gs://no-such-bucket/x")])
def test_bucket_that_does_not_exist(kind, address, at):
    at(kind)
    with pytest.raises(UsageError, match="no such bucket") as caught:
        pinned(address)
    assert "no-such-bucket" in str(caught.value)
    with pytest.raises(UsageError, match="no name of a bucket"):
        pinned(address.replace("no-such-bucket", "Büro"))


@pytest.mark.parametrize(("kind", "scheme"), [("s3", "s3"), ("gcs", "gs")])
def test_bucket_that_may_not_be_read(kind, scheme, at, request, monkeypatch):
    server = request.getfixturevalue(kind)
    server.put(f"denied-{kind}", "x.wav", b"x")
    server.put(f"later-{kind}", "x.wav", b"x")
    server.deny(f"denied-{kind}")
    at(kind)
    began = time.monotonic()
    with pytest.raises(UsageError, match="right|public") as caught:
        pinned(f"{scheme}://denied-{kind}")
    assert "status 403" in str(caught.value)
    store = pinned(f"{scheme}://later-{kind}")
    server.deny(f"later-{kind}")
    with pytest.raises(UsageError, match="no right to read") as caught:
        store.read("x.wav")
    assert "Amz" not in str(caught.value) and ("s3:GetObject" if kind == "s3" else "gcloud") in caught.value.fix
    if kind == "s3":
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        with pytest.raises(UsageError, match="One of the two S3 keys is missing"):
            pinned("s3://denied-s3")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        with pytest.raises(UsageError, match="no credentials were found") as caught:
            pinned("s3://denied-s3")
        assert "AWS_ACCESS_KEY_ID" in caught.value.fix
    assert time.monotonic() - began < 5


def test_faults_that_pass(either, server):
    server.put("bucket", "p/x", b"content")
    slow = refuse("SlowDown", "Please reduce your request rate")
    server.before = faults = Faults(slow, Answer(429), Answer(500), Answer(503))
    assert either.get("x") == b"content" and len(faults.requests) == 5
    server.before = Faults(slow, slow)
    assert either.put("y", b"new") and server.buckets["bucket"].find("p/y") is not None
    server.before = Faults(slow)
    assert [found.name for found in either.list()] == ["x", "y"]
    server.before = None
    server.resets = 2
    assert either.find("x").size == 7
    server.resets = 1
    either.delete("x")
    assert either.find("x") is None


def test_a_server_that_says_how_long_to_wait_is_left_alone_so_long(either, server):
    server.put("bucket", "p/x", b"content")
    told = Answer(503, {"Retry-After": "1"}, b"<Error><Code>SlowDown</Code></Error>")
    for ask, expected, num_requests in (
        (lambda: either.get("x"), b"content", 3),
        (lambda: either.find("x").size, 7, 3),
        (lambda: [found.name for found in either.list()], ["x"], 4),  # a listing asks until nothing comes
        (lambda: len(either.put("y", b"y")) > 0, True, 3),
    ):
        # Who asks through obstore is told by the second refusal: of the first it sees no more than that it was one.
        server.before, began = Faults(told, told), time.monotonic()
        assert ask() == expected and time.monotonic() - began > 1
        assert len(server.before.requests) == num_requests
    assert either.counts["throttled"] == 8


def test_a_read_that_was_refused_is_taken_up_where_it_is_sent(objects, server, certificates):
    with S3Server(tls=certificates.server_context()) as elsewhere:
        elsewhere.put("cdn", "content", b"0123456789")
        server.before = Faults(Answer(503), *[Answer(302, {"Location": f"{elsewhere.url}/cdn/content"})] * 2)
        assert objects.get("x", 2, 5) == b"234"


def test_a_conditional_put_whose_answer_was_lost_is_no_loss(either, server):
    server.resets, server.writes_before_reset = 1, True
    version = either.put("claim", b"mine", only_if_absent=True)
    assert either.get_if_there("claim") == (b"mine", version) and server.counts["put"] == 2
    server.resets = 1
    assert either.get("claim", version=either.put("claim", b"mine again", only_if_version=version)) == b"mine again"
    server.before = Faults(Answer(503))
    with pytest.raises(Taken):
        either.put("claim", b"another's", only_if_absent=True)


def test_a_conflict_of_conditional_puts_is_tried_again(either, server):
    text = b"<Error><Code>ConditionalRequestConflict</Code></Error>"
    server.before = Faults(Answer(409, {"Content-Type": "application/xml"}, text))
    assert either.put("x", b"1", only_if_absent=True)


def test_patience_ends(either, server):
    server.before = lambda request: Answer(503)
    with pytest.raises(Unreachable, match="503"):
        either.with_patience(0.5).get("x")
    with pytest.raises(Unreachable) as caught:
        open_place(
            "s3://bucket",
            profile=S3Profile(bucket="bucket", endpoint="http://127.0.0.1:9", access_key=KEY, secret_key=SECRET),
        ).with_patience(0.3).get("x")
    without_secrets(caught.value)


def test_listings_of_many_pages_go_on_after_faults(either, server):
    names = [f"p/{number:05d}.npz" for number in range(2500)] + ["p/marker/", "q/other"]
    for name in names:
        server.put("bucket", name, b"" if name.endswith("/") else b"x")
    seen = []
    for found in either.list():
        seen.append(found.name)
        if len(seen) == 900:
            server.resets = 2
    assert seen == [name[2:] for name in names[:2500]] and server.counts["list"] <= 5


def test_objects_of_a_forked_process(objects):
    objects.put("x", b"x")
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            objects.get("x")
            os.write(writer, b"read")
        except BaseException as error:
            os.write(writer, str(error).encode())
        os._exit(0)
    os.close(writer)
    told = b""
    while block := os.read(reader, 4096):
        told += block
    os.close(reader)
    os.waitpid(child, 0)
    assert b"forked process" in told and b"spawn" in told


def test_a_server_that_was_never_heard_of_is_given_up_sooner(profile, monkeypatch, server):
    from colabkit.io.places import bucket

    monkeypatch.setattr(bucket, "OPENING_SECONDS", 0.4)
    with pytest.raises(Unreachable):
        open_place("s3://bucket", profile=S3Profile(bucket="bucket", endpoint="https://127.0.0.1:9")).find("x")
    known = open_place("s3://bucket", profile=profile)
    known.put("x", b"x")
    began, server.before = time.monotonic(), lambda request: Answer(503) if time.monotonic() < began + 1 else None
    assert known.get("x") == b"x" and time.monotonic() > began + 1
