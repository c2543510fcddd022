"""A server on loopback that fails in every way on request, and a client in a hurry to ask it."""

from __future__ import annotations

import random
import re
import socket
import struct
import threading
from contextlib import contextmanager

from colabkit.io.places.http.ranges import Link, RangeClient

DATA = random.Random(0).randbytes(300_000)


class Request:
    """One request as it came in, and the means to answer it in any way."""

    def __init__(self, method, path, headers, connection):
        self.method, self.path, self.headers, self.connection = method, path, headers, connection
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("range", ""))
        self.start = int(found[1]) if found else 0
        self.stop = int(found[2]) + 1 if found and found[2] else None

    def answer(self, status=200, body=b"", **headers):
        lines = [f"HTTP/1.1 {status} X"] + [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        if "Content_Length" not in headers:
            lines.append(f"Content-Length: {len(body)}")
        self.connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)

    def serve(self, data=DATA, etag='"v1"', cut=None, **headers):
        """Answer with the range; `cut` closes the connection after so many bytes of the body."""
        stop = min(len(data) if self.stop is None else self.stop, len(data))
        body = data[self.start : stop]
        self.answer(
            206,
            body if cut is None else body[:cut],
            Content_Length=len(body),
            ETag=etag,
            Content_Range=f"bytes {self.start}-{stop - 1}/{len(data)}",
            **headers,
        )
        if cut is not None:
            self.close()

    def close(self):
        raise ConnectionAbortedError  # ends the talk

    def reset(self):
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise ConnectionAbortedError


@contextmanager
def serving(react, tls=None):
    """Serve `react(request)` on loopback; yields the server with its `url` and the requests so far."""
    server = Server(react, tls)
    try:
        yield server
    finally:
        server.close()


class Server:
    def __init__(self, react, tls):
        self.react, self.tls, self.requests, self.open = react, tls, [], []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.open.append(connection)
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection):
        try:
            if self.tls:
                connection = self.tls.wrap_socket(connection, server_side=True)
        except OSError:
            return  # the client does not trust us
        stream = connection.makefile("rb")
        try:
            while line := stream.readline():
                method, path, _ = line.decode().split(" ", 2)
                headers = {}
                while line := stream.readline().decode().strip():
                    name, _, value = line.partition(": ")
                    headers[name.lower()] = value
                request = Request(method, path, headers, connection)
                self.requests.append(request)
                self.react(request)
        except (OSError, ValueError):
            pass  # hung up, by one side or the other
        finally:
            stream.close()
            connection.close()

    def close(self):
        for one in (self.listener, *self.open):
            try:
                one.shutdown(socket.SHUT_RDWR)  # ends what waits on it, as closing alone does not
            except OSError:
                pass  # it has gone by itself
            one.close()


def client(**settings):
    return RangeClient(
        **{"deadline_seconds": 5.0, "read_timeout_seconds": 2.0, "base_seconds": 0.001, "cap_seconds": 0.02, **settings}
    )


def link_to(server, path="/x?X-Sig=SECRET", headers=None, **more):
    return Link(lambda: (server.url + path, dict(headers or {})), **more)


def in_turn(*reactions):
    """Return a reaction that does the first, the second, ..., then the last for ever."""
    waiting = list(reactions)

    def react(request):
        (waiting.pop(0) if len(waiting) > 1 else waiting[0])(request)

    return react


def message_of(error):
    """Return all that a user could see of an error, its causes too."""
    text, one = "", error
    while one is not None:
        text += f"{one!s} {one!r} {vars(one) if hasattr(one, '__dict__') else ''}"
        one = one.__cause__
    return text
