"""Pictures of the ASR pipeline: the plan of memory, and training."""

from __future__ import annotations

from pathlib import Path

from colabkit.core.table import COLOURS, new_figure, save_figure
from colabkit.training.sizing.chosen import Sizing
from colabkit.training.sizing.devices import GIB, MIB


def draw_memory(path: Path, sizing: Sizing) -> None:
    """Write a PNG: the memory predicted for each length's samples at once, the measured, the limit; and how many."""
    data = sizing.figure_data()
    largest = max([*data["predicted_bytes"], data["limit_bytes"]])
    unit, name = (GIB, "GiB") if largest > GIB / 2 else (MIB, "MiB")
    figure, axes = new_figure(2, (8, 4.6), height_ratios=[3, 2])
    axes[0].plot(
        data["seconds"], [value / unit for value in data["predicted_bytes"]], color=COLOURS[0], label="predicted"
    )
    if data["measured"]:
        axes[0].plot(
            [m["seconds"] for m in data["measured"]],
            [m["bytes"] / unit for m in data["measured"]],
            "D",
            color=COLOURS[5],
            label="measured",
        )
    axes[0].axhline(data["limit_bytes"] / unit, color="#444444", linestyle="--", linewidth=1, label="limit")
    axes[0].axhline(
        (sizing.model.state_bytes + sizing.device.context_bytes) / unit,
        color=COLOURS[7],
        linestyle=":",
        linewidth=1,
        label="before a batch",
    )
    axes[0].set_ylabel(name)
    axes[0].set_ylim(bottom=0, top=1.25 * largest / unit)
    axes[0].legend(fontsize=8, ncols=4, loc="upper center")
    axes[0].set_title(f"{sizing.device.name}: {sizing.regime.describe()}", fontsize=10, loc="left")
    axes[1].step(data["seconds"], data["at_once"], where="post", color=COLOURS[2])
    axes[1].set_ylabel("samples at once")
    axes[1].set_ylim(bottom=0)
    axes[1].set_xlabel("seconds of the longest sample")
    save_figure(figure, path)


def draw_history(path: Path, rows: list[dict]) -> None:
    """Write a PNG of the training loss and the validation error rates over steps."""
    figure, axes = new_figure(2, (8, 4.2))
    steps = [row["step"] for row in rows]
    axes[0].plot(steps, [row["loss"] for row in rows], "o-", color=COLOURS[0])
    axes[0].set_ylabel("training loss")
    axes[0].set_ylim(bottom=0)
    for name, colour in (("wer", COLOURS[2]), ("cer", COLOURS[1])):
        axes[1].plot(steps, [100 * row[name] for row in rows], "o-", color=colour, label=name.upper())
    axes[1].set_ylabel("validation (%)")
    axes[1].set_ylim(bottom=0)
    axes[1].legend(fontsize=8)
    axes[1].set_xlabel("step")
    save_figure(figure, path)
