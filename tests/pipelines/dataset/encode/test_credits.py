"""Credits are never exceeded, and whoever takes them in order gets them, whatever the sizes."""

from __future__ import annotations

import queue
import random
import threading

import pytest

from colabkit.core.errors import StateError
from colabkit.pipelines.dataset.encode.batcher import Batcher, Waiting
from colabkit.pipelines.dataset.encode.credits import Credits


def test_room_is_waited_for_and_what_is_adopted_is_let_go_last_first():
    evicted = []
    credits = Credits(100, evict=evicted.append)
    assert credits.adopt(7, 40) and credits.adopt(9, 40) and not credits.adopt(11, 30)
    assert credits.acquire({1: 50}) and evicted == [9] and credits.free == 10
    assert credits.acquire({7: 40}) and credits.free == 10  # it lies there already
    waiter = threading.Thread(target=lambda: credits.acquire({8: 30}))
    waiter.start()
    waiter.join(0.05)
    assert waiter.is_alive()
    credits.release(50)
    waiter.join(5)
    assert not waiter.is_alive() and credits.used == 70 and credits.most_used <= 100


def test_what_can_never_be_had_is_told():
    credits = Credits(100)
    credits.charge(60)
    with pytest.raises(StateError, match="quota is too small"):
        credits.acquire({1: 50})


def test_a_halt_lets_whoever_waits_go():
    credits = Credits(10)
    credits.acquire({1: 10})
    results = []
    waiter = threading.Thread(target=lambda: results.append(credits.acquire({2: 5})))
    waiter.start()
    credits.halt()
    waiter.join(5)
    assert results == [False]


@pytest.mark.parametrize("seed", range(60))
def test_the_flow_of_credits_never_locks(seed):
    """Take in order, arrive in any, batch in order, release late: with random sizes, quotas, adopted leftovers."""
    rng = random.Random(seed)
    capacity = rng.choice([50, 200, 1000, 10_000])
    costs = [
        rng.randint(1, capacity if rng.random() < 0.1 else max(1, capacity // rng.choice([1, 4, 30])))
        for _ in range(150)
    ]
    lying = {}
    credits = Credits(capacity, evict=lambda item: lying.pop(item))
    for item in rng.sample(range(150), 20):
        if credits.adopt(item, costs[item]):
            lying[item] = costs[item]
    batcher = Batcher(rng.choice([1.0, 20.0]), capacity // 4, total_bytes=sum(costs) if rng.random() < 0.5 else None)
    ordered, ready = queue.Queue(), queue.Queue()
    arrived = [threading.Event() for _ in costs]
    workers, done, overdrawn = queue.Queue(), [], []

    def take():
        for item, cost in enumerate(costs):
            ordered.put(item)
            credits.acquire({item: cost})
            lying[item] = cost
            workers.put(item)
        for _ in range(3):
            workers.put(None)

    def fetch():
        held = []
        while (item := workers.get()) is not None:
            held.append(item)
            if len(held) > rng.randint(0, 2) or workers.empty():
                rng.shuffle(held)
                while held:
                    arrived[held.pop()].set()
        for item in held:
            arrived[item].set()

    def put_in_order():
        for _ in costs:
            item = ordered.get()
            for batch in batcher.shrink(capacity - costs[item]):
                ready.put(batch)
            assert arrived[item].wait(20), f"locked at {item}"
            for batch in batcher.push(Waiting(item, 1 + item % 5, 1.0, costs[item])):
                ready.put(batch)
        for batch in [*batcher.flush(), None]:
            ready.put(batch)

    threads = [threading.Thread(target=f, daemon=True) for f in (take, fetch, fetch, fetch, put_in_order)]
    for thread in threads:
        thread.start()
    while (batch := ready.get(timeout=20)) is not None:
        if credits.used > capacity:
            overdrawn.append(credits.used)
        for segment in batch:
            del lying[segment.item]
            done.append(segment.item)
        credits.release(sum(segment.cost for segment in batch))
    assert sorted(done) == list(range(150)) and not overdrawn
    assert credits.used == 0 and credits.most_used <= capacity
