"""Ranged reads against a server on loopback that fails in every way on request."""

from __future__ import annotations

import email.utils
import logging
import multiprocessing
import os
import pickle
import random
import re
import socket
import ssl
import struct
import subprocess
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from colabkit.core.errors import DataError
from colabkit.io.places.http.patience import Patience, ordered_wait_seconds
from colabkit.io.places.http.ranges import Link, RangeClient, Refused, Unreachable

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


def test_reads_exactly_what_was_asked_for():
    with serving(lambda r: r.serve()) as server:
        reader, link = client(), link_to(server)
        for start, stop in (
            (0, 1),
            (0, len(DATA)),
            (299_999, 300_000),
            (5, 5),
            (70_000, 270_001),
            (0, None),
            (299_998, None),
        ):
            content = reader.read(link, start, stop, "x")
            assert type(content) is bytes and content == DATA[start:stop]
        assert len(server.open) == 1  # one connection was enough
        assert reader.counts == {
            "requests": 6,
            "bytes": 1 + 300_000 + 1 + 200_001 + 300_000 + 2,
            "retries": 0,
            "resumed": 0,
            "throttled": 0,
        }
        with pytest.raises(ValueError):
            reader.read(link, 5, 4, "x")


def test_no_block_is_lost_when_the_connection_is_reset_again_and_again():
    def react(request):
        if request.stop - request.start > 7_000:
            request.answer(
                206,
                DATA[request.start : request.start + 7_000],
                ETag='"1"',
                Content_Length=request.stop - request.start,
                Content_Range=f"bytes {request.start}-{request.stop - 1}/{len(DATA)}",
            )
            time.sleep(0.002)  # a reset overtakes what was not yet taken
            request.reset()
        else:
            request.serve(etag='"1"')

    with serving(react) as server:
        reader = client(deadline_seconds=2.0, cap_seconds=20.0, base_seconds=20.0)  # a single sleep would be seen
        began = time.monotonic()
        assert reader.read(link_to(server), 1_000, 290_000, "x") == DATA[1_000:290_000]
        assert time.monotonic() - began < 5
        assert len(server.requests) >= 40 and reader.counts["resumed"] == len(server.requests) - 1
        starts = [r.start for r in server.requests]
        assert starts == sorted(set(starts))  # always a little further


def test_body_that_ends_early_is_taken_up_at_its_last_byte():
    with serving(in_turn(lambda r: r.serve(cut=100_001), lambda r: r.serve(cut=0), lambda r: r.serve())) as server:
        reader = client()
        assert reader.read(link_to(server), 10, 300_000, "x") == DATA[10:]
        assert [r.start for r in server.requests] == [10, 100_011, 100_011]
        assert reader.counts["retries"] == 2


def test_deadline_ends_tries_that_bring_nothing():
    with serving(lambda r: r.answer(503)) as server:
        reader = client(deadline_seconds=0.6, cap_seconds=0.05)
        began = time.monotonic()
        with pytest.raises(Unreachable) as caught:
            reader.read(link_to(server), 0, 10, "s3://bucket/näme")
        assert 0.5 < time.monotonic() - began < 2
        text = message_of(caught.value)
        assert "s3://bucket/näme" in text and "status 503" in text and f"{len(server.requests)} tries" in text
        assert "SECRET" not in text


def test_deadline_starts_anew_with_every_byte():
    def react(request):
        time.sleep(0.3)
        request.serve(cut=60_000)

    with serving(react) as server:
        assert client(deadline_seconds=0.5).read(link_to(server), 0, 300_000, "x") == DATA  # takes 1.5 s in all


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


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 520, 599])
def test_passing_faults_are_tried_again(status):
    with serving(in_turn(*[lambda r: r.answer(status, b"sorry")] * 3, lambda r: r.serve())) as server:
        reader = client()
        assert reader.read(link_to(server), 0, 1000, "x") == DATA[:1000]
        assert reader.counts["retries"] == 3 and reader.counts["throttled"] == 3 * (status in (429, 503))
        assert len(server.open) == 1  # the connection is good still


@pytest.mark.parametrize(
    ("status", "words", "num_requests"),
    [
        (400, "permission", 2),
        (401, "permission", 2),
        (403, "permission", 2),
        (404, "vanished", 1),
        (410, "vanished", 1),
        (412, "changed", 1),
        (416, "shorter than the index says", 1),
        (418, "no use", 1),
        (501, "no use", 1),
        (204, "no use", 1),
        (301, "no use", 1),
    ],
)
def test_final_answers(status, words, num_requests):
    body = b"<Error><Code>SomeCode</Code><AWSAccessKeyId>SECRET</AWSAccessKeyId></Error>" if status != 204 else b""
    with serving(lambda r: r.answer(status, body)) as server:
        with pytest.raises(DataError, match=words) as caught:
            client().read(link_to(server, fix_refused="log in at home"), 0, 10, "place/näme")
        error = caught.value
        assert len(server.requests) == num_requests and "place/näme" in str(error) and error.fix
        assert "SECRET" not in message_of(error)
        if num_requests == 2:
            assert isinstance(error, Refused) and error.fix == "log in at home"
            assert (error.status, error.code) == (status, "SomeCode")
            assert pickle.loads(pickle.dumps(error)).status == status


def test_retry_after_is_waited_out():
    dates = lambda r: r.answer(503, Retry_After=email.utils.formatdate(time.time() + 1.5, usegmt=True))  # noqa: E731
    for refuse in (
        lambda r: r.answer(429, Retry_After="1"),
        dates,
        lambda r: r.answer(429, RateLimit='"resolvers";r=0;t=1'),
    ):
        with serving(in_turn(refuse, lambda r: r.serve())) as server:
            began = time.monotonic()
            reader = client()
            assert reader.read(link_to(server), 0, 10, "x") == DATA[:10]
            assert 0.4 < time.monotonic() - began < 2.2 if refuse is dates else 1 <= time.monotonic() - began < 1.6
            assert reader.counts["throttled"] == 1


def test_order_to_wait_longer_than_the_deadline_fails_at_once():
    with serving(lambda r: r.answer(429, Retry_After="3600")) as server:
        began = time.monotonic()
        with pytest.raises(Unreachable, match="asks to wait 3600 s"):
            client().read(link_to(server), 0, 10, "x")
        assert time.monotonic() - began < 1 and len(server.requests) == 1


def test_ordered_waits_are_understood():
    now = email.utils.formatdate(1e9, usegmt=True)
    later = email.utils.formatdate(1e9 + 90, usegmt=True)
    for headers, seconds in (
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": later, "Date": now}, 90),
        ({"Retry-After": now}, 0),
        ({"RateLimit": '"api";r=0;t=55'}, 55),
        ({"Retry-After": "soon"}, None),
        ({"RateLimit": '"api";r=7;t=55'}, None),
        ({"Retry-After": "-3"}, None),
        ({}, None),
    ):
        assert ordered_wait_seconds(headers) == seconds


def test_jitter_is_full_and_bounded(monkeypatch):
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    for _ in range(400):
        patience = Patience(1e9, base_seconds=0.1, cap_seconds=3.0)
        for _ in range(8):
            patience.wait("status 500", "x")
    for k in range(8):
        pauses, longest = slept[k::8], min(3.0, 0.1 * 2**k)
        assert max(pauses) <= longest and max(pauses) > 0.8 * longest and min(pauses) < 0.2 * longest
        assert 0.4 * longest < sum(pauses) / len(pauses) < 0.6 * longest
    slept.clear()
    patience.progressed()
    patience.wait("cut", "x")
    assert slept == []  # taken up again at once
    patience.wait("cut", "x", ordered_seconds=30.0)
    assert 30 <= slept.pop() <= 33


def test_connection_errors_are_tried_again():
    turns = iter(range(100))
    with serving(lambda r: r.reset() if next(turns) < 3 else r.serve()) as server:
        assert client().read(link_to(server), 0, 300_000, "x") == DATA


@pytest.mark.parametrize("how", ["version", "date", "length"])
def test_object_that_changes_between_two_answers_is_refused(how):
    new = random.Random(1).randbytes(len(DATA) + (how == "length"))

    def other(request):
        if how == "date":
            request.serve(new, etag="", Last_Modified="Tue, 02 Jan 2024 00:00:00 GMT")
        else:
            request.serve(new, etag='"v2"' if how == "version" else '"v1"')

    first = (
        (lambda r: r.serve(cut=1000, etag="", Last_Modified="Mon, 01 Jan 2024 00:00:00 GMT"))
        if how == "date"
        else (lambda r: r.serve(cut=1000))
    )
    with serving(in_turn(first, other)) as server:
        with pytest.raises(DataError, match="changed while it was being read"):
            client().read(link_to(server), 0, 300_000, "x")
    with serving(in_turn(lambda r: r.serve(), other)) as server:  # and from one read to the next
        reader, link = client(), link_to(server)
        if how != "date":
            assert reader.read(link, 0, 10, "x") == DATA[:10]
            with pytest.raises(DataError, match="changed"):
                reader.read(link, 10, 20, "x")


def test_weak_etags_are_compared_too():
    with serving(in_turn(lambda r: r.serve(etag='W/"v1"', cut=10), lambda r: r.serve(etag='"v1"'))) as server:
        assert client().read(link_to(server), 0, 100, "x") == DATA[:100]


def test_other_bytes_than_asked_for_are_not_taken():
    def wrong(content_range):
        return lambda r: r.answer(206, DATA[: r.stop - r.start], Content_Range=content_range)

    answers = [wrong(text) for text in ("bytes 0-9/300000", "bytes x", "", "bytes 49-59/300000")]
    with serving(in_turn(*answers, lambda r: r.serve())) as server:
        assert client().read(link_to(server), 50, 60, "x") == DATA[50:60]
        assert len(server.requests) == 5
    with serving(wrong("bytes 0-9/300000")) as server, pytest.raises(Unreachable, match="other bytes than asked for"):
        client(deadline_seconds=0.3).read(link_to(server), 50, 60, "x")


def test_object_shorter_than_the_index_says():
    with serving(lambda r: r.serve(DATA[:1000])) as server:
        with pytest.raises(DataError, match="shorter than the index says") as caught:
            client().read(link_to(server), 900, 1001, "x")
        assert "1000 bytes" in str(caught.value) and "at least 1001" in str(caught.value)
    with (
        serving(lambda r: r.answer(416, Content_Range="bytes */1000")) as server,
        pytest.raises(DataError, match="1000 bytes"),
    ):
        client().read(link_to(server), 2000, 2001, "x")


def test_server_that_sends_fewer_or_more_bytes_than_asked_for():
    def few(request):
        stop = min(request.stop, request.start + 1000)
        request.answer(206, DATA[request.start : stop], Content_Range=f"bytes {request.start}-{stop - 1}/300000")

    def many(request):
        request.answer(206, DATA[request.start :], Content_Range=f"bytes {request.start}-299999/300000")

    for react in (few, many):
        with serving(react) as server:
            assert client().read(link_to(server), 5, 9_005, "x") == DATA[5:9_005]
    with serving(lambda r: r.answer(206, b"", Content_Range="bytes 5-5/300000")) as server, pytest.raises(Unreachable):
        client(deadline_seconds=0.2).read(link_to(server), 5, 6, "x")


@pytest.mark.parametrize("chunked", [False, True])
def test_server_without_ranges(chunked, caplog):
    def react(request):
        if chunked:
            chunks = b"".join(
                b"%x\r\n%b\r\n" % (len(DATA[i : i + 9999]), DATA[i : i + 9999]) for i in range(0, len(DATA), 9999)
            )
            request.connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
        else:
            request.answer(200, DATA)

    with serving(react) as server, caplog.at_level(logging.WARNING):
        reader, link = client(), link_to(server)
        for start, stop in ((0, 10), (200_000, 200_100), (299_000, 300_000), (0, None), (7, None)):
            assert reader.read(link, start, stop, "x") == DATA[start:stop]
        assert len([r for r in caplog.records if "whole objects" in r.message]) == 1
        with pytest.raises(DataError):
            client(deadline_seconds=0.3).read(link, 299_000, 300_001, "x")


def test_empty_object():
    with serving(lambda r: r.answer(416, Content_Range="bytes */0")) as server:
        assert client().read(link_to(server), 0, None, "x") == b""
        with pytest.raises(DataError, match="shorter"):
            client().read(link_to(server), 0, 1, "x")
    with serving(lambda r: r.answer(200)) as server:
        assert client().read(link_to(server), 0, None, "x") == b""


def test_redirects_are_remembered_and_the_token_stays_at_home():
    with serving(lambda r: r.serve()) as target:

        def lead(request):
            status, place = {"/a": (302, "/b"), "/b": (307, f"{target.url}/signed?X-Sig=SECRET")}[
                request.path.partition("?")[0]
            ]
            request.answer(status, b"moved", Location=place)

        with serving(lead) as hub:
            reader, link = client(), link_to(hub, "/a", {"Authorization": "Bearer hf_SECRET"})
            for _ in range(3):
                assert reader.read(link, 3, 30, "x") == DATA[3:30]
            assert [r.path for r in hub.requests] == ["/a", "/b"]  # once
            assert all(r.headers["authorization"] == "Bearer hf_SECRET" for r in hub.requests)
            assert len(target.requests) == 3 and not any("authorization" in r.headers for r in target.requests)


def test_expired_redirect_target_is_asked_for_anew():
    good, refusal = [1], [0]

    def content(request):
        request.serve() if request.path == f"/signed{good[0]}" else request.answer(refusal[0])

    with serving(content) as target, serving(lambda r: r.answer(302, Location=f"{target.url}/signed{good[0]}")) as hub:
        reader, link = client(), link_to(hub)
        for refusal[0] in (403, 401, 404):
            assert reader.read(link, 0, 10, "x") == DATA[:10]
            good[0] += 1
            hub.requests.clear()
            assert reader.read(link, 0, 300_000, "x") == DATA
            assert len(hub.requests) == 1
        good[0] = 0
        with pytest.raises(DataError, match="vanished"):  # fresh redirects that lead nowhere
            reader.read(link_to(target, "/nowhere"), 0, 10, "x")


def test_target_that_does_not_answer_is_left():
    with serving(lambda r: r.serve()) as good:
        dead = socket.create_server(("127.0.0.1", 0))
        port = dead.getsockname()[1]
        dead.close()
        with serving(
            in_turn(
                lambda r: r.answer(302, Location=f"http://127.0.0.1:{port}/x"),
                lambda r: r.answer(302, Location=good.url + "/x"),
            )
        ) as hub:
            assert client().read(link_to(hub), 0, 10, "x") == DATA[:10]
        with (
            serving(lambda r: r.serve()) as first,
            serving(
                in_turn(lambda r: r.answer(302, Location=first.url), lambda r: r.answer(302, Location=good.url))
            ) as hub,
        ):
            link, reader = link_to(hub), client()
            assert reader.read(link, 0, 10, "x") == DATA[:10]
            first.close()  # the remembered one dies
            assert reader.read(link, 10, 300_000, "x") == DATA[10:] and len(hub.requests) == 2


@pytest.mark.parametrize("place", ["/round?X-Sig=SECRET", "ftp://127.0.0.1/x", "file:///etc/passwd"])
def test_redirects_without_end_or_to_other_schemes(place):
    with serving(lambda r: r.answer(302, Location=place)) as server:
        with pytest.raises(DataError, match="redirects") as caught:
            client().read(link_to(server), 0, 10, "x")
        assert len(server.requests) <= 6 and "SECRET" not in message_of(caught.value)


@pytest.mark.parametrize("status", [400, 401, 403])
def test_expired_token_is_renewed_once_a_read(status):
    tokens = {"good": "t1"}

    def react(request):
        request.serve() if request.headers["authorization"] == tokens["good"] else request.answer(status)

    with serving(react) as server:
        held, refreshed = ["t0"], []

        def refresh(headers):
            refreshed.append(headers["Authorization"])
            held[0] = tokens["good"]

        link = Link(lambda: (server.url, {"Authorization": held[0]}), refresh=refresh)
        reader = client()
        assert reader.read(link, 0, 10, "x") == DATA[:10]
        tokens["good"] = "t2"
        with ThreadPoolExecutor(16) as pool:  # all are refused, one renews
            assert all(c == DATA for c in pool.map(lambda _: reader.read(link, 0, 300_000, "x"), range(64)))
        assert refreshed == ["t0", "t1"]


def test_link_is_made_anew_in_the_middle_of_a_read():
    made = []

    def make():
        made.append(len(made))
        return f"{server.url}/{made[-1]}", {}

    def expires(request):
        if request.path != "/0":
            request.serve()
        elif request.start:
            request.answer(403)
        else:
            request.serve(cut=1000)

    with serving(expires) as server:
        assert client().read(Link(make), 0, 300_000, "x") == DATA
    made.clear()

    def expires_again(request):  # a token lasts for one part of a long read
        serves = request.start == 100_000 * int(request.path[1:])
        request.serve(cut=100_000 if request.start < 200_000 else None) if serves else request.answer(403)

    with serving(expires_again) as server:
        assert client().read(Link(make), 0, 300_000, "x") == DATA and made == [0, 1, 2]
    made.clear()

    def flaky():
        if len(made) < 2:
            made.append(0)
            raise ConnectionResetError("the token server")
        return server.url, {}

    with serving(lambda r: r.serve()) as server:
        assert client().read(Link(flaky), 0, 10, "x") == DATA[:10]


def test_names_go_over_the_wire_as_they_are():
    with serving(lambda r: r.serve()) as server:
        for path in ("/d%C3%A9j%C3%A0/%E6%97%A5%25%23%3F.wav?a=b%2Fc", "/a//b", "/a/./b/../c"):
            client().read(link_to(server, path), 0, 1, "x")
        assert [r.path for r in server.requests][:2] == ["/d%C3%A9j%C3%A0/%E6%97%A5%25%23%3F.wav?a=b%2Fc", "/a//b"]


def test_sixteen_threads_on_a_bad_network():
    dice = random.Random(3)

    def react(request):
        fault = dice.random()
        if fault < 0.05:
            request.reset()
        elif fault < 0.1:
            request.serve(cut=dice.randrange(request.stop - request.start))
        elif fault < 0.12:
            request.answer(503)
        else:
            request.serve()

    with serving(react) as server:
        reader, link = client(), link_to(server)

        def one(k):
            start = k * 401 % 200_000
            return reader.read(link, start, start + 90_000, "x") == DATA[start : start + 90_000]

        with ThreadPoolExecutor(16) as pool:
            assert all(pool.map(one, range(500)))
        assert reader.counts["bytes"] == 500 * 90_000
        assert reader.counts["requests"] == len(server.requests) and reader.counts["retries"] > 20


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


def test_memory_stays_near_the_size_of_the_range():
    big = bytes(8 << 20)

    def react(request):
        request.answer(206, Content_Length=len(big), Content_Range=f"bytes 0-{len(big) - 1}/{len(big)}")
        request.connection.sendall(big)

    with serving(react) as server:
        reader, link = client(), link_to(server)
        reader.read(link, 0, len(big), "x")
        tracemalloc.start()
        try:
            content = reader.read(link, 0, len(big), "x")
            assert tracemalloc.get_traced_memory()[1] < 1.1 * len(big)
        finally:
            tracemalloc.stop()
        assert content == big


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
