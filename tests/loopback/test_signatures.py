"""Signatures and checksums, refused with what Amazon says."""

from __future__ import annotations

import base64
import hashlib
import urllib.request
import zlib

import pytest

from colabkit.loopback.messages import Request
from colabkit.loopback.signatures import body_of
from tests.loopback.conftest import boto, obstore_of


def test_wrong_keys_are_refused_with_what_amazon_says(server, certificates):
    from botocore.exceptions import ClientError

    for client, code in (
        (boto(server, certificates, secret="wrong"), "SignatureDoesNotMatch"),
        (boto(server, certificates, key="cat"), "InvalidAccessKeyId"),
    ):
        with pytest.raises(ClientError, match=code):
            client.list_objects_v2(Bucket="voices")
    server.expired.add("mouse")
    with pytest.raises(ClientError, match="ExpiredToken"):
        boto(server, certificates).list_objects_v2(Bucket="voices")
    server.expired.clear()
    server.undeletable.add("voices")
    server.put("voices", "kept", b"x")
    with pytest.raises(ClientError, match="AccessDenied"):
        boto(server, certificates).delete_object(Bucket="voices", Key="kept")
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        urllib.request.urlopen(server.url)


def test_presigned_links_are_checked(server, certificates):
    import ssl

    server.put("voices", "a b", b"content")
    context = ssl.create_default_context(cafile=str(certificates.authority))
    link = boto(server, certificates).generate_presigned_url("get_object", Params={"Bucket": "voices", "Key": "a b"})
    assert "X-Amz" in link or "Signature" in link
    from datetime import timedelta

    import obstore

    link = obstore.sign(obstore_of(server, certificates), "GET", "a b", timedelta(seconds=60))
    assert urllib.request.urlopen(link, context=context).read() == b"content"
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(link.replace("a%20b", "c"), context=context)


def test_bodies_in_signed_chunks_are_joined_and_their_checksums_looked_at():
    def put(body: bytes, **fields: str) -> bytes:
        return body_of(Request("PUT", "/b/k", {name.replace("_", "-"): value for name, value in fields.items()}, body))

    def crc32(content: bytes) -> str:
        return base64.b64encode(zlib.crc32(content).to_bytes(4, "big")).decode()

    chunks = b"3;chunk-signature=x\r\nabc\r\n2\r\nde\r\n0\r\n"
    assert put(b"abc") == b"abc" and put(chunks + b"\r\n", content_encoding="aws-chunked") == b"abcde"
    for value, is_right in ((crc32(b"abcde"), True), (crc32(b"abcd"), False)):
        raw = chunks + f"x-amz-checksum-crc32:{value}\r\n\r\n".encode()
        sent = {"x_amz_content_sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER"}
        if is_right:
            assert put(raw, **sent) == b"abcde"
        else:
            with pytest.raises(ValueError, match="CRC32"):
                put(raw, **sent)
    for name, digest in (("content_md5", hashlib.md5), ("x_amz_checksum_sha256", hashlib.sha256)):
        right = base64.b64encode(digest(b"abc").digest()).decode()
        assert put(b"abc", **{name: right}) == b"abc"
        with pytest.raises(ValueError, match="did not match"):
            put(b"abd", **{name: right})
