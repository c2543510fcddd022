"""Claim: memory that runs out on one of two ranks costs no hang, no restart, and no sample lost or repeated.

It runs out 200 times, anywhere in forward or backward; the weights are those of training that nothing disturbed.

    python benchmarks/sizing_guard.py [--injections 200]

Two real processes (gloo) train small networks on samples of ragged lengths: a frame loss and a CTC loss, with AdamW and
dropout, and one with batch norms over all ranks, whose forward and backward passes communicate. An operator of a random
part on a random rank raises torch.OutOfMemoryError. Each sample has a parameter whose summed gradient counts how often
it is in an optimizer step. Then the steps are done again undisturbed in parts of the same sizes, and the weights
compared bit by bit; then in parts as large as at first. In an emulated budget of memory, kept by accounting what
tensors hold, it runs out by itself. The peer is accelerate's find_executable_batch_size around the training function:
alone, and in two processes.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from colabkit.core.table import Table  # noqa: E402
from colabkit.training.processes.gradients import reduce_gradients  # noqa: E402
from colabkit.training.processes.ranks import Ranks  # noqa: E402
from tests.training.processes.gloo_processes import Processes  # noqa: E402
from tests.training.sizing.guard_trials import (  # noqa: E402
    BATCH_SAMPLES,
    Fault,
    Network,
    Samples,
    Told,
    Trial,
    carry_out,
    num_units,
    pad,
    summed_loss,
    targets,
)

SHARES = {"frame": 0.35, "ctc": 0.3, "norm": 0.35}
PEER_STEPS, PEER_BATCH = 30, 8
HANG_SECONDS = 30.0  # nothing in these trainings takes as long


def disturbed(kind: str, injections: int) -> tuple[list, dict[str, int]]:
    """Return a table row and the counts of one kind of training, and of its repetitions."""
    trial = Trial(kind=kind, num_steps=injections + 1, dropout=0.0 if kind == "ctc" else 0.1)
    with Processes() as two:
        try:
            began = time.perf_counter()
            told = two.call(carry_out, trial, timeout_seconds=HANG_SECONDS + 2.0 * injections)
            seconds = time.perf_counter() - began
        except TimeoutError:
            return [kind, injections, 1, *["?"] * 6], {"injected": injections, "hangs": 1}
        errors = [answer for answer in told if isinstance(answer, Exception)]
        if errors:
            raise errors[0]
        same_parts = two.call(
            carry_out, replace(trial, has_faults=False, limits=tuple(told[0].limits)), timeout_seconds=600
        )[0]
        large_parts = two.call(carry_out, replace(trial, has_faults=False), timeout_seconds=600)[0]
    counts = {name: max(one.counts[name] for one in told) for name in ("lost", "repeated", "injected")}
    counts |= {
        "hangs": 0,
        "again": sum(one.counts["done_again"] for one in told),
        "differ": int(len({one.digest() for one in (*told, same_parts)}) > 1),
    }
    met = min(one.counts["out_of_memory"] for one in told)
    assert met == counts["injected"] == injections, "every fault was met, and by both"
    places = told[0].places + told[1].places
    # Dropout and batch statistics depend on how samples are parted; without them only rounding does.
    far = distance(told[0], large_parts) if kind == "ctc" else None
    row = [
        kind,
        injections,
        f"{places['forward']} / {places['backward']}",
        0,
        counts["lost"],
        counts["repeated"],
        "no" if counts["differ"] else "yes",
        "" if far is None else f"{far:.1e}",
        f"{counts['again'] / injections:.1f}",
        f"{1e3 * seconds / (injections + 1):.0f}",
    ]
    return row, counts


def distance(a: Told, b: Told) -> float:
    """Return the relative distance of two trainings' weights."""
    flat = [np.concatenate([w.ravel() for w in told.weights.values()]).astype(float) for told in (a, b)]
    return float(np.linalg.norm(flat[0] - flat[1]) / np.linalg.norm(flat[1]))


def emulated(num_steps: int) -> dict[str, int]:
    """Train where the second rank has less memory than was expected; returns how often it ran out, and the audit."""
    trial = Trial(kind="frame", num_steps=num_steps, has_faults=False, budget_bytes=70 << 10)
    with Processes() as two:
        told = two.call(carry_out, trial, timeout_seconds=HANG_SECONDS + 2.0 * num_steps)
    for one in told:
        if isinstance(one, Exception):
            raise one
    return {name: max(one.counts[name] for one in told) for name in ("out_of_memory", "lost", "repeated")} | {
        "differ": int(told[0].digest() != told[1].digest())
    }


# --- the peer ---


@dataclass
class Peer:
    """What became of a training function in find_executable_batch_size."""

    survived: int = 0
    repeated: int = 0  # samples of optimizer steps that were done, and are done again
    finished: bool = False
    gave_up: str = ""


def with_accelerate(ranks: Ranks, seed: int) -> Peer:
    """Train with the decorator around the whole, as is documented; one fault in each attempt, at a random step."""
    from accelerate.utils import find_executable_batch_size

    samples, peer, drawn = Samples(0, ragged=True), Peer(), np.random.default_rng(seed)

    @find_executable_batch_size(starting_batch_size=PEER_BATCH)
    def train(batch_size: int) -> None:
        torch.manual_seed(0)
        network, fault = Network(0.1, has_norm=False), Fault()
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
        bad_step, bad_rank = int(drawn.integers(1, PEER_STEPS)), int(drawn.integers(ranks.world))
        for step in range(PEER_STEPS):
            batch = samples.batch(step)
            mine, units = batch[ranks.rank :: ranks.world], num_units("frame", samples, batch)
            if step == bad_step and ranks.rank == bad_rank:
                fault.part, fault.at = -1, (0, "forward", 5)
                peer.repeated += step * BATCH_SAMPLES
                peer.survived += 1
            with fault:
                for first in range(0, len(mine), batch_size):
                    numbers = mine[first : first + batch_size]
                    features, target = pad(samples, numbers), targets("frame", samples, numbers)
                    fault.begin("forward")
                    log_probs, marks = network(features, numbers)
                    loss = summed_loss("frame", log_probs, target) / units + marks
                    fault.begin("backward")
                    loss.backward()
            fault.begin("")
            reduce_gradients(network.parameters(), ranks)
            optimizer.step()
            optimizer.zero_grad()

    try:
        train()
        peer.finished = True
    except RuntimeError as error:
        peer.gave_up = str(error).splitlines()[0]
    return peer


def in_two_processes(seeds: range) -> tuple[int, int]:
    """Return how many of so many trainings hang or end in an error, and how many there were."""
    broken = 0
    for seed in seeds:
        with Processes() as two:
            try:
                broken += any(
                    isinstance(p, Exception) or not p.finished
                    for p in two.call(with_accelerate, seed, timeout_seconds=HANG_SECONDS)
                )
            except TimeoutError:
                broken += 1
    return broken, len(seeds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--injections", type=int, default=200)
    parser.add_argument("--peer-trainings", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = list(SHARES)
    numbers = [round(options.injections * SHARES[name]) for name in names[:-1]]
    numbers.append(options.injections - sum(numbers))
    rows, totals = [], {"injected": 0, "hangs": 0, "lost": 0, "repeated": 0, "again": 0, "differ": 0}
    for name, number in zip(names, numbers, strict=True):
        row, counts = disturbed(name, number)
        rows.append(row)
        totals = {key: value + counts.get(key, 0) for key, value in totals.items()}
    print(
        Table(
            [
                "training",
                "faults",
                "forward / backward",
                "hangs",
                "lost",
                "repeated",
                "bits as undisturbed",
                "from large parts",
                "done again",
                "ms a step",
            ],
            rows,
        )
    )
    print(
        f"in all: {totals['injected']} faults, {totals['hangs']} hangs, {totals['lost']} samples lost, "
        f"{totals['repeated']} repeated; {totals['again'] / totals['injected']:.0f} samples computed again a fault"
    )
    budget = emulated(60)
    print(
        f"in an emulated budget memory ran out {budget['out_of_memory']} times in 60 steps: "
        f"{budget['lost']} samples lost, {budget['repeated']} repeated, "
        f"ranks differ: {'yes' if budget['differ'] else 'no'}"
    )
    alone = [with_accelerate(Ranks(), seed) for seed in range(5)]
    met, repeated = sum(p.survived for p in alone), sum(p.repeated for p in alone)
    print(
        f"find_executable_batch_size alone: met {met} faults in 5 trainings, {sum(p.finished for p in alone)} finished "
        f"({alone[0].gave_up}); {repeated / met:.0f} samples repeated a fault"
    )
    broken, tried = in_two_processes(range(options.peer_trainings))
    print(
        f"find_executable_batch_size in two processes: {broken} of {tried} trainings hang or fail at their first fault"
    )
    good = not any(totals[key] for key in ("hangs", "lost", "repeated", "differ"))
    ratio = (repeated / met) / (totals["again"] / totals["injected"])
    print(
        f"ratio: {ratio:.0f}x fewer samples done again each time memory runs out than with find_executable_batch_size"
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
