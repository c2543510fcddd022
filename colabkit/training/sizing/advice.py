"""A model that does not fit even one sample at a time: what would help, each with the memory it then takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from colabkit.core.errors import DataError
from colabkit.training.sizing.chosen import Sizing
from colabkit.training.sizing.devices import CATALOGUE, GIB
from colabkit.training.sizing.pool import Predictions
from colabkit.training.sizing.workload import Workload

Lighter = Callable[[], Mapping[str, Workload]]
_OPTIMIZERS = {"adamw_8bit": "8-bit AdamW", "adafactor": "Adafactor"}
_SHORTEST_SECONDS = 1.0  # of pieces worth training on


class DoesNotFitError(DataError):
    """One sample is too much for the device. `help`: (what, GiB it then takes, whether that fits)."""

    help: tuple[tuple[str, float, bool], ...] = ()
    needed_bytes: float = 0.0


def does_not_fit(
    sizing: Sizing,
    workload: Workload,
    seconds: np.ndarray,
    predictions: Predictions,
    *,
    may_checkpoint: bool = True,
    lighter: Lighter | None = None,
) -> DoesNotFitError:
    """Return the error for a sizing whose longest sample does not fit, each remedy predicted."""
    longest = float(seconds[-1])

    def variant(work: Workload = workload, **changes: Any) -> Sizing:
        regime = replace(sizing.regime, **changes)
        model = predictions(work, regime) if work is workload else predictions.lightened(workload, work, regime)
        return replace(sizing, regime=regime, model=replace(model, context_bytes=sizing.device.context_bytes))

    checkpointed = {} if sizing.regime.checkpointing or not may_checkpoint else {"checkpointing": True}
    tried: list[tuple[str, Sizing]] = []
    if checkpointed:
        tried.append(("gradient checkpointing", variant(**checkpointed)))
    prefix = "gradient checkpointing and " if checkpointed else ""
    for name, words in _OPTIMIZERS.items():
        if sizing.regime.optimizer not in (name, "sgd"):
            tried.append((prefix + words, variant(**checkpointed, optimizer=name)))
    variants = dict(lighter()) if lighter is not None else {}
    for words, work in variants.items():
        tried.append((prefix + words, variant(work, **checkpointed)))
        if sizing.regime.optimizer != "sgd":
            both = f"{prefix}{words} and {_OPTIMIZERS['adamw_8bit']}"
            tried.append((both, variant(work, **checkpointed, optimizer="adamw_8bit")))
    rows = [(words, found.bytes(1, longest) / GIB, found.fits(longest) >= 1) for words, found in tried]
    best = tried[0][1] if checkpointed else sizing
    shorter = next(
        (s for s in np.arange(np.floor(longest), _SHORTEST_SECONDS - 0.5, -1.0) if best.fits(float(s)) >= 1), None
    )
    if shorter is not None and shorter < longest:
        rows.append((f"{prefix}pieces of at most {shorter:.0f} s", best.bytes(1, float(shorter)) / GIB, True))
    larger = [_larger(sizing, longest, ""), _larger(best, longest, prefix) if checkpointed else None]
    return _error(sizing, longest, rows, larger)


def _larger(sizing: Sizing, seconds: float, prefix: str) -> str | None:
    """Return the smallest GPU of the catalogue on which it fits, in words."""
    for device in sorted(CATALOGUE.values(), key=lambda d: d.usable_bytes):
        there = replace(sizing, device=device, model=replace(sizing.model, context_bytes=device.context_bytes))
        if there.fits(seconds) >= 1:
            taken = f"{there.bytes(1, seconds) / GIB:.1f} of {there.limit_bytes / GIB:.1f} GiB"
            return f"{prefix}a larger GPU, {device.name}: {taken}"
    return None


def _error(
    sizing: Sizing, longest: float, rows: list[tuple[str, float, bool]], larger: list[str | None]
) -> DoesNotFitError:
    need, limit = sizing.bytes(1, longest) / GIB, sizing.limit_bytes / GIB
    said = [
        f"{words}: {gib:.1f} GiB, {need - gib:.1f} less{'' if fits else ', still too much'}"
        for words, gib, fits in sorted(rows, key=lambda row: not row[2])
    ]
    said += [words for words in larger if words]
    error = DoesNotFitError(
        f"{sizing.workload} does not fit on {sizing.device.name}, not even one sample of {longest:.1f} s",
        got=f"{need:.1f} GiB",
        expected=f"{limit:.1f} GiB at most, {sizing.safety_margin:.0%} of the "
        f"{sizing.device.usable_bytes / GIB:.1f} there are",
        where=f"{sizing.device.describe()}; {sizing.regime.describe()}",
        fix=";\n         ".join(said) or "train a smaller model",
    )
    error.help, error.needed_bytes = tuple(rows), need * GIB
    return error
