"""Show a widget at a place where something else can be put when the widget is closed."""

from __future__ import annotations

from typing import Any

_VIEW = "application/vnd.jupyter.widget-view+json"


def show_widget(widget: Any, instead: str) -> Any:
    """Display a widget, or the text `instead` where none are drawn; the handle's update() replaces it.

    Written out, because the widgets of ipywidgets 7 display themselves and could not be replaced afterwards.
    """
    from IPython.display import display

    view = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
    return display({_VIEW: view, "text/plain": instead}, raw=True, display_id=True)
