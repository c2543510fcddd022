"""Our own client of S3: what a refusal says of the wait, parts that are lost, and uploads that are given up."""

from __future__ import annotations

import pytest

from colabkit.core.errors import ColabkitError
from colabkit.io.places.http.client import Fault
from colabkit.io.places.http.signed_client import SignedClient
from colabkit.loopback.messages import Answer
from tests.io.places.conftest import Faults

PART_BYTES = 5 << 20


def test_a_refusal_says_how_long_to_wait(signed_client, server):
    server.before = Faults(Answer(503, {"Retry-After": "7"}, b"<Error><Code>SlowDown</Code></Error>"))
    with pytest.raises(Fault) as caught:
        signed_client.head("x")
    assert (caught.value.status, caught.value.wait_seconds) == (503, 7.0)


def test_pages_of_nothing_but_markers_are_read_over(signed_client, server):
    for number in range(1001):
        server.put("bucket", f"folders/{number:04d}/", b"")
    server.put("bucket", "folders/last", b"x")
    assert [found.name for found in signed_client.page("folders", "")] == ["folders/last"] and server.counts[
        "list"
    ] == 2
    assert signed_client.page("", "folders/last") == []


def test_a_part_that_is_lost_is_sent_again_alone(signed_client, server):
    lost = []

    def before(request):
        if "partNumber=2" in request.target and len(lost) < 2:
            return lost.append(request.target) or Answer(500)
        return None

    server.before = before
    content = bytes(2 * PART_BYTES + 1)
    assert signed_client.put_parts("x", content, PART_BYTES) == signed_client.head("x").version
    assert len(lost) == 2 and server.counts["part"] == 3 and server.buckets["bucket"].find("x").size == len(content)


@pytest.mark.parametrize("status", [403, 500])
def test_an_upload_that_fails_is_given_up(signed_client, server, status):
    server.before = lambda request: Answer(status) if "partNumber=2" in request.target else None
    with pytest.raises(Fault) as caught:
        signed_client.put_parts("x", bytes(2 * PART_BYTES), PART_BYTES)
    assert caught.value.status == status and server.buckets["bucket"].find("x") is None
    assert not server.buckets["bucket"]._uploads  # what was sent of it takes no room


def test_a_failure_that_is_told_with_status_200_is_one(signed_client, server):
    said = b"<Error><Code>InternalError</Code></Error>"
    server.before = lambda request: (
        Answer(200, {}, said) if request.method == "POST" and "uploadId" in request.target else None
    )
    with pytest.raises(Fault) as caught:
        signed_client.put_parts("x", bytes(10), PART_BYTES)
    assert (caught.value.status, caught.value.code) == (500, "InternalError")


def test_an_answer_that_is_no_xml_passes(signed_client, server):
    server.before = Faults(Answer(200, {}, b"<html><p>proxy"))
    with pytest.raises(Fault, match="no XML") as caught:
        signed_client.page("", "")
    assert caught.value.status == 502  # of those that are tried again


def test_a_file_that_goes_away_is_told_by_its_name(signed_client, tmp_path, monkeypatch):
    (tmp_path / "large").write_bytes(bytes(2 * PART_BYTES))
    send = signed_client._send

    def removing(*arguments, **more):
        (tmp_path / "large").unlink(missing_ok=True)
        return send(*arguments, **more)

    monkeypatch.setattr(signed_client, "_send", removing)
    path = tmp_path / "large"
    with pytest.raises((ColabkitError, OSError), match="large"):
        signed_client.put_parts("x", path, PART_BYTES)


def test_nobody_signs_nothing(server, certificates):
    seen = []
    server.before = lambda request: seen.append(request.fields) or Answer(200, {"Content-Length": "0"})
    SignedClient(f"{server.url}/bucket", None, ca_bundle=str(certificates.authority)).head("x")
    assert "authorization" not in seen[0]
