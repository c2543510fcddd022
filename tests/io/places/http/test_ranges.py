"""Ranged reads against a server on loopback that fails in every way on request."""

from __future__ import annotations

import logging
import pickle
import random
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest

from colabkit.core.errors import DataError
from colabkit.io.places.http.ranges import Refused, Unreachable
from tests.io.places.http.serving import DATA, client, in_turn, link_to, message_of, serving


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


def test_connection_errors_are_tried_again():
    turns = iter(range(100))
    with serving(lambda r: r.reset() if next(turns) < 3 else r.serve()) as server:
        assert client().read(link_to(server), 0, 300_000, "x") == DATA


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


@pytest.mark.parametrize("place", ["/round?X-Sig=SECRET", "ftp://127.0.0.1/x", "file:///etc/passwd"])
def test_redirects_without_end_or_to_other_schemes(place):
    with serving(lambda r: r.answer(302, Location=place)) as server:
        with pytest.raises(DataError, match="redirects") as caught:
            client().read(link_to(server), 0, 10, "x")
        assert len(server.requests) <= 6 and "SECRET" not in message_of(caught.value)


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
