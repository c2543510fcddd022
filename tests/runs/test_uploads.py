"""Tests of colabkit.runs.medium: what Drive has not taken yet is waited for, and told when it stays behind."""

from __future__ import annotations

from pathlib import Path

from colabkit.runs.medium import Medium, wait_for_uploads
from tests.runs.emulated_drive import EmulatedDrive, Weather

FILES = [Path(f"/content/drive/MyDrive/x/{number}.bin") for number in range(3)]


class Slow(EmulatedDrive):
    def is_uploaded(self, path: Path) -> bool:
        self.num_operations += 1  # time passes
        self._go_up()
        return super().is_uploaded(path)


def write_all(drive) -> None:
    for path in FILES:
        drive.write(path, [b"x" * 100])


def test_a_disk_of_this_machine_is_not_waited_for(tmp_path):
    said = []
    assert wait_for_uploads(Medium(), [tmp_path / "nothing"], say=said.append) == [] and said == []


def test_uploads_that_are_on_their_way_are_waited_for():
    drive, said = Slow(Weather(lag_operations=10), seed=1), []
    write_all(drive)
    assert wait_for_uploads(drive, FILES, say=said.append, ask_seconds=0.001) == []
    assert len(said) == 2 and "still taking" in said[0] and "taken everything" in said[1]


def test_uploads_that_never_come_are_told_with_what_to_do():
    drive, said = Slow(Weather(lost_share=1.0)), []
    write_all(drive)
    left = wait_for_uploads(drive, FILES, say=said.append, patience_seconds=0.02, ask_seconds=0.005)
    assert left == FILES and "keep this machine" in said[-1] and "0.bin" in said[-1]
