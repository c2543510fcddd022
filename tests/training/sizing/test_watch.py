"""How full memory is: told once a rise, cleaned up when nearly full, and others on the same device noticed."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from colabkit.training.sizing.watch import CLEAN_EVERY_SECONDS, GIB, MemoryWatch, Reading, read_ram
from tests.told import Told


class Scene:
    """A device of 16 GiB whose state a test sets, with a clock of its own."""

    def __init__(self):
        self.reading = Reading(total_bytes=16 * GIB, free_bytes=8 * GIB, reserved_bytes=7 * GIB)
        self.seconds, self.cleaned, told = 0.0, 0, Told()
        self.said, self.chosen = told.said, told.choices
        self.freed_bytes = 0
        self.watch = MemoryWatch(told, read=lambda: self.reading, clean=self.clean, clock=lambda: self.seconds)

    def clean(self):
        self.cleaned += 1
        self.reading = replace(
            self.reading,
            free_bytes=self.reading.free_bytes + self.freed_bytes,
            reserved_bytes=self.reading.reserved_bytes - self.freed_bytes,
        )

    def fill(self, fraction):
        """Let torch hold as much as fills the device to this fraction."""
        free = int(16 * GIB * (1 - fraction))
        self.reading = Reading(total_bytes=16 * GIB, free_bytes=free, reserved_bytes=16 * GIB - free - GIB // 2)
        return self.watch.look()


@pytest.fixture
def scene():
    return Scene()


def test_nothing_is_said_while_there_is_room(scene):
    for fraction in (0.1, 0.5, 0.89):
        scene.fill(fraction)
        assert scene.watch.used_fraction() == pytest.approx(fraction)
    assert (scene.said, scene.chosen, scene.cleaned, dict(scene.watch.events)) == ([], [], 0, {})


def test_a_warning_once_a_rise(scene):
    for fraction in (0.91, 0.93, 0.92, 0.89, 0.91):
        scene.fill(fraction)
    assert len(scene.said) == 1 and "91% full" in scene.said[0] and "14.6 of 16.0 GiB" in scene.said[0]
    scene.fill(0.5)
    scene.fill(0.92)
    assert len(scene.said) == 2 and scene.watch.events == {"warnings": 2} and scene.cleaned == 0


def test_nearly_full_is_cleaned_up_and_told(scene):
    scene.freed_bytes = 4 * GIB
    after = scene.fill(0.97)
    assert scene.cleaned == 1 and after.used_fraction == pytest.approx(0.72)
    assert scene.watch.used_fraction() == pytest.approx(0.72)
    assert (
        scene.chosen == [("memory.clean_up", "97% to 72%", scene.chosen[0][2])] and scene.watch.events["clean_ups"] == 1
    )


def test_a_clean_up_that_does_not_last_is_not_done_every_step(scene):
    """A batch that fills the device fills it again at the next step: giving back each time would only make it slow."""
    for second in range(int(10 * CLEAN_EVERY_SECONDS)):
        scene.seconds = float(second)
        scene.fill(0.96)
    assert scene.cleaned == 4, "at 0, 1, 3 and 7 minutes"


def test_others_on_the_same_gpu_are_told_once(scene):
    for others_gib in (0.5, 2.4, 6.0, 7.0, 0.5, 5.0):
        scene.reading = Reading(total_bytes=16 * GIB, free_bytes=int((12 - others_gib) * GIB), reserved_bytes=4 * GIB)
        scene.watch.look()
    assert [line for line in scene.said if "others use" in line] == scene.said and len(scene.said) == 2
    assert (
        "5.5 of the 16.0 GiB" in scene.said[0] and "nvidia-smi" in scene.said[0] and scene.watch.events == {"others": 2}
    )
    assert "4.5 GiB of it used by others" in scene.watch.describe()


def test_ram_is_shared_by_design(scene):
    scene.reading = Reading(total_bytes=16 * GIB, free_bytes=6 * GIB, reserved_bytes=GIB, is_shared_by_design=True)
    scene.watch.look()
    assert scene.said == [] and scene.watch.describe() == "10.0 of 16.0 GiB in use"


def test_retries_are_those_of_the_reading(scene):
    scene.reading = replace(scene.reading, num_retries=3)
    assert scene.watch.retries() == 3


def test_a_fraction_can_be_asked_for_before_the_first_look(scene):
    assert scene.watch.used_fraction() == pytest.approx(0.5)


def test_the_ram_of_this_process(monkeypatch):
    first = read_ram()
    assert 0 < first.free_bytes < first.total_bytes and 2**20 < first.reserved_bytes < first.total_bytes
    held = bytearray(os.urandom(1)) * (256 << 20)
    second = read_ram()
    assert second.reserved_bytes - first.reserved_bytes > 200 << 20 and len(held) == 256 << 20
    assert second.peak_bytes >= second.reserved_bytes - (1 << 20) and second.num_retries == 0


def machine(root, *, version, limit):
    """Write the files of a container of 1 GiB on a machine of 8 GiB, 700 MiB in use and 200 of those cached files."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text("MemTotal: 8388608 kB\nMemAvailable: 6291456 kB\n")
    (root / "proc/self/status").write_text("Name:\tpython\nVmHWM:\t  400000 kB\nVmRSS:\t  300000 kB\n")
    group = root / ("sys/fs/cgroup/memory/a" if version == 1 else "sys/fs/cgroup/a")
    group.mkdir(parents=True)
    (root / "proc/self/cgroup").write_text("4:memory:/a\n" if version == 1 else "0::/a\n")
    names = (
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        if version == 1
        else ("memory.max", "memory.current", "inactive_file")
    )
    (group / names[0]).write_text(f"{limit}\n")
    (group / names[1]).write_text(f"{700 << 20}\n")
    (group / "memory.stat").write_text(f"anon 1\n{names[2]} {200 << 20}\n")


@pytest.mark.parametrize(
    "version, limit, used_bytes, total_bytes",
    [
        (2, GIB, 500 << 20, GIB),
        (1, GIB, 500 << 20, GIB),
        (2, "max", 2 * GIB, 8 * GIB),
        (1, 2**63 - 4096, 2 * GIB, 8 * GIB),
    ],
)
def test_a_containers_limit_counts_and_cached_files_do_not(tmp_path, version, limit, used_bytes, total_bytes):
    machine(tmp_path, version=version, limit=limit)
    read = read_ram(str(tmp_path))
    assert read.total_bytes == total_bytes and read.total_bytes - read.free_bytes == used_bytes
    assert read.reserved_bytes == 300000 * 1024 and read.peak_bytes == 400000 * 1024


def test_a_system_that_tells_nothing_is_never_full(tmp_path):
    read = read_ram(str(tmp_path))
    assert read.used_fraction == 0.0 and read.total_bytes == 0
