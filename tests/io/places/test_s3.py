"""S3 behind TLS: faults that pass, what is refused and in which words, listings of many pages, forks, secrets."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time

import pytest

from colabkit.core.errors import DataError, UsageError
from colabkit.io.places import S3Profile, Taken, open_place
from colabkit.io.places.http.patience import Unreachable
from colabkit.loopback.messages import Answer
from colabkit.loopback.s3 import S3Server, refuse
from tests.io.places.conftest import KEY, SECRET


class Faults:
    """Answers the next requests with what is given, then lets them through."""

    def __init__(self, *answers):
        self.answers, self.requests = list(answers), []

    def __call__(self, request):
        self.requests.append(request)
        return self.answers.pop(0) if self.answers else None


@pytest.fixture(params=["obstore", "pinned"])
def either(request, server, profile):
    """Objects by either client."""
    if request.param == "pinned":
        from colabkit.io.places.http import trust

        trust.pin(server.url, confirm=lambda _: True)
    return open_place("s3://bucket/p", profile=profile)


def without_secrets(error: Exception) -> str:
    text = f"{error} {error!r} {error.__cause__!r}"
    assert SECRET not in text and KEY not in text and "Signature=" not in text
    return text


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


def test_the_region_that_a_refusal_names_is_taken(either, server):
    server.put("bucket", "p/x", b"content")
    other = Answer(
        400,
        {"Content-Type": "application/xml"},
        b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-north-1</Region></Error>",
    )
    server.before = faults = Faults(other)
    assert either.get("x") == b"content" and "/eu-north-1/s3/" in faults.requests[1].fields["authorization"]


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


def test_what_is_refused(either, server, profile):
    def fault(code, status, doing):
        server.before = lambda request: Answer(
            status,
            {"Content-Type": "application/xml"},
            f"<Error><Code>{code}</Code><AWSAccessKeyId>{KEY}</AWSAccessKeyId></Error>".encode(),
        )
        with pytest.raises(UsageError) as caught:
            doing()
        server.before = None
        return without_secrets(caught.value)

    assert "The keys have expired" in fault("ExpiredToken", 400, lambda: either.put("x", b""))
    assert "The keys are not accepted" in fault("InvalidAccessKeyId", 403, lambda: either.get("x"))
    assert "clock" in fault("RequestTimeTooSkewed", 403, lambda: either.get("x"))
    assert "s3:PutObject" in fault("AccessDenied", 403, lambda: either.put("x", b""))
    assert "s3:GetObject" in fault("AccessDenied", 403, lambda: either.get("x"))
    assert "s3:DeleteObject" in fault("AccessDenied", 403, lambda: either.delete("x"))
    assert "s3:ListBucket" in fault("AccessDenied", 403, lambda: list(either.list()))
    assert "no such bucket" in fault("NoSuchBucket", 404, lambda: either.get("x"))
    assert "no such bucket" in fault("NoSuchBucket", 404, lambda: list(either.list()))
    assert "no such bucket" in fault("NoSuchBucket", 404, lambda: either.put("x", b""))
    assert "cannot write" in fault("NotImplemented", 501, lambda: either.put("x", b""))
    server.before = lambda request: Answer(
        400,
        {"Content-Type": "application/xml"},
        b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-9</Region></Error>",
    )
    with pytest.raises(UsageError, match="another region") as caught:
        either.get("x")
    assert "eu-west-9" in caught.value.fix


def test_keys_that_a_server_knows_to_be_wrong(server, certificates):
    def objects(**more):
        return open_place(
            "s3://bucket",
            profile=S3Profile(
                bucket="bucket",
                endpoint=server.url,
                **{"access_key": KEY, "secret_key": SECRET, "ca_bundle": str(certificates.authority), **more},
            ),
        )

    for more, words in (({"secret_key": "wrong"}, "not accepted"), ({"access_key": "AKIAELSEWHERE"}, "not accepted")):
        with pytest.raises(UsageError, match=words) as caught:
            objects(**more).put("x", b"x")
        without_secrets(caught.value)
    server.expired.add(KEY)
    with pytest.raises(UsageError, match="have expired"):
        list(objects().list())
    server.expired.clear()
    server.undeletable.add("bucket")
    objects().put("x", b"x")
    with pytest.raises(UsageError, match="no right to delete"):
        objects().delete("x")
    with pytest.raises(UsageError, match="not public"):
        objects(access_key="", secret_key="").find("x")
    with pytest.raises(UsageError, match="cannot prove who it is") as caught:
        objects(ca_bundle="").find("x")
    assert f"colabkit trust {server.url}" in caught.value.fix


def test_verification_is_off_only_when_said_and_then_loudly(server, capsys):
    profile = S3Profile(bucket="bucket", endpoint=server.url, access_key=KEY, secret_key=SECRET, verify=False)
    for _ in range(2):
        objects = open_place("s3://bucket", profile=profile)
        assert objects.put("x", b"x")
        told = capsys.readouterr().err
        assert "WITHOUT verifying" in told and SECRET not in told


def test_payloads_are_signed_where_nothing_else_protects_them(server, objects):
    seen = {}

    def look(request):
        seen[request.target] = request.fields.get("x-amz-content-sha256", "")

    server.before = look
    objects.put("x", b"x")
    assert seen.popitem()[1] == "UNSIGNED-PAYLOAD"
    with S3Server(keys={KEY: SECRET}) as plain:
        plain.make_bucket("bucket")
        plain.before = look
        unprotected = S3Profile(bucket="bucket", endpoint=plain.url, access_key=KEY, secret_key=SECRET)
        open_place("s3://bucket", profile=unprotected).put("x", b"x")
    assert len(seen.popitem()[1]) == 64


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


def test_a_profile_goes_to_other_processes(profile, server):
    code = (
        "import pickle, sys; from colabkit.io.places import open_place; "
        "p = pickle.load(sys.stdin.buffer); print(open_place('s3://bucket/a', profile=p).put('x', b'x'))"
    )
    done = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(profile), capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert server.buckets["bucket"].find("a/x") is not None


def test_objects_go_to_other_processes_too(objects):
    objects.put("x", b"x")
    assert pickle.loads(pickle.dumps(objects)).below("").get("x") == b"x"


def test_a_server_that_was_never_heard_of_is_given_up_sooner(profile, monkeypatch, server):
    from colabkit.io.places import bucket

    monkeypatch.setattr(bucket, "OPENING_SECONDS", 0.4)
    with pytest.raises(Unreachable):
        open_place("s3://bucket", profile=S3Profile(bucket="bucket", endpoint="https://127.0.0.1:9")).find("x")
    known = open_place("s3://bucket", profile=profile)
    known.put("x", b"x")
    began, server.before = time.monotonic(), lambda request: Answer(503) if time.monotonic() < began + 1 else None
    assert known.get("x") == b"x" and time.monotonic() > began + 1


def test_addresses(tmp_path, profile, monkeypatch):
    assert open_place(tmp_path).address == str(tmp_path)
    for address in ("ftp://x/y", "S3://bucket", "hf://buckets/only"):
        with pytest.raises(UsageError):
            open_place(address)
    with pytest.raises(UsageError, match="no name of a bucket"):
        open_place("s3://NotABucket/x")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="a file"):
        open_place(tmp_path / "file")
    with pytest.raises(DataError):
        open_place(tmp_path).get("file/x")


def test_a_bucket_of_the_hub_is_reached_through_its_gateway(server, certificates, monkeypatch):
    monkeypatch.setenv("COLABKIT_HUB_S3", server.url)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificates.authority))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    seen = []
    server.before = lambda request: seen.append((request.method, request.path)) or Answer(200, {"ETag": '"1"'})
    objects = open_place("hf://buckets/somebody/voices/segments")
    objects.put("x", b"x")
    assert (
        seen == [("PUT", "/somebody/voices/segments/x")] and objects.address == "hf://buckets/somebody/voices/segments"
    )
