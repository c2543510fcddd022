"""A proxy that breaks connections, cuts and spoils bodies, refuses and dawdles, at chosen rates."""

from __future__ import annotations

import io
import math
import re
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from dataclasses import dataclass
from hashlib import blake2b
from urllib.parse import unquote, urlsplit

from colabkit.loopback.messages import BLOCK_BYTES, Answer, Client, Fields, Request, read_chunks, read_head, write_head
from colabkit.loopback.serving import HttpServer

_PACE_SECONDS = 0.02  # how often a slow body gets its next bytes
_OF_ONE_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "expect", "content-length"}


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one answer: the kind, and numbers in 0..1 that say which variant and where in the body."""

    kind: str
    variant: float = 0.0
    place: float = 0.0


class FaultProxy(HttpServer):
    """Stand before a server as if it were that server, and spoil a share of its answers.

    The rates add up to at most 1 and may be changed while it runs, as may `enabled`:
    resets: the connection is reset, in half of the cases before the answer, else within the body.
    truncations: the connection is closed in good order, but before the end of the body.
    refusals: half are 429 with Retry-After, half are 503; the server is not asked.
    slow: the body comes at `slow_bytes_per_second`. corrupt: one byte of the body is another one.
    tls: what it proves itself with; the server behind it is asked in the clear.
    only: faults touch only requests whose path (decoded, without the query) this expression is found in.

    What happens to a request depends on the seed, its method, path and range, and how often it was seen before:
    not on the order in which threads ask. `counts` says what was done; an answer without a body cannot be cut.
    """

    def __init__(
        self,
        target_url: str,
        *,
        seed: int = 0,
        resets: float = 0.0,
        truncations: float = 0.0,
        refusals: float = 0.0,
        retry_after_seconds: float = 0,
        slow: float = 0.0,
        slow_bytes_per_second: float = 100_000,
        corrupt: float = 0.0,
        only: str = "",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(tls=tls)
        parts = urlsplit(target_url)
        if parts.path.strip("/") or not parts.port:
            raise ValueError(f"got {target_url}, expected http://host:port")
        self.target = (parts.hostname, parts.port)
        self.seed, self.resets, self.truncations, self.refusals, self.slow = seed, resets, truncations, refusals, slow
        self.corrupt, self.retry_after_seconds, self.slow_bytes_per_second = (
            corrupt,
            retry_after_seconds,
            slow_bytes_per_second,
        )
        self.only, self.enabled = re.compile(only), True
        self.counts = dict.fromkeys(("requests", "resets", "truncations", "429", "503", "slow", "corrupt"), 0)
        self._seen: Counter[int] = Counter()
        self._counting = threading.Lock()
        self._upstreams: dict[Client, Upstream] = {}
        here = rf"\g<1>{self.port}"
        self._ours = lambda value: re.sub(rf"(https?://(?:127\.0\.0\.1|localhost):){parts.port}(?!\d)", here, value)

    def exchange(self, request: Request, client: Client) -> None:
        """Pass one request on and its answer back."""
        fault = self._draw(request)
        if fault.kind == "resets" and fault.variant < 0.5:
            self._reset(request, client)
        elif fault.kind == "refusals":
            self._refuse(request, client, fault)
        else:
            self._pass(request, client, fault)

    def hung_up(self, client: Client) -> None:
        if client in self._upstreams:
            self._upstreams.pop(client).close()

    def _draw(self, request: Request) -> Fault:
        key = f"{self.seed} {request.method} {request.path} {request.fields.get('range')}"
        with self._counting:
            self.counts["requests"] += 1
            if not self.enabled or not self.only.search(unquote(request.path)):
                return Fault("")
            self._seen[hash(key)] += 1
            key = f"{key} {self._seen[hash(key)]}"
        chance, variant, place = (
            n / 2**64 for n in struct.unpack("3Q", blake2b(key.encode(), digest_size=24).digest())
        )
        for kind in ("resets", "truncations", "refusals", "slow", "corrupt"):
            chance -= getattr(self, kind)
            if chance < 0:
                return Fault(kind, variant, place)
        return Fault("")

    def _count(self, kind: str) -> None:
        with self._counting:
            self.counts[kind] += 1

    def _reset(self, request: Request, client: Client) -> None:
        self._count("resets")
        self.note(request, 0)
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close() sends RST
        client.stays = False

    def _refuse(self, request: Request, client: Client, fault: Fault) -> None:
        status = 429 if fault.variant < 0.5 else 503
        self._count(str(status))
        self.note(request, status)
        fields = {"Retry-After": str(math.ceil(self.retry_after_seconds))} if status == 429 else {}
        client.send(Answer(status, fields, b"refused"), with_body=request.method != "HEAD")

    def _pass(self, request: Request, client: Client, fault: Fault) -> None:
        upstream = self._upstreams.get(client)
        if upstream is None:
            upstream = self._upstreams[client] = Upstream(self.target)
        try:
            status, fields, length = upstream.ask(request)
        except OSError as error:
            upstream.close()
            self.note(request, 502)
            client.send(
                Answer(502, {}, f"the server behind the proxy: {error!r}".encode()), with_body=request.method != "HEAD"
            )
            return
        if fault.kind == "resets" and not length:
            upstream.end_answer(read_whole=True)
            self._reset(request, client)
            return
        fields = {name: self._ours(value) if name in ("location", "link") else value for name, value in fields.items()}
        if fault.kind not in ("", "resets") and length:
            self._count(fault.kind)
        if fault.kind != "resets":
            self.note(request, status)
        self._pass_body(client, upstream, write_head(status, fields, stays=client.stays), length, fault)
        if fault.kind == "resets":
            self._reset(request, client)

    def _pass_body(self, client: Client, upstream: Upstream, head: bytes, length: int, fault: Fault) -> None:
        """Send head and body, the body only to the place of a fault, slowly, or with a wrong byte there."""
        place = int(fault.place * length)
        stop = place if fault.kind in ("resets", "truncations") else length
        slow = self.slow_bytes_per_second if fault.kind == "slow" else 0.0
        view = memoryview(upstream.block)
        view = view[: max(1, int(slow * _PACE_SECONDS))] if slow else view
        sent = 0
        while head or sent < stop:
            count = upstream.body.readinto1(view[: stop - sent]) if sent < stop else 0
            if fault.kind == "corrupt" and sent <= place < sent + count:
                view[place - sent] ^= 1 + int(fault.variant * 255)
            client.write(head, view[:count])
            head, sent = b"", sent + count
            if not count:
                break
            if slow:
                time.sleep(count / slow)
        upstream.end_answer(read_whole=sent == length)
        client.stays &= sent == length


class Upstream:
    """A connection to the server behind, kept as long as the client's; `body` is yet to be read of its last answer."""

    def __init__(self, address: tuple[str, int]):
        self.address, self.block, self.body = address, bytearray(BLOCK_BYTES), io.BytesIO()
        self._connection: Client | None = None

    def ask(self, request: Request) -> tuple[int, Fields, int]:
        """Send a request; return status, fields for the client, and the length of `body`."""
        fields = {name: value for name, value in request.fields.items() if name not in _OF_ONE_CONNECTION}
        if request.body or request.method in ("POST", "PUT", "PATCH"):
            fields["content-length"] = str(len(request.body))
        lines = [f"{request.method} {request.target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        message = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        kept = self._connection is not None
        try:
            return self._ask(request, message)
        except ConnectionError:
            self.close()
            if not kept:
                raise
        return self._ask(request, message)  # the server had closed a kept connection

    def _ask(self, request: Request, message: bytes) -> tuple[int, Fields, int]:
        if self._connection is None:
            self._connection = Client(socket.create_connection(self.address))
        stream = self._connection.stream
        self._connection.write(message, request.body)
        head = read_head(stream)
        while head is not None and head[0].split(" ")[1].startswith("1"):
            head = read_head(stream)
        if head is None:
            raise ConnectionResetError("closed without an answer")
        status, fields = int(head[0].split(" ")[1]), head[1]
        kept = {name: value for name, value in fields.items() if name not in _OF_ONE_CONNECTION}
        self._connection.stays = fields.get("connection", "").lower() != "close" and head[0].startswith("HTTP/1.1")
        if request.method == "HEAD" or status in (204, 304):
            self.body = io.BytesIO()
            return status, kept | {name: fields[name] for name in ("content-length",) if name in fields}, 0
        if "content-length" in fields:
            self.body, length = stream, int(fields["content-length"])
        else:  # not announced: read it whole
            data = read_chunks(stream) if "transfer-encoding" in fields else stream.read()
            self.body, length = io.BytesIO(data), len(data)
        return status, kept | {"content-length": str(length)}, length

    def end_answer(self, *, read_whole: bool) -> None:
        """Keep the connection only if it can carry another answer."""
        if not read_whole or self._connection is not None and not self._connection.stays:
            self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
