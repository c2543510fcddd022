"""Refusals of S3 behind TLS: each in words that say what to do, and never with a secret in them."""

from __future__ import annotations

import pytest

from colabkit.core.errors import UsageError
from colabkit.io.places import S3Profile, open_place
from colabkit.loopback.messages import Answer
from tests.io.places.conftest import KEY, SECRET, without_secrets


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
