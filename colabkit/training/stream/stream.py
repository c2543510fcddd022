"""A stream of batches with a state under 1 KB, which continues with exactly the next sample.

    plan = BatchPlan(index.seconds, Budget(padded_seconds=600), seed=0)
    stream = Stream([Source("speech", index.fingerprint, plan)], seed=0)
    for loaded in stream.load(read, workers=2):
        ...                                  # forward, backward, optimizer.step()
        stream.acknowledge(loaded)           # only now has the stream moved on
        checkpoints.save(step, {"stream": stream.state(), ...})

Which samples come when depends on the sources and the seed alone: not on workers, ranks, what was prefetched, or how
often the run was stopped. A sample that stays broken is quarantined: left out, counted, and recorded in the state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from colabkit.core.config import digest
from colabkit.core.errors import BrokenSampleError, ChangedError, DataError, UsageError
from colabkit.core.prefetch import Kind, prefetch
from colabkit.training.stream.mixture import Mixture, Schedule

VERSION = 1
MAX_QUARANTINED = 64  # beyond it the source is at fault, not a sample


class Order(Protocol):
    """What SampleOrder and BatchPlan are: batches of sample numbers, addressed by epoch and number."""

    def __len__(self) -> int: ...
    def batch(self, epoch: int, k: int) -> np.ndarray: ...
    def identity(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Source:
    """One source of samples: its name for people, the fingerprint of its index, and its order."""

    name: str
    fingerprint: str
    order: Order


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """Batch `number` of the stream. Shapes: samples (sample,) int64, numbers in the source's index."""

    number: int
    source: str
    epoch: int
    samples: np.ndarray


@dataclass(frozen=True, slots=True)
class Loaded:
    """This rank's part of an item: (sample number, value) pairs, and (sample number, reason) of the broken ones."""

    item: Item
    samples: list[tuple[int, Any]]
    broken: list[tuple[int, str]] = field(default_factory=list)

    @property
    def values(self) -> list[Any]:
        return [value for _, value in self.samples]


class Stream:
    """The sequence of batches of one source, or of several mixed by weight.

    `epochs=None` never ends. One source ends after `epochs`; a mixture has no epochs of its own. `schedule` gives
    weights, or (first batch, weights) pairs for a curriculum. Raises: UsageError for settings that do not fit together.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        seed: int,
        epochs: int | None = None,
        schedule: Schedule | Sequence[float] | None = None,
        problem: Callable[[str, str], None] | None = None,
        max_quarantined: int = MAX_QUARANTINED,
    ):
        self.sources, self.seed, self.problem, self.max_quarantined = tuple(sources), seed, problem, max_quarantined
        if not sources or len({s.name for s in sources}) < len(sources):
            raise UsageError(
                "Cannot stream",
                got=[s.name for s in sources],
                expected="one source or more, each named once",
                fix="name each source once; its share is its weight",
            )
        if schedule is not None and len(sources) == 1:
            raise UsageError(
                "One source has no shares",
                got=f"weights {schedule}",
                expected="none",
                fix="leave the weights out, or name a second source",
            )
        self.mixture = None
        if len(sources) > 1:
            if epochs is not None:
                raise UsageError(
                    "A mixture of sources has no epochs of its own",
                    got=f"epochs={epochs}",
                    expected="None",
                    fix="say how many steps to train instead",
                )
            schedule = schedule or [1.0] * len(sources)
            if not isinstance(schedule[0], (tuple, list)):
                schedule = [(0, schedule)]
            self.mixture = Mixture(len(sources), schedule, seed=seed)
        self.num_items = math.inf if epochs is None else epochs * len(sources[0].order)
        self._items = _Items(self.sources, self.mixture)
        self.position = 0
        self.quarantined: dict[str, dict[int, str]] = {s.name: {} for s in sources}

    @property
    def name(self) -> str:
        return " + ".join(s.name for s in self.sources)

    @cached_property
    def fingerprint(self) -> str:
        """Return what tells this data and order apart from any other."""
        return digest([[s.name, s.fingerprint] for s in self.sources])[:16]

    @cached_property
    def plan(self) -> str:
        mixture = self.mixture.identity() if self.mixture else ""
        return digest([[s.order.identity() for s in self.sources], mixture])[:16]

    def item(self, number: int) -> Item:
        """Return batch `number` of the stream, wherever the stream stands."""
        if not 0 <= number < self.num_items:
            raise IndexError(f"batch {number} of a stream of {self.num_items}")
        return self._items(number)

    def load(
        self,
        read: Callable[[str, int], Any],
        *,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        kind: Kind = "threads",
        ahead: int | None = None,
        max_bytes: float | None = None,
        num_bytes: Callable[[str, int], float] | None = None,
        stop: int | None = None,
    ) -> Iterator[Loaded]:
        """Yield this rank's part of each batch from the position on, made ahead by `workers`.

        Rank r takes every world-th sample of the same batch. `read(source name, sample number)` returns a sample; with
        processes it must pickle. `num_bytes(source name, sample number)` tells a sample's size before it is read.
        """
        if not 0 <= rank < world:
            raise UsageError(
                "Cannot share a stream among ranks",
                got=f"rank {rank} of {world}",
                expected="0 <= rank < world",
                where=self.name,
                fix="start every rank with its own number and the same world size",
            )
        known = {name: frozenset(samples) for name, samples in self.quarantined.items()}
        maker = _Maker(self._items, read, rank, world, known)

        def size_of(k: int) -> float:
            item = self.item(k)
            return sum(num_bytes(item.source, int(s)) for s in item.samples[rank::world])

        end = self.num_items if stop is None else min(stop, self.num_items)
        made = prefetch(
            maker,
            self.position,
            None if math.isinf(end) else int(end),
            workers=workers,
            kind=kind,
            ahead=ahead,
            max_bytes=max_bytes,
            num_bytes=size_of if num_bytes else None,
        )
        return self._without_quarantined(made)

    def _without_quarantined(self, made: Iterator[Loaded]) -> Iterator[Loaded]:
        """Leave out what was quarantined since loading began: a run stopped meanwhile would not read it either."""
        with closing(made):
            for loaded in made:
                known = self.quarantined[loaded.item.source]
                yield replace(
                    loaded,
                    samples=[pair for pair in loaded.samples if pair[0] not in known],
                    broken=[pair for pair in loaded.broken if pair[0] not in known],
                )
                loaded = None  # the caller's alone, or it would be held while the next is waited for

    def acknowledge(self, loaded: Loaded, broken: Sequence[tuple[int, str]] | None = None) -> None:
        """Move on past a batch, when the optimizer step that used it is done.

        With several ranks, `broken` holds the broken samples of all of them. Raises: UsageError when a batch is left
        out or comes twice; DataError when more samples are broken than `max_quarantined`.
        """
        item = loaded.item
        if item.number != self.position:
            raise UsageError(
                "Batches must be acknowledged in order",
                got=f"batch {item.number}",
                expected=f"batch {self.position}",
                where=self.name,
                fix="acknowledge every batch once, after the step that used it",
            )
        self.quarantine(loaded, broken)
        self.position += 1

    def quarantine(self, loaded: Loaded, broken: Sequence[tuple[int, str]] | None = None) -> None:
        """Leave out a batch's broken samples from now on, and tell of each once.

        Raises as `acknowledge` when they are many.
        """
        known = self.quarantined[loaded.item.source]
        for sample, reason in loaded.broken if broken is None else broken:
            if sample not in known:
                known[sample] = reason
                if self.problem is not None:
                    self.problem(f"{loaded.item.source}, sample {sample}", reason)
        if self.num_quarantined > self.max_quarantined:
            reasons = [reason for samples in self.quarantined.values() for reason in samples.values()]
            raise DataError(
                "Too many samples are broken",
                got=f"{self.num_quarantined}, the last: {reasons[-1]}",
                expected=f"at most {self.max_quarantined}",
                where=self.name,
                fix="repair the source or choose another; the report lists what is broken",
            )

    @property
    def num_quarantined(self) -> int:
        return sum(map(len, self.quarantined.values()))

    @property
    def epoch(self) -> int:
        return 0 if self.mixture else self.position // len(self.sources[0].order)

    def state(self) -> dict[str, Any]:
        """Return where the stream stands; JSON of under 1 KB unless names are long or dozens of samples broken."""
        length = len(self.sources[0].order)
        consumed = self.position if self.mixture else self.position % length
        return {
            "version": VERSION,
            "dataset": self.name,
            "fingerprint": self.fingerprint,
            "plan": self.plan,
            "seed": self.seed,
            "epoch": self.epoch,
            "consumed": consumed,
            "quarantined": {name: sorted(samples) for name, samples in self.quarantined.items() if samples},
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue where a state says. Raises: ChangedError when it belongs to other data, another order or version."""
        for name, ours, what, fix in (
            ("version", VERSION, "another version of colabkit", "continue with that version, or start a new run"),
            (
                "fingerprint",
                self.fingerprint,
                "other data",
                "point the run at the data it began with, or start a new run",
            ),
            ("plan", self.plan, "another order of batches", "take back the changed settings, or start a new run"),
        ):
            if state.get(name) != ours:
                raise ChangedError(
                    f"This state belongs to {what}",
                    got=f"{state.get('dataset')} ({name} {state.get(name)})",
                    expected=f"{self.name} ({name} {ours})",
                    where="the checkpoint's stream state",
                    fix=fix,
                )
        self.position = (
            state["consumed"] if self.mixture else state["epoch"] * len(self.sources[0].order) + state["consumed"]
        )
        self.quarantined = {
            s.name: dict.fromkeys(state["quarantined"].get(s.name, ()), "quarantined earlier") for s in self.sources
        }


@dataclass(frozen=True)
class _Items:
    """What it takes to name a batch; goes to worker processes."""

    sources: tuple[Source, ...]
    mixture: Mixture | None

    def __call__(self, number: int) -> Item:
        which, ordinal = self.mixture.pick(number) if self.mixture else (0, number)
        source = self.sources[which]
        epoch, k = divmod(ordinal, len(source.order))
        return Item(number, source.name, epoch, source.order.batch(epoch, k))


@dataclass(frozen=True)
class _Maker:
    """Reads one rank's part of a batch."""

    item: Callable[[int], Item]
    read: Callable[[str, int], Any]
    rank: int
    world: int
    quarantined: dict[str, frozenset[int]]

    def __call__(self, number: int) -> Loaded:
        loaded = Loaded(self.item(number), [])
        item = loaded.item
        # Cut first: ranks may not all know the same samples as broken, and must agree on whose each one is.
        for sample in item.samples[self.rank :: self.world].tolist():
            if sample in self.quarantined[item.source]:
                continue
            try:
                loaded.samples.append((sample, self.read(item.source, sample)))
            except BrokenSampleError as error:
                loaded.broken.append((sample, f"{error.what}: {error.where}" if error.where else error.what))
        return loaded
