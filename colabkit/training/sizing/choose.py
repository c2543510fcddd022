"""Precision, checkpointing and batch sizes chosen for a device here or one not at hand, each with its reason.

sizing = size(workload, device=find("T4"), lengths=seconds_of_samples, effective_batch=32)
sizing.capacity(12.5)        # samples of 12.5 s at once
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from colabkit.core.errors import UsageError
from colabkit.training.sizing.advice import does_not_fit
from colabkit.training.sizing.chosen import HALF_SPEED_SECONDS, Choice, Sizing
from colabkit.training.sizing.devices import GIB, Device
from colabkit.training.sizing.memory_model import MemoryModel
from colabkit.training.sizing.pool import Predictions
from colabkit.training.sizing.workload import Regime, Workload
from colabkit.training.stream.batch_plan import bucket_starts, require_one_way

__all__ = ["CHECKPOINTING_COST", "Predictions", "Sizing", "size"]

SMALLEST_MARGIN, LARGEST_MARGIN = 0.70, 0.95
CHECKPOINTING_COST = 4 / 3  # forward once more: of forward 1, backward 2


def size(
    workload: Workload,
    *,
    device: Device,
    lengths: Sequence[float],
    effective_batch: int | None = None,
    effective_seconds: float | None = None,
    safety_margin: float = 0.85,
    checkpointing: str | bool = "auto",
    precision: str = "auto",
    optimizer: str = "adamw",
    most: int | None = None,
    num_buckets: int = 30,
    world: int = 1,
    ema: bool = False,
    choose: Callable[[str, Any, str], Any] | None = None,
    predictions: Predictions | None = None,
    lighter: Callable[[], Mapping[str, Workload]] | None = None,
) -> Sizing:
    """Return the sizing of a workload for samples of these lengths (or a random sample of them), in seconds.

    An optimizer step holds `effective_batch` samples, or as many as `effective_seconds` of padded audio allow.
    `choose` is told each automatic choice and its reason. `most`: samples at once at most. `lighter` names variants of
    the workload that take less memory, by the setting that makes them: they are tried for the advice when nothing fits.
    Raises: UsageError for settings out of range or a precision that the device has not; DataError when not even one
    sample of the longest fits, with what would help and by how much.
    """
    seconds = _checked(lengths, safety_margin, most)
    require_shareable(world, float(seconds[-1]), effective_batch, effective_seconds)
    if predictions is None:
        predictions = Predictions(float(seconds[0]), float(seconds[-1]), on_gpu=device.kind == "cuda")
    told: list[Choice] = []

    def decide(name: str, value: Any, reason: str) -> Any:
        told.append((name, value, reason))
        if choose is not None:
            choose(name, value, reason)
        return value

    if device.others_bytes:
        decide(
            "usable_gib",
            round(device.usable_bytes / GIB, 1),
            f"other processes hold {device.others_bytes / GIB:.1f} GiB of {device.name}'s "
            f"{device.total_bytes / GIB:.1f} GiB",
        )
    regime = Regime(precision=_precision(precision, device, decide), optimizer=optimizer, ema=ema, world=world)
    empty = Sizing(
        workload=workload.name,
        identity=workload.identity,
        regime=regime,
        model=MemoryModel(phases=()),
        device=device,
        safety_margin=safety_margin,
        effective_batch=effective_batch,
        effective_seconds=effective_seconds,
        most=most,
    )

    def sized(with_checkpointing: bool) -> Sizing:
        now = replace(regime, checkpointing=with_checkpointing)
        return replace(empty, regime=now, model=replace(predictions(workload, now), context_bytes=device.context_bytes))

    chosen = _checkpointing(checkpointing, sized, seconds, decide)
    longest = float(seconds[-1])
    if chosen.fits(longest) < 1:
        raise does_not_fit(
            chosen, workload, seconds, predictions, may_checkpoint=checkpointing not in (False, "no"), lighter=lighter
        )
    starts = bucket_starts(seconds, num_buckets)
    chosen = replace(
        chosen,
        buckets=tuple(
            chosen.bucket(float(seconds[stop - 1]), int(stop - start))
            for start, stop in zip(starts[:-1], starts[1:], strict=True)
        ),
    )
    typical = float(np.median(seconds))
    limit = f"{chosen.limit_bytes / GIB:.2f} GiB ({safety_margin:.0%} of {device.usable_bytes / GIB:.2f})"
    decide(
        "at_once",
        {f"{s:.1f} s": chosen.capacity(s) for s in dict.fromkeys((longest, typical))},
        f"so many are predicted to take {chosen.bytes(chosen.capacity(longest), longest) / GIB:.2f} and "
        f"{chosen.bytes(chosen.capacity(typical), typical) / GIB:.2f} of {limit}"
        + (f"; {most} at most are asked for" if most is not None else ""),
    )
    return replace(chosen, choices=tuple(told))


def require_shareable(
    world: int, longest_seconds: float, effective_batch: int | None, effective_seconds: float | None
) -> None:
    """Raise UsageError where an optimizer step has not a sample for each process, or is not said in one way."""
    require_one_way(effective_batch, effective_seconds)
    if effective_seconds is None:
        if world < 1 or effective_batch < world:
            raise UsageError(
                "The processes cannot share this batch",
                where="effective_batch",
                got=f"{effective_batch} samples, {world} processes",
                expected="a sample or more for each process",
                fix=f"--set train.effective_batch={max(world, 1)} or more, or fewer processes",
            )
    elif effective_seconds < (needed := world * longest_seconds) * (1 - 1e-9):
        raise UsageError(
            "An optimizer step is too short for its samples",
            where="effective_seconds",
            got=f"{effective_seconds:g} s for {world} process" + "es" * (world > 1),
            expected=f"{needed:g} s or more: the longest sample has {longest_seconds:g} s",
            fix=f"--set train.effective_seconds={math.ceil(needed)}, or a smaller data.longest_seconds, "
            "which leaves longer samples aside",
        )


def _checked(lengths: Sequence[float], safety_margin: float, most: int | None) -> np.ndarray:
    """Return the lengths sorted. Raises: UsageError for what cannot be."""
    seconds = np.sort(np.asarray(list(lengths), np.float64))
    if not len(seconds) or not np.isfinite(seconds).all() or seconds[0] <= 0:
        raise UsageError(
            "Cannot size batches for these lengths",
            got=f"{len(seconds)} lengths",
            where="lengths",
            expected="one or more, all above 0 s",
            fix="leave samples of unknown length out",
        )
    if not isinstance(safety_margin, (int, float)) or not SMALLEST_MARGIN <= safety_margin <= LARGEST_MARGIN:
        raise UsageError(
            "Cannot use this safety margin",
            got=safety_margin,
            where="safety_margin",
            expected=f"{SMALLEST_MARGIN:.2f} (careful) to {LARGEST_MARGIN:.2f} (bold)",
            fix="safety_margin=0.85",
        )
    if most is not None and most < 1:
        raise UsageError(
            "Cannot put so many samples through at once",
            got=most,
            expected="1 or more, or none",
            where="most",
            fix="leave it at none: what memory allows",
        )
    return seconds


def _precision(wanted: str, device: Device, decide: Callable[[str, Any, str], Any]) -> str:
    """Choose bf16 where the device computes in it, fp16 where it has tensor cores for it, else fp32."""
    if wanted == "bf16" and device.kind == "cuda" and not device.supports_bf16:
        raise UsageError(
            f"{device.name} does not compute in bfloat16",
            got="bf16",
            expected="fp16 or fp32",
            where="precision",
            fix="leave precision at auto: it takes fp16 there",
        )
    if wanted != "auto":
        return wanted
    if device.kind != "cuda":
        return decide("precision", "fp32", "a CPU gains nothing by less")
    if device.supports_bf16:
        return decide("precision", "bf16", f"{device.name} computes in bfloat16, which needs no loss scaling")
    if device.has_fp16_tensor_cores:
        return decide(
            "precision", "fp16", f"{device.name} has tensor cores for float16 and no bfloat16; with loss scaling"
        )
    return decide("precision", "fp32", f"{device.name} has tensor cores neither for bfloat16 nor for float16")


def _checkpointing(
    wanted: str | bool, sized: Callable[[bool], Sizing], seconds: np.ndarray, decide: Callable[[str, Any, str], Any]
) -> Sizing:
    """Choose whether to compute activations twice instead of keeping them.

    It is done where it must be, or where a batch would be so small without it that the pass's fixed cost outweighs a
    third more computing.
    """
    if wanted not in ("auto", "yes", "no", True, False):
        raise UsageError(
            "Cannot use this setting", got=wanted, expected="auto, yes or no", where="checkpointing", fix="auto"
        )
    if wanted != "auto":
        return sized(wanted in ("yes", True))
    without, longest, typical = sized(False), float(seconds[-1]), float(np.median(seconds))
    share = without.share(typical)
    if without.fits(longest) >= 1 and without.fits(typical) >= share:
        decide("checkpointing", False, f"all {share} samples of {typical:.1f} s fit at once without it")
        return without
    with_it = sized(True)
    if without.fits(longest) < 1:
        decide("checkpointing", True, f"without it not even one sample of {longest:.1f} s fits")
        return with_it
    gain = _speed(with_it, typical) / _speed(without, typical)
    sizes = f"{_at_once(without, typical)} instead of {_at_once(with_it, typical)} samples of {typical:.1f} s"
    if gain > 1:
        decide(
            "checkpointing",
            True,
            f"without it {sizes} fit at once; it should train {gain - 1:.0%} faster, though it computes a third more",
        )
        return with_it
    decide(
        "checkpointing",
        False,
        f"without it {sizes} fit at once; computing a third more would cost {1 - gain:.0%} of the speed",
    )
    return without


def _at_once(sizing: Sizing, seconds: float) -> int:
    return min(sizing.capacity(seconds), sizing.share(seconds))


def _speed(sizing: Sizing, seconds: float) -> float:
    """Return the estimated speed with samples of this length, as a share of what a pass of any size could reach."""
    audio = _at_once(sizing, seconds) * seconds
    cost = CHECKPOINTING_COST if sizing.regime.checkpointing else 1.0
    return audio / (audio + HALF_SPEED_SECONDS[sizing.device.kind]) / cost
