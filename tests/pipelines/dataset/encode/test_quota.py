"""The quota is a hard one: on a disk of just that size nothing ever fails for want of room, and others may fill it."""

from __future__ import annotations

import os
import random
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from colabkit.core.errors import StateError
from tests.pipelines.dataset.encode.small_codec import SmallCodec, fill, make_wave, npz_bytes
from tests.pipelines.dataset.encode.small_store import Place, same


@contextmanager
def small_disk(folder: Path, num_bytes: int):
    """Mount a disk of so many bytes, or skip where that is not allowed."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={num_bytes}", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"cannot mount a small disk: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("seed", range(6))
def test_a_disk_of_just_the_quota_is_enough(seed, tmp_path):
    rng = random.Random(seed)
    quota = rng.choice([3, 4, 6]) << 20
    with small_disk(tmp_path / "disk", quota) as disk:
        place = Place(tmp_path)
        place.scratch = disk
        expected = fill(place.source, 150, longest=rng.choice([3000, 20_000, 60_000]))
        for i in range(3):
            place.source.put(f"channel1/long{i}.npz", npz_bytes(make_wave(i, rng.randint(100_000, 250_000))))
        npz = {"output_format": "npz", "write_npz": lambda s: s.codes.tobytes()} if seed % 2 else {}
        done = place.encode(
            SmallCodec(seconds_per_second=0.002 * (seed % 3)),
            quota_bytes=quota,
            piece_bytes=512 << 10,
            num_downloads=rng.choice([1, 8, 32]),
            **npz,
        )
        assert done.is_finished and done.num_encoded == 153 and not place.problems
        assert {k: v for k, v in place.codes().items() if "long" not in k}.keys() == expected.keys()
        assert done.most_bytes_used <= quota
        assert not any("WARNING" in text for text in place.said), place.said


def test_a_disk_that_others_fill_is_waited_for(tmp_path):
    with small_disk(tmp_path / "disk", 8 << 20) as disk:
        place = Place(tmp_path)
        place.scratch = disk
        expected = fill(place.source, 120)
        codec, filled = SmallCodec(seconds_per_second=0.02), threading.Event()

        def fill_disk():
            while len(codec.encoded) < 5:
                time.sleep(0.01)
            with open(disk / "other", "wb", buffering=0) as file:
                try:
                    while True:
                        file.write(b"x" * 65536)
                except OSError:
                    filled.set()
            time.sleep(1.5)
            os.unlink(disk / "other")

        other = threading.Thread(target=fill_disk)
        other.start()
        done = place.encode(codec, quota_bytes=6 << 20)
        other.join()
        assert filled.is_set() and done.is_finished and same(place.codes(), expected)
        assert any("full" in text or "filled" in text for text in place.said)


def test_a_disk_that_stays_full_ends_the_run_and_nothing_is_lost(tmp_path, monkeypatch):
    from colabkit.pipelines.dataset.encode import fetch, journal

    monkeypatch.setattr(journal, "ROOM_SECONDS", 1.0)
    monkeypatch.setattr(fetch, "ROOM_SECONDS", 1.0)
    with small_disk(tmp_path / "disk", 8 << 20) as disk:
        place = Place(tmp_path)
        place.scratch = disk
        expected = fill(place.source, 120)
        codec = SmallCodec(seconds_per_second=0.02)

        def before(method, name):
            if len(codec.encoded) >= 5 and method == "get" and not (disk / "other").exists():
                with open(disk / "other", "wb", buffering=0) as file:
                    try:
                        while True:
                            file.write(b"x" * 65536)
                    except OSError:
                        pass

        place.store.hook(before)
        with pytest.raises(StateError, match="full"):
            place.encode(codec, quota_bytes=6 << 20)
        place.store.hook(lambda method, name: None)
        os.unlink(disk / "other")
        assert place.encode(codec, quota_bytes=6 << 20).is_finished and same(place.codes(), expected)
        assert sum(n for _, n in codec.encoded) <= 120 + 25
