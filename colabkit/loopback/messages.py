"""Heads, bodies and ranges of HTTP/1.1, read and written with as little work as they need.

The standard library's server reads heads with the email package and writes head and body apart, and so answers a third
as many small ranged reads in a second.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO
from urllib.parse import parse_qs

BLOCK_BYTES = 1 << 18
_IN_ONE_WRITE_BYTES = 1 << 20  # files up to this size are read and sent together with the head
_LONGEST_LINE_BYTES = 1 << 16
_SPAN = re.compile(r"bytes=(\d*)-(\d*)")
_PHRASES = {status.value: status.phrase for status in HTTPStatus}

Fields = dict[str, str]


@dataclass(slots=True)
class Request:
    """What a client asks; `fields` are the headers by name in small letters, `target` is as sent."""

    method: str
    target: str
    fields: Fields
    body: bytes = b""

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(self.target.partition("?")[2], keep_blank_values=True)


@dataclass(frozen=True, slots=True)
class FilePart:
    """Bytes start..stop of a file, to be sent without holding them."""

    path: Path
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(slots=True)
class Answer:
    """What a server says; `length` is announced instead of the body's own where HEAD has no body to measure."""

    status: int
    fields: Fields = field(default_factory=dict)
    body: bytes | memoryview | FilePart = b""
    length: int | None = None


class Client:
    """One connection of a client; `stays` says whether it is kept after the next answer."""

    def __init__(self, sock: socket.socket):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock, self.stream, self.stays = sock, sock.makefile("rb", _LONGEST_LINE_BYTES), True

    def read_request(self) -> Request | None:
        """Return the next request with its body, or None when the client has gone."""
        head = read_head(self.stream)
        if head is None:
            return None
        method, target, version = head[0].split(" ", 2)
        fields = head[1]
        self.stays = version == "HTTP/1.1" and fields.get("connection", "").lower() != "close"
        if fields.get("expect", "").lower() == "100-continue":
            self.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        return Request(method, target, fields, read_body(self.stream, fields))

    def send(self, answer: Answer, *, with_body: bool = True) -> None:
        """Send an answer; `with_body` is false for HEAD."""
        fields = answer.fields
        if answer.status not in (204, 304):
            length = len(answer.body) if answer.length is None else answer.length
            fields = {**fields, "Content-Length": str(length)}
        head, body = write_head(answer.status, fields, stays=self.stays), answer.body if with_body else b""
        if not isinstance(body, FilePart):
            self.write(head, body)
            return
        with open(body.path, "rb") as file:
            if len(body) <= _IN_ONE_WRITE_BYTES:
                data = os.pread(file.fileno(), len(body), body.start)
                self.write(head, data)
                self.stays &= len(data) == len(body)  # the file became shorter: the client must not wait for the rest
                return
            self.sock.sendall(head)
            place = body.start
            while place < body.stop:
                sent = os.sendfile(self.sock.fileno(), file.fileno(), place, body.stop - place)
                if not sent:
                    self.stays = False
                    return
                place += sent

    def write(self, head: bytes, body: bytes | memoryview) -> None:
        """Send two pieces in one write, without joining them."""
        sent = self.sock.sendmsg((head, body))
        if sent < len(head):
            self.sock.sendall(head[sent:])
            sent = len(head)
        if sent < len(head) + len(body):
            self.sock.sendall(memoryview(body)[sent - len(head) :])

    def close(self) -> None:
        self.stream.close()
        self.sock.close()


class TlsClient(Client):
    """A client behind TLS, which takes neither two pieces in one write nor files."""

    def send(self, answer: Answer, *, with_body: bool = True) -> None:
        if with_body and isinstance(answer.body, FilePart):
            with open(answer.body.path, "rb") as file:
                answer.body = os.pread(file.fileno(), len(answer.body), answer.body.start)
        super().send(answer, with_body=with_body)

    def write(self, head: bytes, body: bytes | memoryview) -> None:
        if len(body) <= BLOCK_BYTES:
            self.sock.sendall(head + bytes(body))
            return
        self.sock.sendall(head)
        self.sock.sendall(body)


def read_head(stream: BinaryIO) -> tuple[str, Fields] | None:
    """Return the first line and the fields of a message, or None at the end of the stream."""
    line = stream.readline(_LONGEST_LINE_BYTES)
    while line in (b"\r\n", b"\n"):
        line = stream.readline(_LONGEST_LINE_BYTES)
    if not line:
        return None
    first, fields = line.decode("latin-1").rstrip("\r\n"), {}
    while (line := stream.readline(_LONGEST_LINE_BYTES)) not in (b"\r\n", b"\n"):
        if not line:
            raise ConnectionError("cut within the head")
        name, _, value = line.decode("latin-1").partition(":")
        name, value = name.strip().lower(), value.strip()
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    return first, fields


def read_body(stream: BinaryIO, fields: Fields) -> bytes:
    """Return the body that the fields of a request announce."""
    if "chunked" in fields.get("transfer-encoding", "").lower():
        return read_chunks(stream)
    length = int(fields.get("content-length", 0))
    data = stream.read(length) if length else b""
    if len(data) < length:
        raise ConnectionError("cut within the body")
    return data


def read_chunks(stream: BinaryIO) -> bytes:
    """Return a chunked body."""
    data = bytearray()
    while length := int(stream.readline(_LONGEST_LINE_BYTES).partition(b";")[0], 16):
        data += stream.read(length)
        stream.readline()
    while stream.readline() not in (b"\r\n", b"\n", b""):  # trailers
        pass
    return bytes(data)


def write_head(status: int, fields: Fields, *, stays: bool) -> bytes:
    """Return the head of an answer."""
    lines = [f"HTTP/1.1 {status} {_PHRASES.get(status, '')}", *(f"{name}: {value}" for name, value in fields.items())]
    if not stays:
        lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def answer_range(
    request: Request, size: int, take: Callable[[int, int], bytes | memoryview | FilePart], fields: Fields
) -> Answer:
    """Answer with all or the asked range of something `size` bytes long, and obey the conditions about its ETag.

    `take(start, stop)` gives the bytes. Several ranges in one request are answered with everything, as RFC 9110 allows.
    """
    asked, etag = request.fields, fields.get("ETag", "")
    fields = {"Accept-Ranges": "bytes", **fields}
    if "if-match" in asked and asked["if-match"] != "*" and etag not in asked["if-match"]:
        return Answer(412, fields)
    if "if-none-match" in asked and etag and etag in asked["if-none-match"]:
        return Answer(304, fields)
    span = _SPAN.fullmatch(asked.get("range", "").replace(" ", ""))
    if span is None or asked.get("if-range", etag) != etag or not any(span.groups()):
        return Answer(200, fields, take(0, size))
    first, last = span.groups()
    start = int(first) if first else max(size - int(last), 0)
    stop = min(int(last) + 1, size) if first and last else size
    if start >= size or not first and not int(last):
        return Answer(416, {**fields, "Content-Range": f"bytes */{size}"})
    if start >= stop:
        return Answer(200, fields, take(0, size))
    return Answer(206, {**fields, "Content-Range": f"bytes {start}-{stop - 1}/{size}"}, take(start, stop))
