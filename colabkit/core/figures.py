"""Pictures for reports, notebooks and docs: one look, drawn without a screen, the same figure the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#999999")  # Okabe and Ito 2008


def new_figure(num_rows: int, size: tuple[float, float], **how: Any):
    """Return a figure of this size in inches and its axes, one below the other; `how` goes to the grid."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(num_rows, 1, sharex=True, gridspec_kw=how or None)


def save_figure(figure: Any, path: Path) -> None:
    """Write a PNG without the time and the version it was made with."""
    figure.savefig(path, metadata={"Software": None})
