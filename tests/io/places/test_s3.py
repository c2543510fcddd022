"""S3 behind TLS: ways of signing in, regions, what verifies whom, and buckets that go to other processes."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

from colabkit.core.errors import UsageError
from colabkit.io.places import S3Profile, StoredObject, open_place
from colabkit.loopback.messages import Answer, Request
from colabkit.loopback.s3 import S3Server
from colabkit.loopback.serving import HttpServer
from tests.io.places.conftest import KEY, SECRET, Faults, pinned


def test_the_region_that_a_refusal_names_is_taken(either, server):
    server.put("bucket", "p/x", b"content")
    other = Answer(
        400,
        {"Content-Type": "application/xml"},
        b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-north-1</Region></Error>",
    )
    server.before = faults = Faults(other)
    assert either.get("x") == b"content" and "/eu-north-1/s3/" in faults.requests[1].fields["authorization"]


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


class PublicS3(HttpServer):
    """A public bucket in the manner of S3: unsigned requests only, and its region told to anybody."""

    def answer(self, request: Request) -> Answer:
        if "authorization" in request.fields or "X-Amz-Signature" in request.target:
            return Answer(403, {}, b"<Error><Code>AccessDenied</Code></Error>")
        if request.path.startswith("/elsewhere"):
            return Answer(301, {"x-amz-bucket-region": "eu-north-1"}, b"<Error><Code>PermanentRedirect</Code></Error>")
        if request.path in ("/open", "/open/"):
            listing = (
                "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>é/a b%.wav</Key><Size>5</Size><ETag>"
                "&quot;e&quot;</ETag><LastModified>2024-01-01T00:00:00Z</LastModified></Contents></ListBucketResult>"
            )
            return Answer(200, {"x-amz-bucket-region": "eu-north-1"}, listing.encode())
        return Answer(200, {"ETag": '"e"'}, b"12345") if request.target == "/open/%C3%A9/a%20b%25.wav" else Answer(404)


def test_s3_public_bucket_without_keys(monkeypatch):
    with PublicS3() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_DEFAULT_REGION"):
            monkeypatch.delenv(name, raising=False)
        store = pinned("s3://open")
        assert store.list() == [StoredObject("é/a b%.wav", 5, "e")]
        assert store.read("é/a b%.wav", 1, 4) == b"234"
        with pytest.raises(UsageError, match="another region"):
            pinned("s3://elsewhere")
        monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost:9000")
        with pytest.raises(UsageError, match="no web address"):
            pinned("s3://open")
