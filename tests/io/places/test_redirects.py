"""Reads that are sent elsewhere, as the Hub's gateway sends them: followed, and the signature is not taken along."""

from __future__ import annotations

from colabkit.loopback.messages import Answer
from colabkit.loopback.s3 import S3Server


def test_a_read_that_is_sent_elsewhere(objects, server, certificates):
    with S3Server(tls=certificates.server_context()) as elsewhere:
        elsewhere.put("cdn", "content", b"0123456789")
        seen = []
        elsewhere.before = lambda request: seen.append(request.fields.get("authorization"))
        server.before = lambda request: Answer(302, {"Location": f"{elsewhere.url}/cdn/content"})
        assert objects.get("x") == b"0123456789" and objects.get("x", 2, 5) == b"234" and seen == [None, None]
