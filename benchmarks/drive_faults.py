"""Claim: 1,000 trials of saving and resuming on a Drive with faults lose no acknowledged checkpoint.

After 100 saves the trash holds at most 0.1 of the bytes that are kept (kept and trash together at most 1.1x).

    python benchmarks/drive_faults.py [--trials 1000]

A trial trains on up to five machines, each with up to two kernels, on an emulated Drive
(tests/runs/emulated_drive.py): lag, EIO, ENOTCONN, EOPNOTSUPP, ETIMEDOUT, ENOSPC, EDQUOT, outages of up to 200
operations, other bytes read back, uploads cut off, lost or doubled when the machine goes, and listings older than the
last change. The peer saves the way most notebooks do, one file overwritten in place, in the same trials.
"""

from __future__ import annotations

import argparse
import pickle
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from colabkit.training.checkpoints.checkpoints import Checkpoints
from tests.runs.emulated_drive import EmulatedDrive
from tests.training.checkpoints.drive_trials import FOLDER, QUICKLY, random_weather, trial


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    options = parser.parse_args()
    began, dice, results = time.monotonic(), random.Random(0), []
    with tempfile.TemporaryDirectory() as place:
        for seed in range(options.trials):
            results.append(trial(seed, dice, Path(place, str(seed))))
            if (seed + 1) % 100 == 0:
                print(f"{seed + 1} trials, {time.monotonic() - began:.0f} s", flush=True)
        kept, trashed = trash_after_saves(Path(place, "scratch"))
    for line in (line for result in results for line in result.lost):
        print(line)
    lost, peer = sum(len(r.lost) for r in results), sum(peer_loses(seed) for seed in range(options.trials))
    print(
        f"saves {sum(r.num_saves for r in results)}, machines lost {sum(r.num_machines for r in results)}, "
        f"faults {sum(r.num_faults for r in results)}, acknowledged {sum(r.num_stored for r in results)}"
    )
    print(f"one file overwritten in place: nothing to resume from in {peer} of {options.trials} trials")
    print(f"trash after 100 saves: {trashed} bytes beside {kept} kept: {(kept + trashed) / kept:.3f}x")
    print(f"{lost} acknowledged checkpoints lost in {options.trials} trials")
    return 1 if lost or trashed > 0.1 * kept else 0


def trash_after_saves(scratch: Path) -> tuple[int, int]:
    """Save a hundred times on a calm Drive; returns (bytes kept, bytes in the trash)."""
    import torch

    drive = EmulatedDrive()
    points = Checkpoints(FOLDER, medium=drive, scratch=scratch, retry_seconds=QUICKLY, say=lambda line: None)
    for step in range(100):
        points.save(step, {"w": torch.full((25_000,), float(step))}, best=step % 7 == 0, wait=True)
    return sum(map(len, drive.stored.values())), sum(map(len, drive.trash))


def peer_loses(seed: int) -> bool:
    """Overwrite one checkpoint in place through one machine; tell whether the next one finds something that loads."""
    dice = random.Random(seed)
    weather = random_weather(dice)
    weather.stale_share = weather.garbled_share = 0.0
    drive, path = EmulatedDrive(weather, seed), FOLDER / "last.pt"
    drive.folders.add(FOLDER)
    saved = False
    for step in range(dice.randrange(2, 12)):
        try:
            drive.overwrite(path, b"")  # opening for writing cuts the old one off
            drive.overwrite(path, pickle.dumps({"step": step, "w": bytes(100)}))
            saved = True
        except OSError:
            pass  # a loop that goes on after a failed save is the kinder case
    drive.machine_lost()
    try:
        return saved and not pickle.loads(drive.stored.get(path, b""))
    except (EOFError, pickle.UnpicklingError):
        return saved


if __name__ == "__main__":
    sys.exit(main())
