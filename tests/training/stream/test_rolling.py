"""A window that moves along a stream: what is at hand is a pure function of the use, and each sample is read once."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter

import pytest

from colabkit.core.errors import BrokenSampleError, ChangedError, DataError
from colabkit.training.stream.batch_plan import SampleOrder
from colabkit.training.stream.rolling import RollingWindow
from colabkit.training.stream.stream import Source, Stream

NUM = 23


class Reads:
    """Reads sample s as "name s", counts, and fails as it is told."""

    def __init__(self, broken=(), fails_at=None, slow=0.0):
        self.counts, self.broken, self.fails_at, self.slow = Counter(), set(broken), fails_at, slow
        self.lock = threading.Lock()

    def __call__(self, source: str, sample: int) -> str:
        with self.lock:
            self.counts[sample] += 1
            number = sum(self.counts.values())
        if self.slow:
            time.sleep(self.slow * random.random())
        if self.fails_at == number:
            raise DataError("the network is down", fix="wait")
        if sample in self.broken:
            raise BrokenSampleError("broken", where=f"sample {sample}", fix="none")
        return f"{source} {sample}"


def stream_of(num: int = NUM, seed: int = 0, **how) -> Stream:
    return Stream([Source("speech", "fingerprint", SampleOrder(num, seed=seed))], seed=seed, **how)


def window_of(read=None, stream=None, **how) -> RollingWindow:
    how = {"chapter_items": 3, "held": 2, "uses_per_chapter": 4, "workers": 2} | how
    return RollingWindow(stream or stream_of(), read or Reads(), **how)


def at(window: RollingWindow, use: int) -> list:
    return [(loaded.item.number, loaded.samples) for loaded in window.at(use)]


def expected(use: int, *, chapter_items=3, held=2, uses_per_chapter=4, stream=None, broken=()) -> list:
    """What the description says, without a window."""
    stream, first = stream or stream_of(), use // uses_per_chapter * chapter_items
    samples = [(number, stream.item(number).samples.tolist()) for number in range(first, first + held * chapter_items)]
    return [
        (number, [(s, f"{stream.item(number).source} {s}") for s in found if s not in broken])
        for number, found in samples
    ]


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"chapter_items": 1, "held": 1, "uses_per_chapter": 1},
        {"held": 5, "workers": 8},
        {"chapter_items": 30},
        {"uses_per_chapter": 1},
        {"workers": 0},
    ],
    ids=str,
)
def test_uses_in_order_see_the_chapters_that_the_stream_says(how):
    window, parts = window_of(**how), {k: v for k, v in how.items() if k != "workers"}
    for use in range(40):
        assert at(window, use) == expected(use, **parts)
    window.close()


@pytest.mark.parametrize("seed", range(5))
def test_any_order_of_uses_gives_the_same_and_so_does_a_new_window_at_any_use(seed):
    rng, window = random.Random(seed), window_of(workers=seed)
    for _ in range(25):
        use = rng.choice([rng.randrange(60), rng.randrange(10_000)])
        assert at(window, use) == expected(use)
    new = window_of(workers=1)
    assert at(new, use) == expected(use)
    window.close()
    new.close()


def test_going_forward_each_sample_is_read_once_an_epoch():
    reads = Reads()
    window = window_of(reads)
    for use in range(4 * 40):
        window.at(use)
    last = 39 * 3 + 2 * 3
    window.close()
    epochs, rest = divmod(last, NUM)
    assert all(epochs <= reads.counts[s] <= epochs + 2 for s in range(NUM))
    assert last <= sum(reads.counts.values()) <= last + 3 + 2  # a chapter and what the workers hold


def test_several_uses_of_one_window_read_nothing_anew():
    reads = Reads()
    window = window_of(reads, workers=0)
    for use in (0, 1, 2, 3, 0, 3):
        window.at(use)
    assert sum(reads.counts.values()) == 6
    window.at(4)
    assert sum(reads.counts.values()) == 9 and max(reads.counts.values()) == 1


def test_a_small_leap_forward_goes_on_and_a_step_back_reads_again():
    reads = Reads()
    window = window_of(reads, workers=0)
    window.at(0)
    assert at(window, 8) == expected(8) and sum(reads.counts.values()) == 12  # the chapter between is read on the way
    assert at(window, 0) == expected(0) and sum(reads.counts.values()) == 18


def test_a_leap_far_ahead_does_not_read_what_lies_between():
    reads = Reads()
    window = window_of(reads, workers=0)
    window.at(0)
    window.at(4_000)
    assert sum(reads.counts.values()) == 12


def test_slow_reads_that_end_in_any_order_change_nothing():
    window = window_of(Reads(slow=0.004), workers=6)
    for use in range(0, 60, 2):
        assert at(window, use) == expected(use)
    window.close()


def test_broken_samples_are_left_out_told_once_and_kept_in_the_state():
    told = []
    stream = stream_of(problem=lambda item, reason: told.append(item))
    window = window_of(Reads(broken=(4, 7)), stream, workers=0)
    for use in range(4 * 20):
        assert at(window, use) == expected(use, broken=(4, 7))
    assert sorted(told) == ["speech, sample 4", "speech, sample 7"] and window.state(79)["quarantined"] == {
        "speech": [4, 7]
    }


def test_a_state_brings_back_the_quarantine_and_the_same_windows():
    window = window_of(Reads(broken=(4, 7)))
    for use in range(50):
        window.at(use)
    state = window.state(50)
    assert state["consumed"] + NUM * state["epoch"] == 50 // 4 * 3
    reads = Reads(broken=(4, 7))
    again = window_of(reads)
    again.load_state(state)
    for use in range(50, 120):
        assert at(again, use) == at(window, use) == expected(use, broken=(4, 7))
    assert not reads.counts[4] and not reads.counts[7]
    window.close()
    again.close()


def test_the_state_says_how_far_the_uses_are_and_not_what_was_read_ahead():
    window = window_of()
    states = []
    for use in range(30):
        window.at(use)
        states.append(window.state(use))
    assert [s["consumed"] + NUM * s["epoch"] for s in states] == [use // 4 * 3 for use in range(30)]
    assert at(window, 30) == expected(30)  # asking for the state moves nothing
    window.close()


def test_a_state_of_other_data_or_another_order_is_refused():
    window, other = window_of(), window_of(stream=stream_of(seed=1))
    with pytest.raises(ChangedError):
        window.load_state(other.state(0))
    with pytest.raises(ChangedError):
        window.load_state({})
    assert at(window, 0) == expected(0)
    window.close()


def test_loading_a_state_in_the_middle_starts_over_cleanly():
    reads = Reads()
    window = window_of(reads)
    window.at(9)
    window.load_state(window.state(0))
    assert at(window, 0) == expected(0) and at(window, 9) == expected(9)
    window.close()


@pytest.mark.parametrize("workers", [0, 1, 4])
@pytest.mark.parametrize("fails_at", [1, 4, 8])
def test_what_reading_raises_comes_out_and_a_later_try_goes_on(workers, fails_at):
    window = window_of(Reads(fails_at=fails_at), workers=workers)
    raised, use = 0, 0
    while use < 30:
        try:
            assert at(window, use) == expected(use)
            use += 1
        except DataError as error:
            raised += 1
            assert "the network is down" in str(error)
    assert raised == 1
    window.close()


def test_too_many_broken_samples_end_it():
    window = window_of(Reads(broken=range(10)), stream_of(max_quarantined=3), workers=0)
    with pytest.raises(DataError, match="Too many"):
        for use in range(100):
            window.at(use)


def test_a_mixture_moves_on_through_all_its_sources():
    sources = [Source("a", "1", SampleOrder(7, seed=0)), Source("b", "2", SampleOrder(50, seed=0))]
    stream = Stream(sources, seed=0, schedule=[1.0, 3.0])
    window = window_of(stream=stream)
    seen = Counter()
    for use in range(0, 400, 4):
        assert at(window, use) == expected(use, stream=stream)
        seen.update(loaded.item.source for loaded in window.at(use)[:3])
    assert seen["b"] / seen["a"] == pytest.approx(3, rel=0.1)
    state = window.state(200)
    again = window_of(stream=Stream(sources, seed=0, schedule=[1.0, 3.0]))
    again.load_state(state)
    assert at(again, 200) == expected(200, stream=stream)
    window.close()
    again.close()


def test_closing_ends_the_threads_and_a_later_use_starts_them_again():
    before = set(threading.enumerate())
    window = window_of(workers=3)
    window.at(0)
    assert len(set(threading.enumerate()) - before) == 3
    window.close()
    window.close()
    assert not set(threading.enumerate()) - before
    assert at(window, 5) == expected(5)
    window.close()


def test_many_threads_may_ask_at_once():
    window, found, errors = window_of(), {}, []

    def ask(uses):
        try:
            for use in uses:
                found[use] = at(window, use)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=ask, args=(range(k, 60, 4),)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert errors == [] and all(found[use] == expected(use) for use in range(60))
    window.close()


def test_memory_holds_no_more_than_the_window_and_what_is_read_ahead():
    reads = Reads()
    window = window_of(reads, chapter_items=5, held=2, workers=2)
    window.at(0)
    time.sleep(0.1)
    assert sum(reads.counts.values()) <= 10 + 5
    window.close()
