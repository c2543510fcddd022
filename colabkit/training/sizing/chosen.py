"""Sizing, as it was chosen: how many samples of which length go through at once, in which regime, and why."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from colabkit.core.table import Table
from colabkit.training.sizing.devices import GIB, Device
from colabkit.training.sizing.memory_model import MOST_SAMPLES, MemoryModel
from colabkit.training.sizing.workload import Regime

Choice = tuple[str, Any, str]  # name, value, reason
# Seconds of audio in a pass at which half of its time is what a pass costs however small it is. Starting some hundred
# kernels a layer takes about as long as a GPU computes on 10 to 50 s of speech, whatever the depth. An estimate, until
# steps are timed.
HALF_SPEED_SECONDS = {"cuda": 20.0, "cpu": 0.5}
# What a step is cut by: of a GPU's the lower end. Padding of read speech then stays below 2% in sets of a few hours,
# too, and an epoch takes no more time than in the fewest parts even where a pass costs 50 s.
PASS_SECONDS = {"cuda": 10.0, "cpu": 0.5}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """Samples of similar length: `num_samples` padded to the longest go through at once and fill so much of the limit.

    `num_seen`: samples of this length among those that were looked at.
    """

    longest_seconds: float
    num_samples: int
    num_seen: int
    predicted_bytes: float
    fill: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A real step: what the device held at its peak beside the context, and its duration; None where memory ran out."""

    num_samples: int
    seconds: float
    peak_bytes: float | None
    taken_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizing:
    """Batch sizes for one workload on one device. `capacity(seconds)` is what training asks for.

    `effective_batch`: samples of an optimizer step; None where it is said as `effective_seconds` of audio with padding.
    `knee_seconds`: audio of a pass from which on more at once gains less than 5%; None where it was not measured.
    `confirmed`: real steps have shown it.
    """

    workload: str
    identity: str
    regime: Regime
    model: MemoryModel
    device: Device
    safety_margin: float
    effective_batch: int | None
    effective_seconds: float | None = None
    most: int | None = None
    knee_seconds: float | None = None
    buckets: tuple[Bucket, ...] = ()
    choices: tuple[Choice, ...] = ()
    measured: tuple[Measured, ...] = ()
    confirmed: bool = False
    num_probes: int = 0

    @property
    def limit_bytes(self) -> float:
        """Return what training may hold of the device, the context included."""
        return self.safety_margin * self.device.usable_bytes

    @property
    def pass_seconds(self) -> float:
        """Return the seconds of padding that one part more must save to be worth it."""
        return PASS_SECONDS[self.device.kind]

    def step_samples(self, seconds: float) -> int:
        """Return how many samples padded to `seconds` an optimizer step has, at most where it is said in seconds."""
        if self.effective_seconds is None:
            return self.effective_batch
        return max(1, int(self.effective_seconds / seconds + 1e-9))

    def share(self, seconds: float) -> int:
        """Return how many of these fall to one process, which may have one more than another."""
        return -(-self.step_samples(seconds) // self.regime.world)

    def fits(self, seconds: float) -> int:
        """Return how many samples padded to `seconds` memory allows at once, whether or not that is of use."""
        return self.model.capacity(seconds, self.limit_bytes, most=MOST_SAMPLES)

    def capacity(self, seconds: float) -> int:
        """Return how many samples padded to `seconds` go through at once: never more for longer ones."""
        found = self.fits(seconds)
        if self.most is not None:
            found = min(found, self.most)
        if self.effective_seconds is not None:
            found = min(found, self.share(seconds))
        if self.knee_seconds is not None:
            found = min(found, max(1, math.ceil(self.knee_seconds / seconds)))
        return found

    def parts(self, seconds: float, num_samples: int | None = None) -> list[int]:
        """Return how a step's samples of this length (by default a process's share) are cut: sizes that sum to it."""
        count = self.share(seconds) if num_samples is None else num_samples
        num_parts = -(-count // max(1, self.capacity(seconds)))
        return [count // num_parts + (part < count % num_parts) for part in range(num_parts)]

    def accumulation(self, seconds: float) -> int:
        """Return how many passes an optimizer step takes with samples of this length."""
        return len(self.parts(seconds))

    def even_batch(self, seconds: float) -> tuple[int, int]:
        """Return (samples at once, accumulation) whose product is a process's share exactly, for TrainingArguments.

        Of an effective batch in seconds, it is the share that is as large in all processes without going beyond.
        """
        share, capacity = self.share(seconds), self.capacity(seconds)
        if self.effective_seconds is not None:
            share = max(1, self.step_samples(seconds) // self.regime.world)
        at_once = max((d for d in range(1, share + 1) if share % d == 0 and d <= capacity), default=1)
        return at_once, share // at_once

    def bytes(self, num_samples: int, seconds: float) -> float:
        """Return what the device is predicted to hold, the context included."""
        return self.model.device_bytes(num_samples, seconds)

    def table(self) -> Table:
        """Return a row for each bucket."""
        rows = [
            [
                f"{b.longest_seconds:.1f}",
                b.num_seen,
                b.num_samples,
                self.accumulation(b.longest_seconds),
                f"{b.predicted_bytes / GIB:.2f}",
                f"{b.fill:.0%}",
            ]
            for b in self.buckets
        ]
        title = (
            f"{self.workload} on {self.device.describe()}: {self.regime.describe()}; "
            f"limit {self.limit_bytes / GIB:.2f} GiB"
        )
        columns = ["up to seconds", "of the samples", "at once", "parts a step", "predicted GiB", "of the limit"]
        return Table(columns, rows, title)

    def figure_data(self, num_points: int = 100) -> dict[str, Any]:
        """Return what a plot of memory over length shows, in bytes: predicted for the chosen batch, measured, limit."""
        longest = self.buckets[-1].longest_seconds if self.buckets else 30.0
        shortest = min(self.buckets[0].longest_seconds if self.buckets else 1.0, longest)
        step = (longest - shortest) / max(1, num_points - 1)
        seconds = [shortest + step * i for i in range(num_points)] if longest > shortest else [longest]
        at_once = [self.capacity(s) for s in seconds]
        shown = [m for m in self.measured if m.peak_bytes is not None]
        return {
            "seconds": seconds,
            "at_once": at_once,
            "limit_bytes": self.limit_bytes,
            "usable_bytes": self.device.usable_bytes,
            "predicted_bytes": [self.bytes(n, s) for n, s in zip(at_once, seconds, strict=True)],
            "measured": [
                {"seconds": m.seconds, "num_samples": m.num_samples, "bytes": m.peak_bytes + self.device.context_bytes}
                for m in shown
            ],
        }

    def with_model(self, model: MemoryModel, **changes: Any) -> Sizing:
        """Return the sizing by another memory model (or knee), its buckets sized anew."""
        changed = replace(self, model=model, **changes)
        lengths = [(b.longest_seconds, b.num_seen) for b in self.buckets]
        return replace(changed, buckets=tuple(changed.bucket(longest, count) for longest, count in lengths))

    def bucket(self, longest_seconds: float, num_seen: int) -> Bucket:
        """Return the bucket of samples up to this length."""
        at_once = self.capacity(longest_seconds)
        predicted = self.bytes(at_once, longest_seconds)
        return Bucket(
            longest_seconds=longest_seconds,
            num_samples=at_once,
            num_seen=num_seen,
            predicted_bytes=predicted,
            fill=predicted / self.limit_bytes,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            **{name: getattr(self, name) for name in (*_PLAIN, "effective_seconds")},
            "regime": asdict(self.regime),
            "model": asdict(self.model),
            "device": asdict(self.device),
            "buckets": [asdict(b) for b in self.buckets],
            "choices": [list(choice) for choice in self.choices],
            "measured": [asdict(m) for m in self.measured],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Sizing:
        return cls(
            **{name: data[name] for name in _PLAIN},
            effective_seconds=data.get("effective_seconds"),
            regime=Regime(**data["regime"]),
            model=MemoryModel.from_dict(data["model"]),
            device=Device(**data["device"]),
            buckets=tuple(Bucket(**b) for b in data["buckets"]),
            choices=tuple((name, value, reason) for name, value, reason in data["choices"]),
            measured=tuple(Measured(**m) for m in data["measured"]),
        )


_PLAIN = ("workload", "identity", "safety_margin", "effective_batch", "most", "knee_seconds", "confirmed", "num_probes")
