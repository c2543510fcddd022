"""Signatures of requests, against a server that checks them as Amazon's does."""

from __future__ import annotations

from datetime import UTC, datetime

from colabkit.io.places.http.signing import Signer, query_of
from colabkit.loopback import signatures
from colabkit.loopback.messages import Request

WHEN = datetime(2013, 5, 24, tzinfo=UTC)


def test_the_key_of_a_day():
    signer = Signer("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "", "us-east-1")
    assert signer._key("20130524") == signer._key("20130524") != signer._key("20130525")
    assert "wJalr" not in repr(signer)


def test_a_server_that_checks_signatures_accepts_them():
    signer = Signer("AKIA", "secret", "a token", "eu-west-9")
    for method, path, query in (
        ("GET", "/bucket", query_of({"list-type": "2", "prefix": "a b/ü", "start-after": "a+b"})),
        ("PUT", "/bucket/a%20b/%C3%BC%23~x", ""),
        ("POST", "/bucket/x", "uploads="),
    ):
        url = f"https://host:9021{path}" + (f"?{query}" if query else "")
        headers = signer.signed(method, url, {"If-None-Match": "*", "Range": "bytes=0-1"})
        fields = {**headers, "host": "host:9021"}
        target = path + (f"?{query}" if query else "")
        request = Request(method, target, fields)
        assert signatures.fault_of(request, "secret") is None
        assert signatures.fault_of(request, "another") is not None
        assert signatures.fault_of(Request(method, target, {**fields, "if-none-match": "x"}), "secret") is not None
        assert headers["x-amz-security-token"] == "a token" and signatures.access_key(request) == "AKIA"


def test_time_is_part_of_it():
    signer = Signer("AKIA", "secret", "", "us-east-1")
    headers = signer.signed("GET", "https://h/b/k", {}, WHEN)
    assert (
        headers["x-amz-date"] == "20130524T000000Z" and "20130524/us-east-1/s3/aws4_request" in headers["authorization"]
    )
    assert signatures.fault_of(Request("GET", "/b/k", {**headers, "host": "h"}), "secret")[0] == "RequestTimeTooSkewed"
