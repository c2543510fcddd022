"""The cache on disk: exact, bounded, shared by threads and processes, and never in the way of reading."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import pickle
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from colabkit.core.errors import DataError, StateError, UsageError
from colabkit.io.places import Folder, Pinned
from colabkit.io.places.cache import Cached

SIZE = 10_000
TAIL = 16


class CountingStore(Pinned):
    """A folder that counts its reads."""

    def __init__(self, folder):
        super().__init__(Folder(folder))
        self.num_reads = 0

    def read(self, name, start=0, stop=None):
        self.num_reads += 1
        return super().read(name, start, stop)


def content_of(k: int) -> bytes:
    return random.Random(k).randbytes(SIZE)


@pytest.fixture
def store(tmp_path):
    (tmp_path / "data").mkdir()
    for k in range(40):
        (tmp_path / "data" / f"é{k}.wav").write_bytes(content_of(k))
    return CountingStore(tmp_path / "data")


def cached_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.range"))


def used_bytes(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def test_second_read_comes_from_the_disk_and_is_exact(store, tmp_path):
    cached = Cached(store, tmp_path / "a" / "cache", 10**6)
    assert cached.address == store.address and cached.list() == store.list()
    for _ in range(3):
        for start, stop in ((0, None), (0, SIZE), (5, 5), (17, 4_000), (SIZE - 1, SIZE)):
            assert cached.read("é1.wav", start, stop) == content_of(1)[start:stop]
    assert store.num_reads == 5 and cached.counts == {
        "cache_hits": 10,
        "cache_misses": 5,
        "cache_written": 5,
        "cache_evicted": 0,
        "cache_corrupt": 0,
    }
    again = Cached(store, tmp_path / "a" / "cache", 10**6)  # survives its process
    assert again.read("é1.wav") == content_of(1) and store.num_reads == 5
    again.forget("é1.wav")
    assert again.read("é1.wav") == content_of(1) and store.num_reads == 6
    cached.close()


def test_no_budget_is_refused_and_no_cache_makes_no_folder(store, tmp_path):
    for nothing in (0, -1):
        with pytest.raises(UsageError, match="needs room"):
            Cached(store, tmp_path / "cache", nothing)
    assert not (tmp_path / "cache").exists()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StateError, match="cache folder"):
        Cached(store, tmp_path / "file", 10**6)


def test_what_was_used_last_stays(store, tmp_path):
    cached = Cached(store, tmp_path / "cache", 10 * (SIZE + TAIL))
    for k in range(40):
        cached.read(f"é{k}.wav")
        before = store.num_reads
        cached.read("é0.wav")  # in use all the time
        assert store.num_reads == before
        time.sleep(0.001)
        assert used_bytes(tmp_path / "cache") <= cached.max_bytes
    store.num_reads = 0
    cached.read("é0.wav")
    cached.read("é39.wav")
    assert store.num_reads == 0
    cached.read("é1.wav")
    assert store.num_reads == 1 and cached.counts["cache_evicted"] > 25


def test_range_larger_than_its_share_is_not_kept(store, tmp_path):
    cached = Cached(store, tmp_path / "cache", 3 * SIZE)
    assert cached.read("é0.wav") == content_of(0) and not cached_files(tmp_path / "cache")


@pytest.mark.parametrize("damage", ["cut", "empty", "longer", "bit", "other", "tail"])
def test_damaged_file_is_fetched_again(store, tmp_path, damage):
    cached = Cached(store, tmp_path / "cache", 10**6)
    cached.read("é1.wav")
    (path,) = cached_files(tmp_path / "cache")
    raw = path.read_bytes()
    if damage == "other":  # whole, but of another range
        cached.read("é2.wav")
        (other,) = set(cached_files(tmp_path / "cache")) - {path}
        path.write_bytes(other.read_bytes())
        store.num_reads -= 1
    else:
        flipped = bytearray(raw)
        flipped[5_000] ^= 1
        path.write_bytes(
            {"cut": raw[:-1], "empty": b"", "longer": raw + b"x", "bit": bytes(flipped), "tail": raw[:-4] + b"abcd"}[
                damage
            ]
        )
    assert cached.read("é1.wav") == content_of(1) and store.num_reads == 2 and cached.counts["cache_corrupt"] == 1
    assert path.read_bytes() == raw
    assert cached.read("é1.wav") == content_of(1) and store.num_reads == 2


def test_object_that_changed_is_not_found_under_its_old_version(store, tmp_path):
    Cached(store, tmp_path / "cache", 10**6).read("é1.wav", 0, 100)
    (tmp_path / "data" / "é1.wav").write_bytes(content_of(99))
    os.utime(tmp_path / "data" / "é1.wav", ns=(1, 1))
    fresh = CountingStore(tmp_path / "data")
    assert Cached(fresh, tmp_path / "cache", 10**6).read("é1.wav", 0, 100) == content_of(99)[:100]


def test_versions_that_are_given_spare_the_listing(store, tmp_path):
    store.list = None  # not asked for
    cached = Cached(store, tmp_path / "cache", 10**6, versions={"é1.wav": "v"})
    for _ in range(2):
        assert cached.read("é1.wav", 1, 9) == content_of(1)[1:9]
        assert cached.read("é2.wav", 1, 9) == content_of(2)[1:9]  # of no known version: not kept
    assert store.num_reads == 3


def test_errors_of_the_store_come_through_and_are_not_kept(store, tmp_path):
    cached = Cached(store, tmp_path / "cache", 10**6)
    cached.list()
    (tmp_path / "data" / "é1.wav").unlink()
    for _ in range(2):
        with pytest.raises(DataError, match="vanished"):
            cached.read("é1.wav")
    assert store.num_reads == 2 and not cached_files(tmp_path / "cache")


def test_left_over_files_are_removed_and_foreign_ones_left(store, tmp_path):
    folder = tmp_path / "cache"
    dead = multiprocessing.get_context("spawn").Process(target=time.monotonic)
    dead.start()
    dead.join()
    inner = folder / "ab"
    inner.mkdir(parents=True)
    left_over = inner / f".colabkit-{'c' * 30}.range-{dead.pid}-0123abcd.tmp"
    alive = inner / f".colabkit-{'d' * 30}.range-{os.getpid()}-0123abcd.tmp"
    ancient = inner / f".colabkit-{'e' * 30}.range-{os.getpid()}-4567abcd.tmp"
    foreign = [folder / "thesis.txt", inner / "notes.range", folder / "abc" / ("f" * 30 + ".range")]
    foreign[2].parent.mkdir()
    for path in (left_over, alive, ancient, *foreign):
        path.write_bytes(bytes(50_000))
    os.utime(ancient, (1, 1))
    cached = Cached(store, folder, 60_000)
    assert not left_over.exists() and not ancient.exists() and alive.exists()
    for k in range(20):
        cached.read(f"é{k}.wav")
    assert all(path.exists() for path in foreign)


def test_budget_holds_from_the_start_after_it_was_made_smaller(store, tmp_path):
    large = Cached(store, tmp_path / "cache", 10**6)
    for k in range(40):
        large.read(f"é{k}.wav")
    assert used_bytes(tmp_path / "cache") == 40 * (SIZE + TAIL)
    Cached(store, tmp_path / "cache", 100_000)
    assert 50_000 < used_bytes(tmp_path / "cache") <= 100_000


def fail_writing(monkeypatch, code):
    true_open = os.open

    def full(path, flags, *more, **named):
        if flags & os.O_WRONLY and os.fspath(path).endswith(".tmp"):
            time.sleep(0.02)  # so that several threads meet it
            raise OSError(code, os.strerror(code), path)
        return true_open(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", full)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_full_disk_turns_the_cache_off_with_one_warning(store, tmp_path, monkeypatch, caplog, code):
    cached = Cached(store, tmp_path / "cache", 10**6)
    cached.read("é0.wav")
    fail_writing(monkeypatch, code)
    with caplog.at_level(logging.WARNING), ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda k: cached.read(f"é{k}.wav"), range(40))) == [content_of(k) for k in range(40)]
    assert len([r for r in caplog.records if "off from now on" in r.message]) == 1


def test_folder_that_is_removed_while_it_is_used(store, tmp_path):
    import shutil

    cached = Cached(store, tmp_path / "cache", 10**6)
    for round_ in range(3):
        for k in range(5):
            assert cached.read(f"é{k}.wav", round_) == content_of(k)[round_:]
        shutil.rmtree(tmp_path / "cache")
    assert cached.read("é0.wav") == content_of(0) and cached.read("é0.wav") == content_of(0)
    assert cached_files(tmp_path / "cache") and not cached._shelf.get().is_off


def test_threads_race_with_eviction_and_with_a_vandal(store, tmp_path):
    cached = Cached(store, tmp_path / "cache", 12 * (SIZE + TAIL))
    over = threading.Event()

    def vandalise():
        while not over.is_set():
            for path in cached_files(tmp_path / "cache")[::3]:
                path.unlink(missing_ok=True)
            time.sleep(0.002)

    vandal = threading.Thread(target=vandalise)
    vandal.start()
    try:
        with ThreadPoolExecutor(16) as pool:
            assert all(pool.map(lambda n: cached.read(f"é{n * n % 40}.wav") == content_of(n * n % 40), range(600)))
    finally:
        over.set()
        vandal.join()
    assert cached.counts["cache_corrupt"] == 0 and cached.counts["cache_hits"] > 20 and not cached._shelf.get().is_off
    assert used_bytes(tmp_path / "cache") <= cached.max_bytes


def _read_much(cached, seed, failures):
    dice = random.Random(seed)
    wrong = 0
    for _ in range(150):
        k, start = dice.randrange(40), dice.randrange(9)
        wrong += cached.read(f"é{k}.wav", start) != content_of(k)[start:]
    failures.put((wrong, cached.counts["cache_corrupt"], cached._shelf.get().is_off))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_share_one_budget(store, tmp_path, method):
    cached = Cached(store, tmp_path / "cache", 50 * SIZE)
    assert cached.read("é0.wav") == content_of(0)
    context = multiprocessing.get_context(method)
    failures = context.Queue()
    workers = [context.Process(target=_read_much, args=(cached, seed, failures)) for seed in range(3)]
    most = 0
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        most = max(most, sum(_size(p) for p in cached_files(tmp_path / "cache")))
        if not failures.empty():
            assert failures.get() == (0, 0, False)
        time.sleep(0.005)
    assert 0 < most <= cached.max_bytes


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def test_killed_writers_leave_a_cache_that_works(store, tmp_path):
    context = multiprocessing.get_context("fork")
    for seed in range(6):
        cached = Cached(store, tmp_path / "cache", 30 * SIZE)
        worker = context.Process(target=_read_much, args=(cached, seed, context.Queue()))
        worker.start()
        time.sleep(0.01 * seed)
        worker.kill()
        worker.join()
    cached = Cached(store, tmp_path / "cache", 30 * SIZE)
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.name.endswith(".tmp")]
    for k in range(40):
        assert cached.read(f"é{k}.wav") == content_of(k)
    assert cached.counts["cache_corrupt"] == 0 and used_bytes(tmp_path / "cache") <= cached.max_bytes


def test_goes_to_another_process_with_its_versions(store, tmp_path):
    cached = Cached(store, tmp_path / "cache", 10**6)
    cached.read("é1.wav", 3, 5)
    copy = pickle.loads(pickle.dumps(cached))
    reads = copy.store.num_reads
    assert copy.read("é1.wav", 3, 5) == content_of(1)[3:5] and copy.store.num_reads == reads
