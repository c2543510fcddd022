"""colabkit plan: how a pipeline would train on GPUs one does not have, by their memory and the model's shape alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from colabkit.core.errors import ColabkitError, UsageError
from colabkit.core.table import Table
from colabkit.launch import configure
from colabkit.pipelines import find as find_pipeline
from colabkit.training.sizing.advice import DoesNotFitError
from colabkit.training.sizing.chosen import Sizing
from colabkit.training.sizing.devices import GIB, Device, find
from colabkit.training.sizing.pool import Predictions
from colabkit.training.sizing.request import Request
from colabkit.training.sizing.workload import Regime

GPUS = ("T4", "V100-16", "L4", "A100-40", "A100-80", "H100", "H200")
PRESET = "full"


def plan(
    pipeline: str,
    gpus: Iterable[str] = GPUS,
    *,
    preset: str = PRESET,
    settings: Iterable[str] = (),
    say: Callable[[str], Any] = print,
) -> dict[str, Any]:
    """Return {"model", "effective_batch", ..., "rows": [one a GPU]} for a pipeline's settings; asks no network.

    A GPU on which the model does not fit has a row with "error" and "help". Raises: UsageError for unknown names.
    """
    devices = [find(name) for name in dict.fromkeys(gpus)]
    if not devices:
        raise UsageError(
            "No GPU to plan for", got="an empty list", expected="names with commas between", fix="--gpu T4,A100-40"
        )
    chosen = find_pipeline(pipeline)
    request = chosen.request(configure(pipeline, preset, settings, say=say))
    predictions = request.predictions()
    predictions.ahead(_regimes(request))
    return {
        "pipeline": chosen.name,
        "model": request.workload.name,
        "effective_batch": request.effective_batch,
        "effective_seconds": request.effective_seconds,
        "optimizer": request.optimizer,
        "safety_margin": request.safety_margin,
        "world": request.world,
        "longest_seconds": request.lengths[-1],
        "typical_seconds": request.typical_seconds,
        "rows": [_row(device, request, predictions) for device in devices],
    }


def _regimes(request: Request) -> list[tuple]:
    """Return what will have to be predicted; float16 and bfloat16 take the same memory."""
    checkpointing = {"auto": (False, True), "yes": (True,), "no": (False,)}[request.checkpointing]
    precision = "bf16" if request.precision == "auto" else request.precision
    regime = Regime(precision=precision, optimizer="adamw", ema=request.ema, world=request.world)
    return [(request.workload, replace(regime, checkpointing=now)) for now in checkpointing]


def _row(device: Device, request: Request, predictions: Predictions) -> dict[str, Any]:
    compared = {"rule": request.rule(device) if request.rule else None, "documented": request.documented(device.name)}
    row = {"gpu": device.name, "gib": round(device.total_bytes / GIB, 1), **compared}
    try:
        sizing = request.size(device, predictions=predictions)
    except DoesNotFitError as error:
        return {
            **row,
            "error": error.what,
            "needed_gib": round(error.needed_bytes / GIB, 2),
            "fix": error.fix,
            "help": [{"what": what, "gib": round(gib, 2), "fits": fits} for what, gib, fits in error.help],
        }
    except ColabkitError as error:
        return {**row, "error": str(error).splitlines()[0], "fix": error.fix}
    return {
        **row,
        "precision": sizing.regime.precision,
        "checkpointing": sizing.regime.checkpointing,
        "limit_gib": round(sizing.limit_bytes / GIB, 2),
        "longest": _at(sizing, request.lengths[-1]),
        "typical": _at(sizing, request.typical_seconds),
        "reasons": {name: reason for name, _, reason in sizing.choices},
    }


def _at(sizing: Sizing, seconds: float) -> dict[str, Any]:
    """Return the batch at one length: samples at once, parts, predicted memory, and how many would fit."""
    parts = sizing.parts(seconds)
    return {
        "seconds": seconds,
        "at_once": parts[0],
        "accumulation": len(parts),
        "fits": sizing.fits(seconds),
        "predicted_gib": round(sizing.bytes(parts[0], seconds) / GIB, 2),
    }


def table(plan: dict[str, Any]) -> Table:
    """Return the plan as a table, a row for each GPU."""
    longest, typical = f"{plan['longest_seconds']:g} s", f"{plan['typical_seconds']:g} s"
    lengths = ("longest", "typical") if longest != typical else ("longest",)
    columns = ["GPU", "GiB", "precision", "checkpointing"]
    for name in lengths:
        columns += [f"{longest if name == 'longest' else typical}: at once x parts", "predicted GiB"]
    has_rule, has_tables = (any(row[name] for row in plan["rows"]) for name in ("rule", "documented"))
    columns += ["rule of thumb"] * has_rule + ["published tables"] * has_tables
    rows = []
    for row in plan["rows"]:
        cells = [row["gpu"], f"{row['gib']:.1f}"]
        if "error" in row:
            cells += (
                ["does not fit", "", "-", f"{row['needed_gib']:.1f}"] if "help" in row else ["cannot", "", "-", "-"]
            )
            cells += ["", ""] * (len(lengths) - 1)
        else:
            cells += [row["precision"], "yes" if row["checkpointing"] else "no"]
            for name in lengths:
                found = row[name]
                cells += [
                    f"{found['at_once']} x {found['accumulation']}",
                    f"{found['predicted_gib']:.1f} of {row['limit_gib']:.1f}",
                ]
        cells += [" x ".join(map(str, row["rule"] or ()))] * has_rule + [row["documented"]] * has_tables
        rows.append(cells)
    count, seconds = plan["effective_batch"], plan["effective_seconds"]
    batch = f"{count} samples a step" if count else f"{seconds:g} s of audio a step"
    batch += f" over {plan['world']} processes" if plan["world"] > 1 else ""
    title = f"{plan['model']}: {batch}, {plan['optimizer']}, {plan['safety_margin']:.0%} of the memory"
    return Table(columns, rows, title)


def notes(plan: dict[str, Any]) -> list[str]:
    """Return what a table cannot hold: why, and what would help where the model does not fit."""
    lines = []
    for row in plan["rows"]:
        if "error" in row:
            lines += [
                f"{row['gpu']}: {row['error']}. What would help:" if "help" in row else f"{row['gpu']}: {row['error']}",
                "         " + row["fix"],
            ]
        elif "checkpointing" in row["reasons"]:
            chosen = "yes" if row["checkpointing"] else "no"
            lines.append(f"{row['gpu']}: checkpointing {chosen}: {row['reasons']['checkpointing']}")
    if any(row["rule"] for row in plan["rows"]):
        lines.append(
            "rule of thumb: samples of the typical length by a formula that is widely copied (audio + a tenth of the "
            "model's memory each); published tables: as documented for this model or one of its size."
        )
    return lines
