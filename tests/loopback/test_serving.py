"""A server on loopback: many clients at once over kept connections, its end, and what is not HTTP."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import urllib3

from colabkit.loopback.hub import HubServer
from colabkit.loopback.messages import Answer, Request
from colabkit.loopback.serving import HttpServer
from tests.loopback.conftest import LARGE, link


def test_connections_are_kept_and_served_at_once(hub):
    hub.add_dataset("o/s", {"a.bin": LARGE})
    pool = urllib3.HTTPConnectionPool("127.0.0.1", hub.port, maxsize=8, block=True)
    address = link(pool, SimpleNamespace(url="", port=hub.port), "o/s/resolve/main/a.bin").partition(str(hub.port))[2]

    def read(i: int) -> bool:
        start = i * 1000
        return (
            pool.request("GET", address, headers={"Range": f"bytes={start}-{start + 4999}"}).data
            == LARGE[start : start + 5000]
        )

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(read, range(2000)))
    assert pool.num_connections <= 8 and len(hub.requests) == 2001
    assert hub.requests[0] == ("GET", "/datasets/o/s/resolve/main/a.bin", None, 302)


def test_a_server_that_has_gone_answers_no_more(http):
    with HubServer() as hub:
        assert http.request("GET", f"{hub.url}/api/datasets/o/s").status == 401
    with pytest.raises(urllib3.exceptions.HTTPError):
        http.request("GET", f"{hub.url}/api/datasets/o/s")


class Echo(HttpServer):
    """Answers with what it was sent; fails when it is told to."""

    def answer(self, request: Request) -> Answer:
        if request.path == "/fails":
            raise KeyError("a fault of the server's own")
        return Answer(200, {}, request.method.encode() + request.body)


def test_what_goes_wrong_in_it_is_told_with_status_500(http, capsys):
    with Echo() as server:
        answer = http.request("GET", f"{server.url}/fails", retries=False)
        assert answer.status == 500 and b"a fault of the server's own" in answer.data
        assert http.request("POST", server.url, body=b"x").data == b"POSTx"
        assert http.request("HEAD", server.url).headers["Content-Length"] == "4"
        assert server.requests == [("GET", "/fails", None, 500), ("POST", "/", None, 200), ("HEAD", "/", None, 200)]
    assert "KeyError" in capsys.readouterr().err


def test_what_is_not_http_is_refused_and_a_wish_to_go_on_is_answered():
    with Echo() as server:
        for sent, expected in (
            (b"HELLO\r\n\r\n", b"HTTP/1.1 400"),
            (b"PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx", b"PUTx"),
        ):
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                client.sendall(sent)
                told = client.makefile("rb").read()
            assert expected in told and told.startswith(b"HTTP/1.1 100") == (expected == b"PUTx")


def test_clients_that_do_not_trust_it_or_leave_harm_nobody(certificates):
    with Echo(tls=certificates.server_context()) as server:
        with pytest.raises(urllib3.exceptions.HTTPError):
            urllib3.PoolManager(retries=False).request("GET", server.url)
        socket.create_connection(("127.0.0.1", server.port)).close()
        trusting = urllib3.PoolManager(ca_certs=str(certificates.authority))
        body = LARGE[: 1 << 20]
        assert trusting.request("PUT", server.url, body=body).data == b"PUT" + body
    server.close()  # the second time nothing is left to do
