"""One worker a piece; the dead are taken over from by one, and find out."""

from __future__ import annotations

import json
import threading

from colabkit.pipelines.dataset.encode.claims import Claims
from tests.pipelines.dataset.encode.memory_objects import MemoryObjects


def workers(number: int, **settings):
    store, time = MemoryObjects(), [0.0]
    said: list[str] = []
    return (
        store,
        time,
        said,
        [
            Claims(store, f"w{i}", lease_seconds=10, clock=lambda: time[0], say=said.append, **settings)
            for i in range(number)
        ],
    )


def test_a_piece_is_claimed_by_one():
    store, _, _, crew = workers(16)
    taken, start = [], threading.Barrier(16)

    def take(claims):
        start.wait()
        for piece in ("a", "b", "c"):
            if token := claims.take(piece):
                taken.append((piece, claims.worker, token))

    threads = [threading.Thread(target=take, args=(claims,)) for claims in crew]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(piece for piece, _, _ in taken) == ["a", "b", "c"] and {token for *_, token in taken} == {1}


def test_a_claim_that_is_renewed_is_not_taken_and_one_that_is_not_is_taken_by_one():
    store, time, said, (first, second, third) = workers(3)
    assert first.take("a") == 1 and first.take("a") == 1
    for _ in range(5):
        assert second.take("a") is None
        time[0] += 6
        assert first.renew() == []
        second.look()
    assert second.take("a") is None
    third.look()
    time[0] += 11
    assert third.take("a") == 2 and any("taken over from w0" in text for text in said)
    assert second.take("a") is None
    assert first.renew() == ["a"] and first.renew() == []
    assert json.loads(store.content["codes/claims/a.json"][0])["worker"] == "w2"


def test_a_worker_that_comes_back_takes_its_own_at_once_with_a_higher_token():
    store, time, said, (first, _) = workers(2)
    assert first.take("a") == 1
    again = Claims(store, "w0", lease_seconds=10, clock=lambda: time[0], say=said.append)
    again.look()
    assert again.take("a") == 2 and not said
    assert first.renew() == ["a"]


def test_a_put_whose_answer_was_lost_is_ours():
    store, _, _, (first, _) = workers(2)
    put = store.put

    def put_twice(name, content, **conditions):
        put(name, content, **conditions)
        return put(name, content, **conditions)

    first.output.put = put_twice
    assert first.take("a") == 1
    assert first.renew() == []
