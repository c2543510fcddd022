"""Training steps of ragged samples in real processes (gloo), in which memory runs out on one rank at a chosen operator.

Every sample has a parameter of its own whose gradient is exactly 1 for each time the sample is in an optimizer step:
what is lost or repeated shows there, however it came about.

Axes: B sample, T frame, C channel, V class.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from colabkit.core.teller import Teller
from colabkit.pipelines.diarization.model.batch_norm import over_all_ranks
from colabkit.training.processes.gradients import broadcast_parameters, reduce_gradients
from colabkit.training.processes.ranks import Ranks
from colabkit.training.sizing.guard import Guard
from colabkit.training.sizing.partition import cut

NUM_SAMPLES, BATCH_SAMPLES, NUM_CHANNELS, NUM_CLASSES = 96, 16, 8, 6
FRAME_SECONDS = 0.25
CAPACITY_SECONDS = 40.0  # of padded sound at once
FORGET_EVERY_STEPS = 8  # what was learnt, so that steps have few large parts as well as many small ones


@dataclass(frozen=True)
class Trial:
    """`kind`: "frame" and "ctc" losses over ragged samples, "norm" with batch norms over all ranks and equal lengths.

    `limits`: those of each step, to do the steps of another trial again undisturbed. `budget_bytes`: emulated memory of
    the last rank.
    """

    kind: str
    num_steps: int
    dropout: float = 0.1
    has_faults: bool = True
    limits: tuple[dict[int, int], ...] | None = None
    budget_bytes: int | None = None
    seed: int = 0
    world: int = 2


@dataclass
class Told:
    """What one rank has to tell at the end."""

    weights: dict[str, np.ndarray] = field(default_factory=dict)
    limits: list[dict[int, int]] = field(default_factory=list)
    counts: Counter = field(default_factory=Counter)
    losses: list[float] = field(default_factory=list)
    places: Counter = field(default_factory=Counter)

    def digest(self) -> str:
        return hashlib.sha256(b"".join(w.tobytes() for w in self.weights.values())).hexdigest()


class Samples:
    """Made from a seed: features (T, C) of each, a class a frame, a short text."""

    def __init__(self, seed: int, *, ragged: bool):
        made = np.random.default_rng(seed)
        lengths = made.integers(12, 80, NUM_SAMPLES) if ragged else np.full(NUM_SAMPLES, 40)
        self.features = [torch.from_numpy(made.standard_normal((n, NUM_CHANNELS)).astype(np.float32)) for n in lengths]
        self.classes = [torch.from_numpy(made.integers(1, NUM_CLASSES, n)) for n in lengths]
        self.texts = [torch.from_numpy(made.integers(1, NUM_CLASSES, 5)) for _ in lengths]
        self.seconds = [float(n) * FRAME_SECONDS for n in lengths]

    def batch(self, step: int) -> list[int]:
        """Return the samples of a step of all ranks: every sample once an epoch."""
        epoch, place = divmod(step, NUM_SAMPLES // BATCH_SAMPLES)
        order = np.random.default_rng([7, epoch]).permutation(NUM_SAMPLES)
        return order[place * BATCH_SAMPLES : (place + 1) * BATCH_SAMPLES].tolist()


class Network(nn.Module):
    """Two convolutions over frames; `marks_N` notes which samples a gradient is of."""

    def __init__(self, dropout: float, *, has_norm: bool):
        super().__init__()
        norm = nn.BatchNorm1d(32) if has_norm else nn.Identity()
        self.body = nn.Sequential(
            nn.Conv1d(NUM_CHANNELS, 32, 3, padding=1),
            norm,
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Conv1d(32, NUM_CLASSES, 1),
        )
        self.marks_N = nn.Parameter(torch.zeros(NUM_SAMPLES))

    def forward(self, features_BTC: torch.Tensor, numbers: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return log probabilities (B, T, V), and zero with the marks of the samples in its gradient."""
        logits_BVT = self.body(features_BTC.transpose(1, 2))
        return logits_BVT.transpose(1, 2).log_softmax(-1), self.marks_N[numbers].sum()


def targets(kind: str, samples: Samples, numbers: list[int]) -> tuple[torch.Tensor, ...]:
    """Return classes (B, T), or texts with the lengths of features and texts."""
    if kind == "ctc":
        texts = nn.utils.rnn.pad_sequence([samples.texts[i] for i in numbers], batch_first=True)
        return texts, *(torch.tensor([len(x[i]) for i in numbers]) for x in (samples.features, samples.texts))
    return (nn.utils.rnn.pad_sequence([samples.classes[i] for i in numbers], batch_first=True, padding_value=-100),)


def summed_loss(kind: str, log_probs_BTV: torch.Tensor, target: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Return the loss summed over what it is normalised by: frames, or letters."""
    if kind == "ctc":
        return F.ctc_loss(log_probs_BTV.transpose(0, 1), *target, reduction="sum")
    return F.nll_loss(log_probs_BTV.flatten(0, 1), target[0].flatten(), reduction="sum")


def num_units(kind: str, samples: Samples, numbers: list[int]) -> int:
    return sum(len(samples.texts[i] if kind == "ctc" else samples.classes[i]) for i in numbers)


def pad(samples: Samples, numbers: list[int]) -> torch.Tensor:
    return nn.utils.rnn.pad_sequence([samples.features[i] for i in numbers], batch_first=True)


class Fault(TorchDispatchMode):
    """Raises as CUDA does at one operator of the forward or backward pass of one part, once."""

    def __init__(self):
        super().__init__()
        self.phase, self.part, self.count = "", -1, Counter()
        self.fewest: dict[str, int] = {}  # operators of a part, by phase
        self.at: tuple[int, str, int] | None = None  # part, phase, number of the operator in it

    def begin(self, phase: str) -> None:
        self.part += phase == "forward"
        if self.phase:
            self.fewest[self.phase] = min(self.count[self.phase], self.fewest.get(self.phase, self.count[self.phase]))
        self.phase, self.count[phase] = phase, 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        if self.phase:
            self.count[self.phase] += 1
            if self.at == (self.part, self.phase, self.count[self.phase]):
                self.at = None
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return operator(*args, **(kwargs or {}))


class Worker:
    """One rank of a trial."""

    def __init__(self, trial: Trial, ranks: Ranks):
        self.trial, self.ranks, self.told = trial, ranks, Told()
        self.samples = Samples(trial.seed, ragged=trial.kind != "norm")
        random.seed(trial.seed)
        np.random.seed(trial.seed)
        torch.manual_seed(trial.seed + ranks.rank)  # made equal by the broadcast, and not by luck
        self.network = Network(trial.dropout, has_norm=trial.kind == "norm")
        agree = None
        if trial.kind == "norm":
            agree = over_all_ranks(self.network, ranks, torch.device("cpu")).agree
        broadcast_parameters(self.network, ranks)
        self.weights = list(self.network.body.parameters())
        self.optimizer = torch.optim.AdamW(self.weights, lr=1e-2)
        self.guard = Guard(
            lambda seconds: int(CAPACITY_SECONDS / seconds),
            ranks=ranks,
            teller=Teller(say=lambda line: None),
            buffers_of=[self.network],
            agree=agree,
        )
        self.fault, self.done_again, self._began = Fault(), 0, 0
        self.operators: dict[str, int] = {}  # of one part, by phase
        self.meter = self._meter()

    def _meter(self):
        if self.trial.budget_bytes is None or self.ranks.rank != self.ranks.world - 1:
            return None
        from colabkit.training.sizing.tracing.accounting import Meter

        meter = Meter(budget_bytes=self.trial.budget_bytes)
        meter.hold(self.network.parameters())
        return meter

    def work(self) -> Told:
        for step in range(self.trial.num_steps):
            self._step(step)
        self.told.weights = {name: tensor.numpy().copy() for name, tensor in self.network.body.state_dict().items()}
        self.told.counts |= self.guard.events
        return self.told

    def _step(self, step: int) -> None:
        trial, batch = self.trial, self.samples.batch(step)
        mine = batch[self.ranks.rank :: self.ranks.world]
        units = num_units(trial.kind, self.samples, batch)
        if trial.limits is not None:
            self.guard.limits = dict(trial.limits[step])
        elif step % FORGET_EVERY_STEPS == 0:
            self.guard.limits = {}
        seconds = [self.samples.seconds[i] for i in mine]
        if trial.has_faults and self.operators:
            self._place_fault(step, seconds)
        loss_sum = [0.0]

        def work(places: list[int]) -> None:
            numbers = [mine[place] for place in places]
            self._began += len(numbers)
            features_BTC, target = pad(self.samples, numbers), targets(trial.kind, self.samples, numbers)
            self.fault.begin("forward")
            random.random(), np.random.random()  # generators that are put back, too
            log_probs_BTV, marks = self.network(features_BTC, numbers)
            loss = summed_loss(trial.kind, log_probs_BTV, target) / units + marks
            self.fault.begin("backward")
            loss.backward()
            loss_sum[0] += float(loss.detach())

        def reset() -> None:
            self.network.zero_grad(set_to_none=True)
            loss_sum[0] = 0.0
            self.done_again += self._began
            self._began, self.fault.part = 0, -1

        self.fault.part, self._began = -1, 0
        with self.meter or self.fault:
            self.guard.step(seconds, work, reset)
        self.fault.begin("")
        self.operators = self.operators or dict(self.fault.fewest)
        reduce_gradients(self.network.parameters(), self.ranks)
        self._audit(batch)
        self.optimizer.step()
        self.network.zero_grad(set_to_none=True)
        self.told.limits.append(dict(self.guard.limits))
        self.told.losses.append(loss_sum[0])
        self.told.counts["done_again"] = self.done_again
        self.told.counts["random"] = (
            int(1e9 * (random.random() + np.random.random())) if step == trial.num_steps - 1 else 0
        )

    def _place_fault(self, step: int, seconds: list[float]) -> None:
        """Choose rank, part, pass and operator, the same on all ranks."""
        drawn = np.random.default_rng([self.trial.seed, step])
        rank, phase, share = (
            int(drawn.integers(self.ranks.world)),
            str(drawn.choice(["forward", "backward"])),
            drawn.random(2),
        )
        if rank == self.ranks.rank:
            num_parts = len(cut(seconds, self.guard.limit))
            self.fault.at = int(share[0] * num_parts), phase, 1 + int(share[1] * self.operators[phase])
            self.told.places[phase] += 1
        self.told.counts["injected"] += 1

    def _audit(self, batch: list[int]) -> None:
        """Count samples of this optimizer step by the marks in the summed gradient."""
        times = self.network.marks_N.grad.tolist()
        expected = Counter(batch)
        self.told.counts["lost"] += sum(times[i] < expected[i] for i in range(NUM_SAMPLES))
        self.told.counts["repeated"] += sum(times[i] > expected[i] for i in range(NUM_SAMPLES))
        self.told.counts["samples"] += len(batch)


def carry_out(ranks: Ranks, trial: Trial) -> Told:
    """Do a trial, as one of its ranks."""
    return Worker(trial, ranks).work()
