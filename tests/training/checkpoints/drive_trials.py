"""A trial of checkpoints on a bad Drive: lose machines and kernels at random, see if all that is acknowledged stays."""

from __future__ import annotations

import random
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from colabkit.core.errors import StateError
from colabkit.training.checkpoints.checkpoints import Checkpoints
from tests.runs.emulated_drive import EmulatedDrive, Weather

FOLDER = Path("/content/drive/MyDrive/colabkit/toy/demo/02_train.partial/checkpoints")
QUICKLY = (0.001, 0.002, 0.004, 0.004)


@dataclass
class Result:
    num_saves: int = 0
    num_stored: int = 0  # acknowledged, counted once a step
    num_machines: int = 0
    num_faults: int = 0
    lost: list[str] = field(default_factory=list)


def random_weather(dice: random.Random) -> Weather:
    """Draw how bad a Drive is; one in four trials has every kind of fault at once."""
    every = dice.random() < 0.25

    def sometimes(most: float) -> float:
        return dice.random() * most if every or dice.random() < 0.4 else 0.0

    return Weather(
        fault_share=sometimes(0.2),
        outage_share=sometimes(0.02),
        outage_operations=dice.choice((5, 40, 200)),
        full_share=sometimes(0.2),
        garbled_share=sometimes(0.2),
        lost_share=sometimes(0.2),
        lag_operations=dice.choice((0, 0, 5, 50)),
        stale_share=sometimes(0.5),
    )


def trial(seed: int, dice: random.Random, place: Path) -> Result:
    """Save and resume through several machines; `lost` says what was acknowledged, then not found or found wrong."""
    result, weather = Result(), random_weather(dice)
    drive = EmulatedDrive(weather, seed)
    acknowledged = newest_local = -1
    for machine in range(dice.randrange(2, 6)):
        result.num_machines += 1
        scratch = place / f"machine-{machine}"
        for _ in range(dice.randrange(1, 3)):  # kernels of this machine
            points = Checkpoints(
                FOLDER, medium=drive.of_this_machine(), scratch=scratch, retry_seconds=QUICKLY, say=lambda line: None
            )
            found = _load(points, drive, weather)
            step, state = found or (-1, None)
            if state is not None and (
                state["step"] != step or not torch.equal(state["w"], torch.full((20,), float(step)))
            ):
                result.lost.append(f"seed {seed}: generation {step} holds other data")
            if step < acknowledged:
                result.lost.append(f"seed {seed}: {acknowledged} was acknowledged, {step} is found")
            if step < newest_local:
                result.lost.append(f"seed {seed}: {newest_local} was on this machine, {step} is found")
            for _ in range(dice.randrange(1, 6)):
                step += 1
                points.save(step, {"step": step, "w": torch.full((20,), float(step))}, best=dice.random() < 0.3)
                result.num_saves += 1
                if dice.random() < 0.3:
                    time.sleep(0.003)
            points._join()
            points._publisher.flush(dice.choice((0, 0.01, 0.05)))
            points._publisher.close()
            newest_local = step
            if points.stored_step > acknowledged:
                acknowledged = points.stored_step
                result.num_stored += 1
        drive.machine_lost()
        shutil.rmtree(scratch)
        newest_local = -1
    result.num_faults = drive.num_faults
    return result


def _load(points: Checkpoints, drive: EmulatedDrive, weather: Weather):
    """Load as a user would: where Drive does not answer, run the same again later."""
    while True:
        try:
            return points.load_latest()
        except StateError:
            drive.num_operations += 50  # time passes
            if drive.dice.random() < 0.1:
                drive.weather = Weather(lag_operations=weather.lag_operations)  # and the weather mends
