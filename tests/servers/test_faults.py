"""The proxy does the faults it is asked for, counts them, and is invisible otherwise."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import urllib3
from urllib3.exceptions import HTTPError, ProtocolError

from colabkit.loopback.hub import HubServer
from colabkit.loopback.messages import Answer, Request
from colabkit.loopback.serving import HttpServer
from tests.servers.faults import FaultProxy
from tests.servers.gcs import GcsServer
from tests.servers.s3 import S3Server

DATA = random.Random(0).randbytes(3_000_000)
ADDRESS = "/storage/v1/b/bkt/o/%C3%BC?alt=media"


@pytest.fixture(scope="module")
def gcs():
    with GcsServer() as server:
        server.put("bkt", "ü", DATA)
        yield server


@pytest.fixture(scope="module")
def http():
    return urllib3.PoolManager(maxsize=16, retries=False)


def ask(http, proxy: FaultProxy, start: int = 0, stop: int = 400_000) -> urllib3.BaseHTTPResponse:
    return http.request(
        "GET", proxy.url + ADDRESS, headers={"Range": f"bytes={start}-{stop - 1}"}, preload_content=False
    )


def test_resets_come_before_the_answer_and_within_the_body(gcs, http):
    with FaultProxy(gcs.url, resets=1) as proxy:
        before = within = 0
        for i in range(30):
            with pytest.raises(ProtocolError, match="reset by peer"):
                try:
                    answer = ask(http, proxy, i)
                except ProtocolError:
                    before += 1
                    raise
                within += 1
                answer.read()
        assert before > 5 and within > 5
        assert proxy.counts == proxy.counts | {"requests": 30, "resets": 30, "truncations": 0, "slow": 0}


def test_truncations_end_in_good_order_but_early(gcs, http):
    with FaultProxy(gcs.url, truncations=1) as proxy:
        lengths = set()
        for i in range(20):
            answer = ask(http, proxy, i)
            assert answer.status == 206 and int(answer.headers["Content-Length"]) == 400_000 - i
            with pytest.raises(ProtocolError, match="IncompleteRead") as failure:
                answer.read()
            lengths.add(failure.value.args[1].partial)
        assert len(lengths) == 20 and proxy.counts["truncations"] == 20


def test_refusals_are_429_and_503(gcs, http):
    asked = len(gcs.requests)
    with FaultProxy(gcs.url, refusals=1, retry_after_seconds=2) as proxy:
        answers = [ask(http, proxy, i) for i in range(40)]
        assert [a.headers.get("Retry-After") for a in answers] == ["2" if a.status == 429 else None for a in answers]
        assert min(proxy.counts["429"], proxy.counts["503"]) > 8 and proxy.counts["429"] + proxy.counts["503"] == 40
        assert {a.read() for a in answers} == {b"refused"}
        assert len(gcs.requests) == asked


def test_a_slow_body_comes_at_the_asked_pace(gcs, http):
    with FaultProxy(gcs.url, slow=1, slow_bytes_per_second=200_000) as proxy:
        began = time.perf_counter()
        answer = ask(http, proxy, 0, 80_000)
        first = time.perf_counter() - began
        assert answer.read() == DATA[:80_000]
        assert time.perf_counter() - began - first > 0.3 and proxy.counts["slow"] == 1  # the head comes at once


def test_corruption_changes_one_byte(gcs, http):
    with FaultProxy(gcs.url, corrupt=1) as proxy:
        for start, stop in ((0, 400_000), (7, 8), (5, 300_000)):
            data = ask(http, proxy, start, stop).read()
            assert len(data) == stop - start
            assert sum(a != b for a, b in zip(data, DATA[start:stop], strict=True)) == 1
        assert proxy.counts["corrupt"] == 3


def outcomes(http, proxy: FaultProxy, order: list[int]) -> dict[int, str]:
    """Ask for every part once, eight at a time; return what became of it."""

    def outcome(i: int) -> str:
        try:
            answer = ask(http, proxy, i * 1000, i * 1000 + 900)
            good = answer.read() == DATA[i * 1000 : i * 1000 + 900]
            return f"{answer.status} {good}"
        except HTTPError as error:
            return type(error).__name__

    with ThreadPoolExecutor(8) as threads:
        return dict(zip(order, threads.map(outcome, order), strict=True))


def test_faults_depend_on_the_seed_and_not_on_the_order(gcs, http):
    rates = {"resets": 0.1, "truncations": 0.1, "refusals": 0.1, "corrupt": 0.1}
    seen = []
    for seed, order in ((1, list(range(300))), (1, list(range(299, -1, -1))), (2, list(range(300)))):
        with FaultProxy(gcs.url, seed=seed, **rates) as proxy:
            seen.append(outcomes(http, proxy, order))
            counts = proxy.counts
        assert counts["requests"] == 300 and sum(
            counts[k] for k in ("resets", "truncations", "429", "503", "corrupt")
        ) == sum(outcome != "206 True" for outcome in seen[-1].values())
        assert all(10 < counts[kind] < 60 for kind in ("resets", "truncations", "corrupt"))
    assert seen[0] == seen[1] != seen[2]


def test_a_request_that_is_sent_again_can_succeed(gcs, http):
    with FaultProxy(gcs.url, refusals=0.5) as proxy:
        assert {ask(http, proxy).status for _ in range(30)} == {206, 429, 503}


def test_only_some_paths_and_nothing_when_not_enabled(gcs, http):
    gcs.put("bkt", "spared", b"fine")
    with FaultProxy(gcs.url, refusals=1, only=r"/o/ü$") as proxy:
        assert http.request("GET", f"{proxy.url}/storage/v1/b/bkt/o/spared?alt=media").data == b"fine"
        assert ask(http, proxy).status in (429, 503)
        proxy.enabled = False
        assert ask(http, proxy).read() == DATA[:400_000] and proxy.counts["requests"] == 3


@pytest.mark.parametrize("large", [True, False])
def test_a_hub_behind_it_redirects_to_it(http, large):
    only = "^/cdn/|resolve-cache"
    with (
        HubServer(large_bytes=1000 if large else 10_000_000) as hub,
        FaultProxy(hub.url, refusals=1, only=only) as proxy,
    ):
        hub.add_dataset("o/s", {"ü": DATA})
        address = f"{proxy.url}/datasets/o/s/resolve/main/%C3%BC"
        redirects = urllib3.Retry(3, redirect=2, respect_retry_after_header=False)
        assert http.request("GET", address, retries=redirects).status in (429, 503)
        proxy.enabled = False
        assert http.request("GET", address, retries=redirects).data == DATA
        assert http.request("HEAD", address, retries=redirects).headers["Content-Length"] == str(len(DATA))
        assert all(path.startswith("/datasets") or status in (200, 429, 503) for _, path, _, status in hub.requests)


def test_s3_passes_unharmed():
    import obstore

    with S3Server() as s3, FaultProxy(s3.url, resets=0.5, truncations=0.5) as proxy:
        proxy.enabled = False
        s3.put("bucket", "there", b"")
        store = obstore.store.S3Store(
            "bucket",
            endpoint=proxy.url,
            access_key_id="x",
            secret_access_key="y",
            region="us-east-1",
            client_options={"allow_http": True},
        )
        for content in (DATA * 4, b"short", b""):
            obstore.put(store, "ü/put", content)
            assert bytes(obstore.get(store, "ü/put").bytes()) == content
        assert sorted(about["path"] for page in obstore.list(store) for about in page) == ["there", "ü/put"]
        assert proxy.counts["requests"] > 8 and sum(proxy.counts.values()) == proxy.counts["requests"]


class Odd(HttpServer):
    """Echoes bodies, closes after each answer, and tells where it thinks it is."""

    def answer(self, request: Request) -> Answer:
        there = f"http://localhost:{self.port}/there"
        return Answer(302, {"Location": there, "Link": f'<{there}>; rel="next"', "Connection": "close"}, request.body)


def test_bodies_are_passed_and_addresses_of_the_target_are_turned_to_the_proxy(http):
    with Odd() as odd, FaultProxy(odd.url) as proxy:
        for body in (DATA, b"", iter([b"in ", b"chunks"])):
            answer = http.request("POST", f"{proxy.url}/x", body=body, redirect=False)
            assert answer.headers["Location"] == f"http://localhost:{proxy.port}/there"
            assert answer.headers["Link"] == f'<http://localhost:{proxy.port}/there>; rel="next"'
            assert answer.data == (body if isinstance(body, bytes) else b"in chunks")


def test_a_target_that_has_gone_is_a_bad_gateway(http):
    with HttpServer() as gone, FaultProxy(gone.url) as proxy:
        assert http.request("GET", f"{proxy.url}/x").status == 500  # it answers nothing
        gone.close()
        assert http.request("GET", f"{proxy.url}/x").status == 502
