"""Links to objects: made anew when they expire, and of one content for all who ask."""

from __future__ import annotations

import random
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from colabkit.core.errors import DataError
from colabkit.io.places.http.ranges import Link
from tests.io.places.http.serving import DATA, client, in_turn, link_to, serving


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
