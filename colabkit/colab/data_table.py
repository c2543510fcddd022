"""google.colab.data_table: data frames as a table that scrolls instead of filling the page."""

from __future__ import annotations

import html
from types import ModuleType
from typing import Any

from colabkit.colab.place import here, real

__all__ = [
    "DataTable",
    "disable_dataframe_formatter",
    "display_dataframe",
    "enable_dataframe_formatter",
    "load_ipython_extension",
    "unload_ipython_extension",
]

_FRAMES = (("pandas.core.frame", "DataFrame"), ("pandas", "DataFrame"))  # before and since pandas 3
_SHOWN_ROWS = 1000  # a page with more table cells than this makes gets slow
_before: dict[tuple[str, str], Any] = {}  # formatters that stood where ours stands


class DataTable:
    """A data frame shown as a scrolling table, cut after `max_rows` rows and `max_columns` columns."""

    include_index = True
    num_rows_per_page = 25
    max_rows = 20000
    max_columns = 20
    min_width = None

    @classmethod
    def formatter(cls, dataframe, **kwargs):
        """Return the table's HTML; None, which leaves it to pandas, for hierarchical and for too large frames."""
        if dataframe.columns.nlevels > 1 or dataframe.index.nlevels > 1:
            return None
        for axis, limit, name in ((0, cls.max_rows, "rows"), (1, cls.max_columns, "columns")):
            if dataframe.shape[axis] > limit:
                word = "total" if axis == 0 else "Total"
                print(
                    f"Warning: {word} number of {name} ({dataframe.shape[axis]}) exceeds max_{name} ({limit}). "
                    "Falling back to pandas display."
                )
                return None
        return cls(dataframe, **kwargs)._repr_html_()

    def __init__(
        self, dataframe, include_index=None, num_rows_per_page=None, max_rows=None, max_columns=None, min_width=None
    ):
        """Take the frame; what is None is as the class says."""
        self._dataframe = dataframe
        self._include_index = self.include_index if include_index is None else include_index
        self._num_rows_per_page = self.num_rows_per_page if num_rows_per_page is None else num_rows_per_page
        self._max_rows = self.max_rows if max_rows is None else max_rows
        self._max_columns = self.max_columns if max_columns is None else max_columns
        self._min_width = self.min_width if min_width is None else min_width

    def _repr_html_(self) -> str:
        frame = self._cut()
        shown = frame.iloc[:_SHOWN_ROWS]
        table = shown.to_html(index=self._include_index, border=0, notebook=True)
        width = f" min-width: {html.escape(str(self._min_width))};" if self._min_width else ""
        height = f"max-height: {1.8 * (self._num_rows_per_page + 1):g}em;"
        counted = (
            f"{len(shown)} of {len(self._dataframe)} rows"
            if len(shown) < len(self._dataframe)
            else f"{len(shown)} rows"
        )
        return f'<div style="{height} overflow: auto;{width}">{table}</div><small>{counted}</small>'

    def __repr__(self) -> str:
        return repr(self._dataframe)

    def _cut(self) -> Any:
        for axis, limit, name in ((1, self._max_columns, "columns"), (0, self._max_rows, "rows")):
            if self._dataframe.shape[axis] > limit:
                word, verb = ("total", "Limiting") if axis == 0 else ("Total", "limiting")
                print(
                    f"Warning: {word} number of {name} ({self._dataframe.shape[axis]}) exceeds max_{name} ({limit}). "
                    f"{verb} to first ({limit}) {name}."
                )
        return self._dataframe.iloc[: self._max_rows, : self._max_columns]


def display_dataframe(df):
    """Display a data frame and, below it, a summary of its columns."""
    from IPython.display import display

    display(DataTable(df, include_index=False))
    display(DataTable(df.describe(include="all").fillna("")))


def enable_dataframe_formatter():
    """Show every data frame as such a table from now on; does nothing outside IPython."""
    colab = _real()
    if colab:
        colab.enable_dataframe_formatter()
        return
    formatter = _html_formatter()
    if formatter is not None and not _before:
        for frame in _FRAMES:
            _before[frame] = formatter.for_type_by_name(*frame, DataTable.formatter)


def disable_dataframe_formatter():
    """Show data frames as they were shown before."""
    colab = _real()
    if colab:
        colab.disable_dataframe_formatter()
        return
    formatter = _html_formatter()
    while _before:
        frame, earlier = _before.popitem()
        formatter.pop(".".join(frame), None)
        if earlier is not None:
            formatter.for_type_by_name(*frame, earlier)


def load_ipython_extension(ipython):
    """Serve `%load_ext colabkit.colab.data_table`."""
    enable_dataframe_formatter()


def unload_ipython_extension(ipython):
    """Serve `%unload_ext colabkit.colab.data_table`."""
    disable_dataframe_formatter()


def _real() -> ModuleType | None:
    runtime = here()
    return real("data_table", runtime, answered=runtime.answers_javascript)


def _html_formatter() -> Any:
    from IPython import get_ipython

    shell = get_ipython()
    return shell.display_formatter.formatters["text/html"] if shell is not None else None
