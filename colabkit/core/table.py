"""Tables for people, and pictures for reports, notebooks and docs: one look, the same figure the same bytes."""

from __future__ import annotations

import itertools
import numbers
import textwrap
from html import escape
from pathlib import Path
from typing import Any

_WIDEST_CELL = 80  # characters of a table's cell on one line of text
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#999999")  # Okabe and Ito 2008


class Table:
    """Rows for people: aligned text in a terminal or log, a table in a notebook; columns of numbers stand right."""

    def __init__(self, columns: list[str], rows: list[list[Any]], title: str = ""):
        self.columns, self.title = columns, title
        self.rows = [[_cell(v) for v in row] for row in rows]
        self._right = [
            bool(rows) and all(isinstance(row[i], numbers.Real | None) and not isinstance(row[i], bool) for row in rows)
            for i in range(len(columns))
        ]

    def __str__(self) -> str:
        cells = [[_folded(v) for v in row] for row in (self.columns, *self.rows)]
        widths = [max(len(line) for row in cells for line in row[i]) for i in range(len(self.columns))]
        cells.insert(1, [["-" * w] for w in widths])
        lines = [self.title] if self.title else []
        for row in cells:
            for parts in itertools.zip_longest(*row, fillvalue=""):
                lines.append(
                    "  ".join(
                        part.rjust(w) if right else part.ljust(w)
                        for part, w, right in zip(parts, widths, self._right, strict=True)
                    ).rstrip()
                )
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        # No colours: a page's dark theme keeps its own. Styles stand in the cells, where no page takes them away.
        look = [
            "vertical-align:top; white-space:pre-line; overflow-wrap:break-word; max-width:40em; text-align:"
            + ("right; font-variant-numeric:tabular-nums" if right else "left")
            for right in self._right
        ]
        head = "".join(f"<th style='{style}'>{escape(c)}</th>" for c, style in zip(self.columns, look, strict=True))
        body = "".join(
            "<tr>"
            + "".join(f"<td style='{style}'>{escape(v)}</td>" for v, style in zip(row, look, strict=True))
            + "</tr>"
            for row in self.rows
        )
        caption = f"<caption>{escape(self.title)}</caption>" if self.title else ""
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def _folded(text: str) -> list[str]:
    """Break a long cell between words; a path is never broken, so that it can be copied."""
    return [
        part
        for line in text.splitlines() or [""]
        for part in textwrap.wrap(line, _WIDEST_CELL, break_long_words=False, break_on_hyphens=False) or [""]
    ]


def new_figure(num_rows: int, size: tuple[float, float], **how: Any) -> tuple[Any, Any]:
    """Return a figure of this size in inches and its axes, one below the other; `how` goes to the grid."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(num_rows, 1, sharex=True, gridspec_kw=how or None)


def save_figure(figure: Any, path: Path) -> None:
    """Write a PNG without the time and the version it was made with."""
    figure.savefig(path, metadata={"Software": None})
