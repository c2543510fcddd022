"""obstore as a client: reads that are sent elsewhere, listings that are left midway, what its errors mean."""

from __future__ import annotations

import pytest

from colabkit.io.places.http.client import Fault
from colabkit.io.places.http.obstore_client import _told
from colabkit.loopback.messages import Answer
from colabkit.loopback.s3 import S3Server


def test_a_read_that_is_sent_elsewhere(objects, server, certificates):
    with S3Server(tls=certificates.server_context()) as elsewhere:
        elsewhere.put("cdn", "content", b"0123456789")
        seen = []
        elsewhere.before = lambda request: seen.append(request.fields.get("authorization"))
        server.before = lambda request: Answer(302, {"Location": f"{elsewhere.url}/cdn/content"})
        assert objects.get("x") == b"0123456789" and objects.get("x", 2, 5) == b"234" and seen == [None, None]


def test_listings_of_who_stopped_midway_go_on_at_their_key(obstore_client, server, monkeypatch):
    monkeypatch.setattr("colabkit.io.places.http.obstore_client._MOST_LISTINGS", 2)
    for number in range(1100):
        server.put("bucket", f"p/{number:04d}", b"x")
    pages = [obstore_client.page("p", "p/" + "0" * place) for place in range(4)]  # four that begin, none that ends
    assert len(obstore_client._listing) <= 2
    for page in pages:
        assert [found.name for found in obstore_client.page("p", page[-1].name)][-1] == "p/1099"


@pytest.mark.parametrize(
    ("error", "kind", "cause"),
    [
        (ValueError("builder error for url (https://u:SECRET@x)"), "settings", "ValueError"),
        (TypeError('path "a//b" contained an empty segment'), "name", "a//b"),
        (OSError("invalid peer certificate: UnknownIssuer"), "certificate", "UnknownIssuer"),
        (OSError("Error sending request: tcp SECRET: Connection refused (kind: Connect)"), "", "Connection refused"),
        (OSError("Error sending request: kind: Timeout SECRET"), "", "connection fault (Timeout)"),
        (FileNotFoundError("Object at location SECRET not found"), "absent", "FileNotFoundError"),
    ],
)
def test_errors_of_obstore_are_told_in_words_of_ours(error, kind, cause):
    with pytest.raises(Fault) as caught, _told():
        raise error
    assert (caught.value.kind, caught.value.cause) == (kind, cause)
