"""The place of a call: who can answer it, whether the real google.colab can, how long to wait, and showing a widget."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any, TypeVar

from colabkit.core.runtime import Runtime, detect

Answer = TypeVar("Answer")
_VIEW = "application/vnd.jupyter.widget-view+json"


def here() -> Runtime:
    """Look at this machine and its front end, leaving its GPUs out: asking for those takes a second."""
    return detect({**os.environ, "CUDA_VISIBLE_DEVICES": "-1"})


def real(name: str, runtime: Runtime, *, answered: bool = True) -> ModuleType | None:
    """Return google.colab's own module on a Colab VM, or None; also None unless `answered`.

    Many real calls wait for Colab's page: where it does not answer them they wait for minutes, some of them for ever.
    """
    if not (runtime.on_colab_vm and answered):
        return None
    try:
        found = import_module(f"google.colab.{name}")
    except ImportError:  # a Colab image without its library, or a container that only looks like one
        return None
    return None if found.__name__.startswith("colabkit.") else found


def in_time(work: Callable[[], Answer], seconds: float) -> Answer | None:
    """Return what `work` returns, raise what it raises, or return None when it takes longer than `seconds`."""
    done: list[Answer] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:  # handed to the caller below, whatever it is
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if failed:
        raise failed[0]
    return done[0] if done else None


def show_widget(widget: Any, instead: str) -> Any:
    """Display a widget, or the text `instead` where none are drawn; the handle's update() replaces it.

    Written out, because the widgets of ipywidgets 7 display themselves and could not be replaced afterwards.
    """
    from IPython.display import display

    view = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
    return display({_VIEW: view, "text/plain": instead}, raw=True, display_id=True)
