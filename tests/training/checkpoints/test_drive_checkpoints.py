"""Checkpoints on a Drive that lags, fails, forgets and fills up: nothing acknowledged is lost, and training goes on."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
import time

import pytest
import torch

from colabkit.core.errors import StateError
from colabkit.runs.medium import Medium, MountedDrive, medium_of
from colabkit.training.checkpoints import checkpoints
from colabkit.training.checkpoints.checkpoints import Checkpoints
from tests.runs.emulated_drive import EmulatedDrive, Weather
from tests.training.checkpoints.drive_trials import FOLDER, QUICKLY, trial

OPENED: list[Checkpoints] = []


@pytest.fixture(autouse=True)
def nothing_goes_on_being_sent():
    yield
    while OPENED:
        OPENED.pop()._publisher.close()


def opened(drive, scratch, **how) -> tuple[Checkpoints, list[str]]:
    said: list[str] = []
    how.setdefault("say", said.append)
    OPENED.append(Checkpoints(FOLDER, medium=drive, scratch=scratch, retry_seconds=QUICKLY, **how))
    return OPENED[-1], said


def state(step: int) -> dict:
    return {"step": step, "w": torch.full((50,), float(step))}


def stored_steps(drive) -> list[int]:
    return sorted(
        {checkpoints.generation.step_of(path.parent.name) for path in drive.stored if path.name == "COMMIT.json"}
    )


def test_a_calm_drive_holds_the_last_two_and_the_best_and_a_new_machine_finds_them(tmp_path):
    drive = EmulatedDrive()
    points, said = opened(drive, tmp_path / "scratch")
    for step in range(1, 7):
        points.save(step, state(step), best=step == 2, wait=True)
    assert points.stored_step == 6 and stored_steps(drive) == [2, 5, 6] and said == []
    assert {path.name for path in drive.stored} == {"state.safetensors", "COMMIT.json", "LATEST"}, "few files"
    drive.machine_lost()
    again, _ = opened(drive, tmp_path / "another")
    assert again.load_latest()[0] == 6 and again.load_best()[0] == 2


def test_while_drive_is_away_training_goes_on_and_then_it_catches_up(tmp_path):
    drive = EmulatedDrive()
    points, said = opened(drive, tmp_path / "scratch")
    points.save(1, state(1), wait=True)
    drive.weather = Weather(fault_share=1.0)
    for step in (2, 3, 4):
        points.save(step, state(step))
        time.sleep(0.02)
    until = time.monotonic() + 10
    while not said and time.monotonic() < until:
        time.sleep(0.01)
    warned = [line for line in said if "WARNING" in line]
    assert (
        len(warned) == 1
        and "Google Drive" in warned[0]
        and "training goes on" in warned[0]
        and str(tmp_path) in warned[0]
    )
    assert points.stored_step == 1 and stored_steps(drive) == [1]
    points._join()  # the last one waits, too, before the Drive is back
    drive.weather = Weather()
    points.wait(10)
    assert points.stored_step == 4 and said[-1].endswith("3 had stayed on this machine") and "answers again" in said[-1]
    assert len(said) == 2


def test_after_a_dead_kernel_the_newer_generation_on_this_machine_counts(tmp_path):
    drive = EmulatedDrive()
    points, _ = opened(drive, tmp_path / "scratch")
    points.save(1, state(1), wait=True)
    drive.weather = Weather(full_share=1.0)
    points.save(2, state(2))
    points._join()
    drive.weather = Weather()
    again, _ = opened(drive, tmp_path / "scratch")
    assert again.load_latest()[0] == 2
    shutil.rmtree(tmp_path / "scratch")
    assert opened(drive, tmp_path / "scratch")[0].load_latest()[0] in (1, 2)


def test_generations_of_other_work_on_this_machine_do_not_count(tmp_path):
    drive = EmulatedDrive()
    points, _ = opened(drive, tmp_path / "scratch", identity="before")
    points.save(5, state(5), wait=True)
    again, said = opened(drive, tmp_path / "scratch", identity="now")
    assert again.load_latest() is None and "other work" in said[0]


def test_a_drive_that_stays_away_is_an_error_only_at_the_end_and_names_where_the_work_is(tmp_path):
    drive = EmulatedDrive(Weather(fault_share=1.0))
    points, said = opened(drive, tmp_path / "scratch")
    points.save(1, state(1))
    with pytest.raises(StateError) as caught:
        points.wait(0.05)
    assert str(tmp_path / "scratch") in caught.value.fix and "empty the trash" in caught.value.fix
    assert any("WARNING" in line for line in said)


def test_a_drive_that_does_not_answer_at_the_start_is_not_taken_for_an_empty_one(tmp_path):
    drive = EmulatedDrive()
    opened(drive, tmp_path / "a")[0].save(3, state(3), wait=True)
    drive.weather = Weather(fault_share=1.0)
    with pytest.raises(StateError, match="read the checkpoints"):
        opened(drive, tmp_path / "b")[0].load_latest()


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_what_no_waiting_mends_is_told_at_the_next_save(tmp_path, code, monkeypatch):
    drive = EmulatedDrive()
    points, _ = opened(drive, tmp_path / "scratch")
    monkeypatch.setattr(drive, "make_folder", lambda folder: (_ for _ in ()).throw(OSError(code, "no")))
    points.save(1, state(1))
    with pytest.raises(StateError) as caught:
        points.wait(5)
    assert caught.value.errno == code and caught.value.fix


def test_garbled_bytes_are_noticed_by_reading_back_and_sent_again(tmp_path):
    drive = EmulatedDrive(Weather(garbled_share=0.5), seed=3)
    points, _ = opened(drive, tmp_path / "scratch")
    for step in range(1, 9):
        points.save(step, state(step), wait=True)
        assert points.stored_step == step
    drive.weather = Weather()
    drive.machine_lost()
    assert opened(drive, tmp_path / "other")[0].load_latest()[0] == 8


def test_an_old_listing_does_not_hide_the_newest_generation(tmp_path):
    drive = EmulatedDrive()
    points, _ = opened(drive, tmp_path / "scratch")
    for step in (1, 2, 3):
        points.save(step, state(step), wait=True)
    drive.machine_lost()
    drive.weather = Weather(stale_share=1.0)
    assert opened(drive, tmp_path / "other")[0].load_latest()[0] == 3


def test_whatever_the_hint_may_name_on_another_machine_stays(tmp_path, monkeypatch):
    """The hint goes up, but this machine is not told so before newer generations take the place of the one it names."""
    drive = EmulatedDrive()
    points, _ = opened(drive, tmp_path / "scratch")
    points.save(1, state(1), wait=True)
    known = drive.is_uploaded
    monkeypatch.setattr(drive, "is_uploaded", lambda path: path.name != "LATEST" and known(path))
    points.save(2, state(2))
    points._join()
    points._publisher.flush(0.2)
    assert b"000000002" in drive.stored[FOLDER / "LATEST"] and points.stored_step == 1
    monkeypatch.setattr(points._publisher, "_confirm", lambda: False)  # always a newer one to send first
    for step in range(3, 8):
        points.save(step, state(step))
        points._join()
        points._publisher.flush(0.05)
    drive.machine_lost()
    monkeypatch.undo()
    drive.weather = Weather(stale_share=1.0)
    assert opened(drive, tmp_path / "other")[0].load_latest()[0] == 2
    drive.weather = Weather()
    assert opened(drive, tmp_path / "other")[0].load_latest()[0] == 7


def test_none_is_removed_before_its_heir_is_uploaded(tmp_path):
    drive = EmulatedDrive()
    points, _ = opened(drive, tmp_path / "scratch")
    points.save(1, state(1), wait=True)
    drive.weather = Weather(lost_share=1.0)
    for step in range(2, 7):
        points.save(step, state(step))
        points._join()
        time.sleep(0.02)
    assert points.stored_step == 1
    drive.machine_lost()
    drive.weather = Weather()
    assert opened(drive, tmp_path / "other")[0].load_latest()[0] == 1


def test_a_hundred_saves_leave_next_to_nothing_in_the_trash(tmp_path):
    drive = EmulatedDrive()
    points, _ = opened(drive, tmp_path / "scratch")
    for step in range(100):
        points.save(step, state(step), best=step % 7 == 0, wait=True)
    kept = sum(map(len, drive.stored.values()))
    assert len(drive.trash) > 150 and sum(map(len, drive.trash)) <= 0.1 * kept


def test_a_full_local_disk_sends_generations_straight_to_drive(tmp_path, monkeypatch):
    drive = EmulatedDrive()
    points, said = opened(drive, tmp_path / "scratch")
    monkeypatch.setattr(points.local, "free_bytes", lambda folder: 1000)
    points.save(1, state(1), wait=True)
    assert (
        stored_steps(drive) == [1]
        and list((tmp_path / "scratch").iterdir()) == []
        and "free on this machine" in said[0]
    )
    assert opened(drive, tmp_path / "other")[0].load_latest()[0] == 1


def test_a_generation_that_is_removed_while_it_is_copied_is_never_committed(tmp_path):
    drive = EmulatedDrive()
    points, _ = opened(drive, tmp_path / "scratch")

    class Slow(Medium):
        def chunks(self, path):
            data = b"".join(Medium.chunks(self, path))
            if path.name == "state.safetensors":
                os.truncate(path, 0)  # as a rotation does
                shutil.rmtree(path.parent)
                data = data[:20]
            yield data

    points.local = Slow()
    points.save(1, state(1))
    points.wait(5)
    assert stored_steps(drive) == []
    points.local = Medium()
    points.save(2, state(2), wait=True)
    assert stored_steps(drive) == [2]


def test_fifty_seasons_of_bad_weather(tmp_path):
    dice = random.Random(5)
    results = [trial(seed, dice, tmp_path / str(seed)) for seed in range(50)]
    assert sum(r.num_faults for r in results) > 500 and sum(r.num_machines for r in results) > 100
    assert [r.lost for r in results if r.lost] == []
    assert sum(r.num_stored for r in results) > 100, "something was acknowledged at all"


# What a folder lies on

MOUNTS = """overlay / overlay rw 0 0
drive /content/drive fuse.drive rw,nosuid 0 0
nas:/export /mnt/my\\040nas nfs4 rw 0 0
/dev/sda1 /data ext4 rw 0 0
lxcfs /proc/meminfo fuse.lxcfs rw 0 0
fuse-overlayfs /containers fuse.fuse-overlayfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "remote", "name"),
    [
        ("/content/drive/MyDrive/colabkit", True, "Google Drive"),
        ("/content/drives", False, ""),
        ("/content", False, ""),
        ("/mnt/my nas/x", True, "the nfs4 mount /mnt/my nas"),
        ("/data/state", False, ""),
        ("/containers/x", False, ""),
    ],
)
def test_what_a_folder_lies_on_is_read_off_the_mounts(tmp_path, path, remote, name):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mounts").write_text(MOUNTS)
    found = medium_of(path, tmp_path)
    assert found.is_remote == remote and (not name or found.name == name)


def test_the_plain_disk_here_is_plain(tmp_path):
    assert not medium_of(tmp_path).is_remote and not medium_of(tmp_path, tmp_path / "no table").is_remote
    assert MountedDrive().is_uploaded(tmp_path), "a medium that cannot tell is believed after reading back"


def test_an_unmounted_drive_is_not_built_anew_on_the_local_disk(tmp_path):
    gone = tmp_path / "content/drive/MyDrive/run/02_train.partial/checkpoints"
    points = Checkpoints(
        gone, medium=MountedDrive(), scratch=tmp_path / "scratch", retry_seconds=QUICKLY, say=lambda line: None
    )
    OPENED.append(points)
    points.save(1, state(1))
    with pytest.raises(StateError):
        points.wait(0.1)
    assert not (tmp_path / "content").exists()


LOOP = """
import sys, torch
from pathlib import Path
from colabkit.training.checkpoints.checkpoints import Checkpoints
from colabkit.runs.medium import MountedDrive
folder = Path(sys.argv[1])
points = Checkpoints(folder / "drive" / "checkpoints", medium=MountedDrive(), scratch=folder / "scratch", \
say=lambda line: None)
found = points.load_latest()
for step in range(found[0] + 1 if found else 0, 10000):
    points.save(step, {"step": step, "w": torch.full((200_000,), float(step))}, best=step % 3 == 0)
    print(step, points.stored_step, flush=True)
"""


def test_kill_9_at_any_instant_leaves_a_whole_generation_in_both_places(tmp_path):
    (tmp_path / "drive").mkdir()
    dice, acknowledged = random.Random(1), -1
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", LOOP, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(dice.randrange(3, 12)):
            step, stored = map(int, process.stdout.readline().split())
        time.sleep(dice.random() * 0.05)
        process.kill()
        rest = process.communicate()[0].splitlines()
        step, stored = map(int, (rest or [f"{step} {stored}"])[-1].split())
        acknowledged = max(acknowledged, stored)
        both, drive_only = (
            Checkpoints(
                tmp_path / "drive/checkpoints", medium=MountedDrive(), scratch=tmp_path / name, say=lambda line: None
            )
            for name in ("scratch", "none")
        )
        found = drive_only.load_latest()
        assert (found[0] if found else -1) >= acknowledged and both.load_latest()[0] >= step - 1
        assert both.load_latest()[1]["w"][0].item() == both.load_latest()[0]
