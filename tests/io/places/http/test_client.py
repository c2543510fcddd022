"""What the protocol of clients says, of both of them: a call asks once, and each fault has its kind."""

from __future__ import annotations

import pytest

from colabkit.io.places.http.client import Fault
from colabkit.loopback.messages import Answer
from colabkit.loopback.s3 import refuse


def fault_of(ask) -> Fault:
    with pytest.raises(Fault) as caught:
        ask()
    assert caught.value.__cause__ is None  # a library's own message may hold addresses and keys
    return caught.value


def test_objects_by_whole_keys(any_client):
    version = any_client.put("a b/ü", b"0123456789")
    assert any_client.head("a b/ü") == any_client.page("", "")[0]
    assert any_client.head("a b/ü").size == 10 and any_client.head("a b/ü").version == version
    assert any_client.get("a b/ü", 0, None, "") == (b"0123456789", version)
    assert any_client.get("a b/ü", 2, 5, version) == (b"234", version)
    assert any_client.get("a b/ü", 8, 20, "").content == b"89"  # fewer where it ends before
    assert any_client.get("a b/ü", 10, None, "").content == any_client.get("a b/ü", 99, 100, "").content == b""
    any_client.delete("a b/ü")
    assert any_client.page("", "") == [] and not any_client.without_ranges


def test_pages_are_in_order_and_go_on_behind_a_key(any_client, server):
    for number in range(1500):
        server.put("bucket", f"p/{number:04d}", b"x")
    server.put("bucket", "q/other", b"x")
    first = any_client.page("p", "")
    assert [found.name for found in first] == [f"p/{number:04d}" for number in range(1000)]
    assert [found.name for found in any_client.page("p", "p/0999")] == [
        f"p/{number:04d}" for number in range(1000, 1500)
    ]
    assert [found.name for found in any_client.page("p", "p/1497")] == [
        "p/1498",
        "p/1499",
    ]  # from any key, not only there
    assert any_client.page("p", "p/1499") == []


def test_conditions(any_client):
    version = any_client.put("x", b"one", only_if_absent=True)
    assert fault_of(lambda: any_client.put("x", b"two", only_if_absent=True)).kind == "condition"
    second = any_client.put("x", b"two", only_if_version=version)
    assert fault_of(lambda: any_client.put("x", b"three", only_if_version=version)).kind == "condition"
    assert fault_of(lambda: any_client.get("x", 0, None, version)).kind == "condition"
    assert any_client.get("x", 0, None, second).content == b"two"


def test_what_is_absent(any_client):
    for ask in (lambda: any_client.head("nothing"), lambda: any_client.get("nothing", 0, 5, "")):
        fault = fault_of(ask)
        assert (fault.kind, fault.status) == ("absent", 404)


@pytest.mark.parametrize(
    ("answer", "kind", "status", "code"),
    [
        (refuse("NoSuchBucket", "There is none"), "", 404, "NoSuchBucket"),  # not the kind of an object that is absent
        (refuse("SlowDown", "Too many"), "", 503, "SlowDown"),
        (refuse("AccessDenied", "No"), "", 403, "AccessDenied"),
        (refuse("ExpiredToken", "Too late"), "", 400, "ExpiredToken"),
        (Answer(500), "", 500, ""),
    ],
)
def test_the_status_tells_and_nothing_is_tried_again(any_client, server, answer, kind, status, code):
    asked = []
    server.before = lambda request: asked.append(request) or answer
    fault = fault_of(lambda: any_client.get("x", 0, 5, ""))
    assert (fault.kind, fault.status, fault.code) == (kind, status, code) and len(asked) == 1
    assert f"status {status}" in str(fault)


def test_a_server_that_is_gone(any_client, server):
    server.resets = 1
    fault = fault_of(lambda: any_client.get("x", 0, 5, ""))
    assert (fault.kind, fault.status) == ("", 0) and fault.cause and "https" not in fault.cause


def test_a_store_that_sends_whole_objects_is_cut_here_and_remembered(any_client, server):
    server.put("bucket", "x", b"0123456789")
    server.before = lambda request: Answer(
        200, {"ETag": '"1"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}, b"0123456789"
    )
    assert any_client.get("x", 2, 5, "").content == b"234" and any_client.without_ranges


def test_large_objects_from_memory_and_from_a_file(any_client, server, tmp_path):
    content = bytes(range(256)) * (50 << 10)  # 12.5 MiB
    (tmp_path / "large").write_bytes(content)
    versions = [any_client.put_parts("a", content, 5 << 20), any_client.put_parts("b", tmp_path / "large", 5 << 20)]
    assert versions[0] == versions[1] == any_client.head("a").version and versions[0].endswith("-3")
    assert server.counts["part"] == 6
    assert bytes(server.buckets["bucket"].find("b").content) == content
