"""A few real steps before training: at the worst case of the longest and the shortest samples, to mend the prediction.

    with RealStep(workload, sizing.regime, "cuda") as run_step:
        sizing = confirm(sizing, run_step, remembered=Remembered(state_root))

At most six steps, whatever the number of buckets; none where they were done before on the same GPU, driver and torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from colabkit.core.errors import DataError
from colabkit.training.sizing.chosen import Measured, Sizing
from colabkit.training.sizing.devices import GIB
from colabkit.training.sizing.memory_model import MemoryModel, Phase
from colabkit.training.sizing.out_of_memory import is_out_of_memory, release
from colabkit.training.sizing.remembered import Remembered, key_of
from colabkit.training.sizing.timing import Timing

RunStep = Callable[[int, float], tuple[float, float]]

MOST_STEPS = 6
OUT_OF_MEMORY_FACTOR = 1.2  # what ran out takes at least that much more than was predicted: the limit leaves 15% free
WORTH_ANOTHER = 0.95  # a prediction that was so much too high is mended, and what then fits is tried
FARTHEST = 1.1  # longer samples, or a higher limit, than what was tried times this: it is tried again


def confirm(
    sizing: Sizing,
    run_step: RunStep,
    *,
    remembered: Remembered | None = None,
    timed: bool = True,
    most_steps: int = MOST_STEPS,
    choose: Callable[[str, Any, str], Any] | None = None,
) -> Sizing:
    """Return the sizing mended by real steps: run_step(num_samples, seconds) -> (seconds taken, bytes held at peak).

    What a step held counts beside the context. A step that raises out of memory did not fit. `timed`: passes beyond the
    knee, where more at once gains less than 5%, are not made larger. Raises: DataError when not even one of the longest
    samples fits.
    """
    entry = remembered.load(key_of(sizing)) if remembered is not None else None
    known = _recalled(sizing, entry)
    if known is not None:
        _tell(choose, known, "as measured in an earlier run on this GPU")
        return known
    prober = _Prober(sizing, run_step, most_steps, timed=timed)
    prober.probe()
    found = prober.sizing
    if timed:
        most_seconds = max(found.fits(b.longest_seconds) * b.longest_seconds for b in found.buckets)
        knee = Timing.fitted(prober.measured).knee_seconds(most_seconds)
        found = found.with_model(found.model, knee_seconds=knee)
    found = replace(
        found, measured=tuple(prober.measured), confirmed=prober.is_confirmed, num_probes=len(prober.measured)
    )
    if remembered is not None and found.confirmed:
        remembered.save(key_of(sizing), _entry(found))
    _tell(choose, found, f"after {found.num_probes} real steps")
    return found


def _tell(choose: Callable[[str, Any, str], Any] | None, sizing: Sizing, how: str) -> None:
    if choose is None:
        return
    longest = sizing.buckets[-1]
    shown = [m for m in sizing.measured if m.peak_bytes is not None]
    most = max((m.peak_bytes for m in shown), default=0.0) + sizing.device.context_bytes
    choose(
        "at_once_confirmed",
        f"{longest.num_samples} of {longest.longest_seconds:.1f} s",
        f"{how}; the largest held {most / GIB:.2f} of {sizing.limit_bytes / GIB:.2f} GiB",
    )
    if sizing.knee_seconds is not None and any(b.num_samples < sizing.fits(b.longest_seconds) for b in sizing.buckets):
        choose("knee_seconds", round(sizing.knee_seconds, 1), "more audio in a pass gains less than 5% in speed")


class _Prober:
    """Carries out the steps and mends the model after each. `factors`: what a length takes over what was predicted."""

    def __init__(self, sizing: Sizing, run_step: RunStep, most_steps: int, *, timed: bool):
        self.sizing, self.run_step, self.most_steps, self.timed = sizing, run_step, most_steps, timed
        self.predicted = sizing.model
        self.measured: list[Measured] = []
        self.factors: dict[float, float] = {}
        self.shown: dict[float, int] = {}  # samples that fitted, by length
        lengths = [bucket.longest_seconds for bucket in sizing.buckets]
        self.middle = lengths[len(lengths) // 2]
        self.ends = list(dict.fromkeys((lengths[-1], lengths[0])))

    @property
    def is_confirmed(self) -> bool:
        """Tell whether a step of the longest and one of the shortest have fitted."""
        return all(seconds in self.shown for seconds in self.ends)

    def probe(self) -> None:
        self.step(1, self.ends[-1], counts=False)  # loads kernels, makes the optimizer's states
        if self.timed:
            self.step(1, self.middle, counts=False)  # a small pass, for the time that any pass takes
        for place, seconds in enumerate(self.ends):
            spare = len(self.ends) - 1 - place
            while not self.at_capacity(seconds) and len(self.measured) + spare < self.most_steps:
                pass
        for seconds in self.ends:
            if seconds in self.shown and self.shown[seconds] < WORTH_ANOTHER * self.wanted(seconds):
                self.at_capacity(seconds)

    def wanted(self, seconds: float) -> int:
        """Return how many samples of this length should fit, as far as is known now, but no more than a step has."""
        found = min(self.sizing.fits(seconds), self.sizing.share(seconds))
        return found if self.sizing.most is None else min(found, self.sizing.most)

    def at_capacity(self, seconds: float) -> bool:
        """Do a step of as many samples of this length as should fit.

        False when memory ran out, and less is predicted to fit.
        """
        count = self.wanted(seconds)
        if count < 1:
            raise DataError(
                "Not even one sample fits, as real steps have shown",
                got=f"{seconds:.1f} s",
                expected=f"{self.sizing.limit_bytes / GIB:.2f} GiB to be enough",
                where=self.sizing.device.describe(),
                fix="use gradient checkpointing, an optimizer with smaller states or shorter samples",
            )
        return self.step(count, seconds)

    def step(self, num_samples: int, seconds: float, *, counts: bool = True) -> bool:
        """Do one step; `counts`: the model is mended by it."""
        if len(self.measured) >= self.most_steps:
            return False
        try:
            taken, peak = self.run_step(num_samples, seconds)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            release(error)
            self.measured.append(Measured(num_samples=num_samples, seconds=seconds, peak_bytes=None))
            held = self.sizing.device.usable_bytes - self.predicted.context_bytes  # it needed more than that
            least = max(self.factor(num_samples, seconds, held), self.factors.get(seconds, 1.0))
            self.factors[seconds] = OUT_OF_MEMORY_FACTOR * least
            self.mend()
            return False
        self.measured.append(
            Measured(num_samples=num_samples, seconds=seconds, peak_bytes=float(peak), taken_seconds=float(taken))
        )
        if counts:
            self.factors[seconds] = self.factor(num_samples, seconds, float(peak))
            self.shown[seconds] = max(num_samples, self.shown.get(seconds, 0))
            self.mend()
        return True

    def factor(self, num_samples: int, seconds: float, held_bytes: float) -> float:
        """Return what was held beyond the state over what was predicted."""
        predicted = self.predicted.device_bytes(num_samples, seconds) - self.predicted.context_bytes
        return max(0.1, (held_bytes - self.predicted.state_bytes) / max(1.0, predicted - self.predicted.state_bytes))

    def mend(self) -> None:
        self.sizing = self.sizing.with_model(mended(self.predicted, self.factors))


def mended(model: MemoryModel, factors: dict[float, float]) -> MemoryModel:
    """Return the model so that what it takes beyond the state is `factors[seconds]` times as much at these lengths.

    Between two lengths the factor goes from one to the other, and it is nowhere below the smaller of them.
    """
    if not factors:
        return model
    largest = max(factors.values())
    if len(factors) < 2 or largest / min(factors.values()) < 1.01:
        return model.scaled(largest)
    short, long = min(factors), max(factors)
    lengths = [short + (long - short) * i / 20 for i in range(21)]
    phases = []
    for phase in model.phases:
        # Which of the terms is off two lengths cannot tell: of what could be, the largest counts at every length.
        for of_squared in dict.fromkeys((factors[long], factors[short], 1.0)):
            bent = _through(phase, model.state_bytes, {short: factors[short], long: factors[long]}, of_squared, largest)
            rises = all(bent.each(s) <= bent.each(t) for s, t in zip(lengths[:-1], lengths[1:], strict=True))
            if rises and all(bent.each(s) >= 0.999 * min(factors.values()) * phase.each(s) for s in lengths):
                phases.append(bent)
            elif of_squared == factors[long]:
                return model.scaled(largest)
    return replace(model, phases=tuple(phases))


def _through(phase: Phase, state_bytes: float, factors: dict[float, float], of_squared: float, of_base: float) -> Phase:
    """Return the phase with what a sample takes times a factor at two lengths, its squared term times `of_squared`."""
    (short, f_short), (long, f_long) = factors.items()
    squared = of_squared * phase.bytes_per_second_squared
    at_short, at_long = f_short * phase.each(short) - squared * short**2, f_long * phase.each(long) - squared * long**2
    slope = (at_long - at_short) / (long - short)
    return replace(
        phase,
        base_bytes=state_bytes + of_base * (phase.base_bytes - state_bytes),
        bytes_per_second=slope,
        bytes_per_sample=at_short - slope * short,
        bytes_per_second_squared=squared,
        base_bytes_per_second_squared=of_base * phase.base_bytes_per_second_squared,
    )


def _entry(sizing: Sizing) -> dict[str, Any]:
    lengths = [bucket.longest_seconds for bucket in sizing.buckets]
    return {
        "device": sizing.device.name,
        "workload": sizing.workload,
        "regime": sizing.regime.describe(),
        "model": asdict(sizing.model),
        "knee_seconds": sizing.knee_seconds,
        "measured": [asdict(m) for m in sizing.measured],
        "shortest_seconds": lengths[0],
        "longest_seconds": lengths[-1],
        "limit_bytes": sizing.limit_bytes,
    }


def _recalled(sizing: Sizing, entry: dict[str, Any] | None) -> Sizing | None:
    """Return the sizing by what was measured before, None where that says too little of these lengths or this limit."""
    if entry is None:
        return None
    try:
        model = replace(MemoryModel.from_dict(entry["model"]), context_bytes=sizing.device.context_bytes)
        knee = None if entry["knee_seconds"] is None else float(entry["knee_seconds"])
        measured = tuple(Measured(**m) for m in entry["measured"])
        shortest, longest = float(entry["shortest_seconds"]), float(entry["longest_seconds"])
        limit = float(entry["limit_bytes"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    lengths = [bucket.longest_seconds for bucket in sizing.buckets]
    if lengths[-1] > longest * FARTHEST or lengths[0] < shortest / 2 or sizing.limit_bytes > limit * FARTHEST:
        return None
    found = sizing.with_model(model, knee_seconds=knee, measured=measured, confirmed=True, num_probes=0)
    return found if found.fits(lengths[-1]) >= 1 else None
