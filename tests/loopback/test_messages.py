"""Messages of HTTP/1.1: heads, bodies in chunks, ranges and conditions."""

from __future__ import annotations

import hashlib
import io
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from colabkit.loopback.messages import Answer, Client, FilePart, Request, read_body, read_head, write_head
from tests.loopback.conftest import LARGE, link


@pytest.mark.parametrize("kept", ["memory", "disk"])
def test_ranges(hub, http, tmp_path, kept):
    (tmp_path / "a.bin").write_bytes(LARGE)
    hub.add_dataset("o/s", {"a.bin": LARGE if kept == "memory" else tmp_path / "a.bin", "empty": b""})
    address, size = link(http, hub, "o/s/resolve/main/a.bin"), len(LARGE)
    ask = lambda span, method="GET", **more: http.request(method, address, headers={"Range": span, **more})  # noqa: E731
    for span, part in (
        ("0-0", LARGE[:1]),
        ("-7", LARGE[-7:]),
        (f"{size - 3}-", LARGE[-3:]),
        ("9-99999999", LARGE[9:]),
        ("1-2500000", LARGE[1:2500001]),
        (f"-{size + 9}", LARGE),
    ):
        answer = ask(f"bytes={span}")
        start = LARGE.index(part) if len(part) < size else 0
        assert (answer.status, answer.data == part) == (206, True)
        assert answer.headers["Content-Range"] == f"bytes {start}-{start + len(part) - 1}/{size}"
    for span in (f"{size}-", f"{size}-{size + 1}", "-0"):
        assert (ask(f"bytes={span}").status, ask(f"bytes={span}").headers["Content-Range"]) == (416, f"bytes */{size}")
    for span in ("bytes=9-3", "bytes=0-1,5-6", "lines=1-2", "bytes=-"):
        assert (ask(span).status, ask(span).data == LARGE) == (200, True)
    head = ask("bytes=0-9", method="HEAD")
    assert (head.status, head.headers["Content-Length"], head.data) == (206, "10", b"")
    etag = head.headers["ETag"]
    assert etag == f'"{hashlib.sha256(LARGE).hexdigest()}"' and head.headers["Accept-Ranges"] == "bytes"
    assert (
        ask("bytes=0-9", **{"If-Match": etag}).status == 206 and ask("bytes=0-9", **{"If-Match": '"x"'}).status == 412
    )
    assert (
        ask("bytes=0-9", **{"If-Range": '"x"'}).status == 200
        and ask("bytes=0-9", **{"If-None-Match": etag}).status == 304
    )
    empty = http.request("GET", f"{hub.url}/datasets/o/s/resolve/main/empty", headers={"Range": "bytes=0-"})
    assert empty.status == 416


def read(raw: bytes):
    return read_head(io.BytesIO(raw))


def connected() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a connection over TCP."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        return listener.accept()[0], theirs


def test_heads_are_read_and_written():
    raw = b"\r\nGET /a?b=c HTTP/1.1\r\nHost: x:1\r\nX-Two: a\r\nx-two:b\r\n\r\nbody"
    assert read(raw) == ("GET /a?b=c HTTP/1.1", {"host": "x:1", "x-two": "a, b"})
    assert read(b"") is None
    with pytest.raises(ConnectionError):
        read(b"GET / HTTP/1.1\r\nHost: x\r\n")
    written = write_head(206, {"ETag": '"1"'}, stays=False)
    assert read(written) == ("HTTP/1.1 206 Partial Content", {"etag": '"1"', "connection": "close"})
    assert "connection" not in read(write_head(200, {}, stays=True))[1]


def test_bodies_by_length_and_in_chunks():
    assert read_body(io.BytesIO(b"abcdef"), {"content-length": "4"}) == b"abcd" and read_body(io.BytesIO(), {}) == b""
    with pytest.raises(ConnectionError):
        read_body(io.BytesIO(b"abc"), {"content-length": "4"})
    stream = io.BytesIO(b"3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\nnext")
    assert read_body(stream, {"transfer-encoding": "Chunked"}) == b"abc0123456789" and stream.read() == b"next"


def test_requests_tell_path_and_query():
    request = Request("GET", "/a%20b?x=1&x=2&empty=&y=%C3%BC", {})
    assert request.path == "/a%20b" and request.query == {"x": ["1", "2"], "empty": [""], "y": ["ü"]}


@pytest.mark.parametrize("size", [5, 3_000_000])
def test_parts_of_files_are_sent_without_holding_them(tmp_path, size):
    (tmp_path / "a").write_bytes(LARGE)
    ours, theirs = connected()
    with theirs, ThreadPoolExecutor(1) as pool:
        client = Client(ours)
        part = FilePart(tmp_path / "a", 0, size)
        pool.submit(client.send, Answer(200, {}, part)).add_done_callback(lambda _: client.close())
        raw = theirs.makefile("rb").read()
    head, _, body = raw.partition(b"\r\n\r\n")
    assert body == LARGE[:size] and f"Content-Length: {size}".encode() in head and len(part) == size


def test_a_file_that_became_shorter_ends_the_connection(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    ours, theirs = connected()
    with theirs:
        client = Client(ours)
        client.send(Answer(200, {}, FilePart(tmp_path / "a", 0, 10)))
        assert not client.stays
        client.close()
        assert theirs.makefile("rb").read().endswith(b"\r\n\r\nabc")
