"""Connections of one process: kept, through the proxy, by certificates; what their errors and logs do not tell."""

from __future__ import annotations

import logging
import multiprocessing
import os
import socket
import ssl
import subprocess
import time

import pytest

from colabkit.core.errors import DataError
from colabkit.io.places.http.ranges import Link, Unreachable
from tests.io.places.http.serving import DATA, client, in_turn, link_to, message_of, serving


@pytest.mark.parametrize("silence", ["before the head", "in the body", "refused", "no such host"])
def test_silence_and_refusal_end_with_the_deadline(silence, monkeypatch):
    def react(request):
        if silence == "in the body" and request.start == 0:
            request.answer(206, DATA[:10], Content_Length=100, Content_Range="bytes 0-99/300000")
        time.sleep(20)

    with serving(react) as server:
        link = link_to(server)
        if silence == "refused":
            server.close()
        elif silence == "no such host":

            def unknown(*name, **how):
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

            monkeypatch.setattr(socket, "getaddrinfo", unknown)
            link = Link(lambda: ("http://no-such-host.invalid/x?X-Sig=SECRET", {}))
        began = time.monotonic()
        with pytest.raises(Unreachable) as caught:
            client(deadline_seconds=0.7, read_timeout_seconds=0.3).read(link, 0, 100, "x")
        assert 0.6 < time.monotonic() - began < 2
        assert "SECRET" not in message_of(caught.value)


def _read_elsewhere(reader, url, queue):
    queue.put(reader.read(Link(lambda: (url, {})), 0, 1000, "x"))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_have_connections_of_their_own(method):
    with serving(lambda r: r.serve()) as server:
        reader = client()
        assert reader.read(link_to(server), 0, 10, "x") == DATA[:10]
        context = multiprocessing.get_context(method)
        queue = context.Queue()
        worker = context.Process(target=_read_elsewhere, args=(reader, server.url, queue))
        worker.start()
        assert queue.get(timeout=30) == DATA[:1000]
        worker.join(30)
        assert reader.read(link_to(server), 5, 10, "x") == DATA[5:10]
        assert len(server.open) == 2
        reader.close()
        assert reader.read(link_to(server), 5, 10, "x") == DATA[5:10]


def test_secrets_stay_out_of_debug_logs(caplog):
    with (
        serving(
            in_turn(
                lambda r: r.reset(),
                lambda r: r.answer(503),
                lambda r: r.answer(302, Location="/y?X-Sig=SECRET"),
                lambda r: r.serve(),
            )
        ) as server,
        caplog.at_level(logging.DEBUG),
    ):
        link = link_to(server, headers={"Authorization": "SECRET"})
        client().read(link, 0, 10, "x")
        assert "GET" in caplog.text and "SECRET" not in caplog.text and "SECRET" not in repr(link)


def test_certificate_that_is_not_trusted_fails_at_once(tmp_path, monkeypatch):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
            key,
            "-out",
            certificate,
        ],
        capture_output=True,
    )
    if made.returncode:
        pytest.skip("openssl makes no certificate here")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with serving(lambda r: r.serve(), context) as server:
        link = Link(lambda: (server.url.replace("http:", "https:") + "/x?X-Sig=SECRET", {}))
        began = time.monotonic()
        with pytest.raises(DataError, match="certificate") as caught:
            client().read(link, 0, 10, "x")
        assert time.monotonic() - began < 3 and "SECRET" not in message_of(caught.value)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", os.fspath(certificate))
        assert client().read(link, 0, 300_000, "x") == DATA


def test_proxy_of_the_environment_is_used(monkeypatch):
    with serving(lambda r: r.serve()) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert client().read(Link(lambda: ("http://far.invalid/x", {})), 0, 10, "x") == DATA[:10]
        assert proxy.requests[0].path == "http://far.invalid/x"
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with serving(lambda r: r.serve()) as server:
            assert client().read(link_to(server), 0, 10, "x") == DATA[:10]
            assert len(server.requests) == 1
