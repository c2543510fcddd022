"""The server's side of TLS: many records in a read, long writes, what ends or breaks off."""

from __future__ import annotations

import random
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from colabkit.loopback.tls import TlsSocket

DATA = random.Random(0).randbytes(1_000_000)


@contextmanager
def talk(certificates, serve):
    """Yield a client's TLS socket, while `serve(TlsSocket)` runs on the other side; what it returns is checked."""
    ours, theirs = socket.socketpair()
    context = ssl.create_default_context(cafile=str(certificates.authority))
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # no tickets come unasked, which nobody here reads
    with ThreadPoolExecutor(1) as pool:
        served = pool.submit(lambda: serve(TlsSocket(ours, certificates.server_context())))
        with theirs, context.wrap_socket(theirs, server_hostname="localhost") as tls:
            yield tls
        assert served.result(10)


def test_long_writes_arrive_whole(certificates):
    def serve(side):
        side.sendall(DATA)
        side.sendall(memoryview(b"end"))
        side.close()
        return True

    with talk(certificates, serve) as tls:
        received = bytearray()
        while len(received) < len(DATA) + 3:
            received += tls.recv(1 << 16)
        assert received == DATA + b"end"


def test_reads_are_those_of_a_file(certificates):
    sent = threading.Event()

    def serve(side):
        stream = side.makefile("rb", 1 << 16)
        line = stream.readline()
        body = stream.read(len(DATA))
        sent.set()
        return line == b"PUT\r\n" and body == DATA and stream.read() == b"rest" and stream.read(1) == b""

    with talk(certificates, serve) as tls:
        tls.sendall(b"PUT\r\n" + DATA)
        assert sent.wait(10)
        tls.sendall(b"rest")
        tls.shutdown(socket.SHUT_WR)


def test_a_buffer_is_filled_as_far_as_something_has_come(certificates):
    ready = threading.Event()

    def serve(side):
        buffer = bytearray(100)
        first = side.readinto(buffer)
        ready.set()
        return side.readable() and first == 3 and bytes(buffer[:3]) == b"abc" and side.readinto(buffer) == 0

    with talk(certificates, serve) as tls:
        tls.sendall(b"abc")
        assert ready.wait(10)


def test_a_client_that_leaves_within_the_handshake(certificates):
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, pytest.raises(OSError):
        TlsSocket(ours, certificates.server_context())


def test_a_client_that_cannot_agree_is_told_why(certificates):
    context = certificates.server_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    old = ssl.create_default_context(cafile=str(certificates.authority))
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    ours, theirs = socket.socketpair()
    with ours, theirs, ThreadPoolExecutor(1) as pool:
        served = pool.submit(TlsSocket, ours, context)
        with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
            old.wrap_socket(theirs, server_hostname="localhost")
        assert isinstance(served.exception(10), ssl.SSLError)
