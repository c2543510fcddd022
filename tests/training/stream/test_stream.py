"""Tests of training.stream.stream: one sequence for any workers, ranks, stops; small state; broken samples left out."""

from __future__ import annotations

import json
import random
import threading
import time
import weakref
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import pytest

from colabkit.core.errors import BrokenSampleError, ChangedError, DataError, UsageError
from colabkit.training.stream.batch_plan import BatchPlan, Budget, SampleOrder
from colabkit.training.stream.stream import MAX_QUARANTINED, Loaded, Source, Stream

ROOT = Path(__file__).parents[3]
SECONDS = np.random.default_rng(0).gamma(4.0, 2.0, 83).clip(0.5, 30)


def plan(seed: int = 0, **settings) -> BatchPlan:
    return BatchPlan(SECONDS, Budget(padded_seconds=90), seed=seed, num_buckets=5, **settings)


def single(order=None, **settings) -> Stream:
    return Stream([Source("speech", "f" * 64, order or plan())], seed=0, **settings)


def mixed(**settings) -> Stream:
    sources = [
        Source("speech", "a", plan()),
        Source("noise", "b", SampleOrder(10, seed=3, batch_samples=4)),
        Source("späť", "c", SampleOrder(31, seed=4, batch_samples=5)),
    ]
    return Stream(sources, seed=2, schedule=[(0, [3, 1, 0]), (20, [1, 1, 2])], **settings)


def read(source: str, sample: int) -> tuple[str, int]:
    """Return what tells the sample; at another pace for each."""
    time.sleep((sample * 7 % 5) * 2e-4)
    return source, sample


def quick(source: str, sample: int) -> tuple[str, int]:
    return source, sample


def consume(
    streams: list[Stream], num: int | None = None, *, workers: int = 0, kind: str = "threads", read=read
) -> list[tuple]:
    """Go through batches with all ranks in step; return (number, epoch, source, samples) of each, put together."""
    world, seen = len(streams), []
    with ExitStack() as open_loads:
        loads = [
            open_loads.enter_context(closing(stream.load(read, rank=rank, world=world, workers=workers, kind=kind)))
            for rank, stream in enumerate(streams)
        ]
        while num is None or len(seen) < num:
            parts: list[Loaded | None] = [next(load, None) for load in loads]
            if parts[0] is None:
                assert parts == [None] * world
                break
            for part in parts:
                assert [value for _, value in part.samples] == [
                    (part.item.source, sample) for sample, _ in part.samples
                ]
            by_rank = [iter(part.samples) for part in parts]
            item = parts[0].item
            broken = [pair for part in parts for pair in part.broken]
            left_out = {sample for sample, _ in broken} | set(streams[0].quarantined[item.source])
            samples = [
                next(by_rank[place % world])[0]
                for place, sample in enumerate(item.samples.tolist())
                if sample not in left_out
            ]
            assert not any(list(rest) for rest in by_rank)
            seen.append((item.number, item.epoch, item.source, tuple(samples)))
            for stream, part in zip(streams, parts, strict=True):
                stream.acknowledge(part, broken)
    return seen


def whole(make, num: int, **settings) -> list[tuple]:
    """The sequence of a run that nothing disturbs."""
    return consume([make(**settings)], num, read=quick)


@pytest.mark.parametrize("make", [single, mixed])
@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_one_sequence_for_any_workers_and_ranks(make, workers, world):
    expected = whole(make, 60)
    assert consume([make() for _ in range(world)], 60, workers=workers) == expected


@pytest.mark.parametrize(("workers", "world"), [(1, 2), (2, 1)])
def test_one_sequence_with_processes(workers, world, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)  # worker processes find this module
    assert consume([mixed() for _ in range(world)], 40, workers=workers, kind="processes") == whole(mixed, 40)


def test_every_sample_once_an_epoch():
    length = len(plan())
    seen = consume([single(epochs=3)], read=quick)
    assert [number for number, *_ in seen] == list(range(3 * length))
    for epoch in range(3):
        part = [samples for _, which, _, samples in seen if which == epoch]
        assert len(part) == length
        assert sorted(sample for samples in part for sample in samples) == list(range(len(SECONDS)))


def test_the_stream_is_the_same_for_ever():
    """Old states lean on this: when it changes, VERSION must."""
    seconds = (np.arange(40) * 7 % 13 + 1).astype(float)
    sources = [
        Source("a", "1", BatchPlan(seconds, Budget(padded_seconds=50), seed=5, num_buckets=3)),
        Source("b", "2", SampleOrder(9, seed=6, batch_samples=2)),
    ]
    stream = Stream(sources, seed=7, schedule=[2, 1])
    items = [stream.item(n) for n in (0, 1, 2, 1000, 10**9)]
    assert [(i.source, i.epoch, i.samples.tolist()) for i in items] == [
        ("b", 0, [4, 5]),
        ("a", 0, [13, 0, 26, 30, 4, 32]),
        ("a", 0, [5, 31, 7]),
        ("a", 74, [20, 22, 37]),
        ("a", 74074074, [21, 36, 23, 10, 12, 27]),
    ]
    assert (stream.fingerprint, stream.plan) == ("ddc7523b594d0dff", "282f32a86321079a")


@pytest.mark.parametrize("make", [single, mixed])
@pytest.mark.parametrize("seed", range(4))
def test_stops_workers_and_ranks_change_nothing(make, seed):
    """Random stops, a resume after each, by other workers and ranks, with batches taken and not acknowledged."""
    rng = random.Random(seed)
    total, seen, state = 70, [], json.dumps(make().state())
    for _ in range(100):
        world = rng.choice([1, 2, 4])
        streams = [make() for _ in range(world)]
        for stream in streams:
            stream.load_state(json.loads(state))
        seen += consume(streams, min(rng.randrange(0, 9), total - len(seen)), workers=rng.choice([0, 1, 2]))
        with closing(streams[0].load(quick, workers=2)) as taken:
            next(taken)  # taken, never acknowledged
            states = [json.dumps(stream.state()) for stream in streams]
        assert len(set(states)) == 1
        state = states[0]
        if len(seen) == total:
            break
    assert seen == whole(make, total)


def test_a_state_at_every_batch_continues_exactly():
    """Through epoch borders, each resume from the state of a resumed stream."""
    length = len(plan())
    expected, stream = whole(single, 3 * length + 2), single()
    for n in range(3 * length + 2):
        state = stream.state()
        assert (state["epoch"], state["consumed"]) == divmod(n, length)
        stream = single()
        stream.load_state(json.loads(json.dumps(state)))
        assert stream.state() == state
        assert stream.epoch == n // length
        assert consume([stream], 1, read=quick) == [expected[n]]


def test_a_state_at_the_end_of_the_last_epoch():
    stream = single(epochs=2)
    consume([stream], read=quick)
    state = stream.state()
    assert (state["epoch"], state["consumed"]) == (2, 0)
    again = single(epochs=2)
    again.load_state(state)
    assert consume([again], read=quick) == []
    longer = single(epochs=3)  # more epochs may be asked for later
    longer.load_state(state)
    assert [epoch for _, epoch, *_ in consume([longer], read=quick)] == [2] * len(plan())


def test_without_epochs_it_goes_on():
    stream = single(SampleOrder(3, seed=0, batch_samples=2))
    seen = consume([stream], 1001, read=quick)
    assert seen[-1][:2] == (1000, 500)
    assert stream.item(10**12).epoch == 10**12 // 2


def test_the_state_is_small_and_json():
    stream = mixed()
    consume([stream], 33, read=quick)
    text = json.dumps(stream.state())
    assert json.loads(text) == stream.state()
    assert len(text) < 1000
    assert json.loads(text)["consumed"] == 33
    num = 10_000_000
    large = single(SampleOrder(num, seed=0))
    large.position = 123_456 * num + 9_876_543
    some = np.random.default_rng(0).integers(num, size=48)
    large.quarantined["speech"] = {int(sample): "broken " * 20 for sample in some}
    assert len(json.dumps(large.state())) < 1000


def test_batches_are_acknowledged_once_and_in_order():
    stream = single()
    with closing(stream.load(quick)) as load:
        first, second = next(load), next(load)
        with pytest.raises(UsageError, match="in order"):
            stream.acknowledge(second)
        assert stream.position == 0
        stream.acknowledge(first)
        with pytest.raises(UsageError, match="expected batch 1"):
            stream.acknowledge(first)
        stream.acknowledge(second)
        assert stream.position == 2


def other_data() -> Stream:
    return Stream([Source("speech-large", "g" * 64, plan())], seed=0)


@pytest.mark.parametrize(
    ("other", "what", "says"),
    [
        (other_data(), "other data", ["speech (fingerprint", "speech-large (fingerprint"]),
        (Stream([Source("speech", "e" * 64, plan())], seed=0), "other data", ["fingerprint"]),
        (mixed(), "other data", ["speech + noise + späť"]),
        (single(plan(seed=1)), "another order", ["take back the changed settings"]),
        (single(plan(window_batches=2)), "another order", ["plan"]),
        (single(SampleOrder(83, seed=0)), "another order", ["plan"]),
    ],
)
def test_states_of_something_else_are_refused(other, what, says):
    stream = single()
    consume([stream], 5, read=quick)
    with pytest.raises(ChangedError, match=what) as caught:
        other.load_state(stream.state())
    assert all(text in str(caught.value) for text in says)
    assert other.position == 0 and other.num_quarantined == 0


def test_states_of_another_mixture_or_version_are_refused():
    stream = mixed()
    state = stream.state()
    weights = Stream(stream.sources, seed=2, schedule=[1, 1, 1])
    with pytest.raises(ChangedError, match="another order"):
        weights.load_state(state)
    with pytest.raises(ChangedError, match="another order"):
        Stream(stream.sources, seed=3, schedule=[(0, [3, 1, 0]), (20, [1, 1, 2])]).load_state(state)
    for version in (0, 2, None, "1"):
        with pytest.raises(ChangedError, match="another version"):
            stream.load_state({**state, "version": version})
    with pytest.raises(ChangedError, match="another version"):
        stream.load_state({})


BROKEN = {3: "Cannot decode", 40: "Cannot read", 41: "Cannot read"}


def breaking(source: str, sample: int) -> tuple[str, int]:
    if sample in BROKEN:
        raise BrokenSampleError(BROKEN[sample], where=f"shard {sample}", fix="leave it out")
    return source, sample


def num_reads_counted(counts: dict[int, int]):
    def counting(source, sample):
        counts[sample] = counts.get(sample, 0) + 1
        return breaking(source, sample)

    return counting


@pytest.mark.parametrize(("world", "workers"), [(1, 0), (1, 2), (2, 0), (4, 1)])
def test_broken_samples_are_left_out_counted_and_told_once(world, workers):
    told = []
    streams = [
        single(epochs=3, problem=lambda what, reason: told.append((what, reason))),
        *(single(epochs=3) for _ in range(world - 1)),
    ]
    seen = consume(streams, workers=workers, read=breaking)
    samples = [sample for *_, part in seen for sample in part]
    assert sorted(samples) == sorted(3 * [s for s in range(len(SECONDS)) if s not in BROKEN])
    assert sorted(told) == sorted((f"speech, sample {s}", f"{why}: shard {s}") for s, why in BROKEN.items())
    assert all(
        stream.num_quarantined == 3 and stream.state()["quarantined"] == {"speech": [3, 40, 41]} for stream in streams
    )


@pytest.mark.parametrize("stop", [1, 5, 11, 17])
def test_quarantine_is_resumed(stop):
    expected = consume([single(epochs=3)], read=breaking)
    stream = single(epochs=3)
    seen = consume([stream], stop, read=breaking)
    state, counts, told = json.loads(json.dumps(stream.state())), {}, []
    again = single(epochs=3, problem=lambda what, reason: told.append(what))
    again.load_state(state)
    assert seen + consume([again], read=num_reads_counted(counts)) == expected
    known = state["quarantined"].get("speech", [])
    assert not set(known) & set(counts)  # what is known as broken is not read again
    assert len(told) == 3 - len(known)


def test_a_sample_that_heals_stays_out():
    """Broken once and well later: runs that were stopped and runs that were not must see the same."""

    def make_read():
        broken = set()

        def healing(source, sample):
            if sample == 40 and sample not in broken:
                broken.add(sample)
                raise BrokenSampleError("Cannot read", fix="none")
            return source, sample

        return healing

    expected = consume([single(epochs=3)], workers=1, read=make_read())
    assert all(40 not in samples for *_, samples in expected)
    healing, stream, seen = make_read(), single(epochs=3), []
    while part := consume([stream], 7, read=healing):
        seen += part
        stream, state = single(epochs=3), stream.state()
        stream.load_state(state)
    assert seen == expected


def test_too_many_broken_samples_end_the_loop():
    def hopeless(source, sample):
        raise BrokenSampleError("Cannot decode", where=f"row {sample}", fix="none")

    stream = single(epochs=1, max_quarantined=5)
    with pytest.raises(DataError, match="Too many samples are broken") as caught:
        consume([stream], read=hopeless)
    assert "expected at most 5" in str(caught.value) and "Cannot decode: row" in str(caught.value)
    assert 5 < stream.num_quarantined < 5 + 40
    exact = single(epochs=1, max_quarantined=3)
    consume([exact], read=breaking)
    assert exact.num_quarantined == 3
    assert MAX_QUARANTINED == 64


def test_other_errors_stop_the_loop_at_their_batch():
    stream = single()
    bad = stream.item(4).samples[0]

    def failing(source, sample):
        if sample == bad:
            raise DataError("Cannot go on", fix="none")
        return source, sample

    with pytest.raises(DataError, match="Cannot go on"):
        consume([stream], workers=2, read=failing)
    assert stream.position == 4 and stream.num_quarantined == 0
    assert consume([stream], 3, read=quick) == whole(single, 7)[4:]


def test_loading_goes_from_the_position_to_the_stop():
    stream = single()
    consume([stream], 4, read=quick)
    assert [loaded.item.number for loaded in stream.load(quick, stop=9)] == [4, 5, 6, 7, 8]
    assert [loaded.item.number for loaded in single(epochs=1).load(quick, stop=10**6)] == list(range(len(plan())))
    assert list(stream.load(quick, stop=2)) == []
    with pytest.raises(IndexError):
        single(epochs=1).item(len(plan()))
    with pytest.raises(IndexError):
        stream.item(-1)


def test_bytes_ahead_are_those_of_the_ranks_part():
    live, most, lock = weakref.WeakSet(), [0], threading.Lock()

    class Value:
        size = 0.0

    def sized(source, sample):
        value = Value()
        value.size = SECONDS[sample]
        with lock:
            live.add(value)
            most[0] = max(most[0], sum(v.size for v in live))
        time.sleep(0.0005)
        return value

    asked = set()

    def seconds_of(source, sample):
        asked.add(sample)
        return SECONDS[sample]

    stream = single(epochs=1)
    for loaded in stream.load(sized, rank=1, world=2, workers=3, ahead=30, max_bytes=100, num_bytes=seconds_of):
        stream.acknowledge(loaded)
        time.sleep(0.001)
        del loaded
    assert asked == {int(s) for n in range(len(plan())) for s in stream.item(n).samples[1::2]}
    assert most[0] <= 100 + 2 * 90  # those ahead, and the consumer's


@pytest.mark.parametrize(("rank", "world"), [(2, 2), (-1, 2), (0, 0)])
def test_ranks_that_cannot_be(rank, world):
    with pytest.raises(UsageError, match="among ranks"):
        single().load(quick, rank=rank, world=world)


def test_sources_that_cannot_be():
    one = Source("a", "1", SampleOrder(5, seed=0))
    for sources in ([], [one, one]):
        with pytest.raises(UsageError, match="Cannot stream"):
            Stream(sources, seed=0)
    with pytest.raises(UsageError, match="no epochs of its own"):
        Stream([one, Source("b", "2", SampleOrder(5, seed=0))], seed=0, epochs=2)
    with pytest.raises(UsageError, match="Cannot mix"):
        Stream([one, Source("b", "2", SampleOrder(5, seed=0))], seed=0, schedule=[1, 2, 3])
