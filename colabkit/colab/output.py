"""google.colab.output: outputs that can be cleared by tag, JavaScript, and pages served by the kernel's machine."""

from __future__ import annotations

import html
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any
from uuid import uuid4

from colabkit.colab.place import here, real, show_widget
from colabkit.colab.refusals import UnsupportedError, WrongValueError
from colabkit.core.runtime import Runtime

__all__ = [
    "clear",
    "disable_custom_widget_manager",
    "enable_custom_widget_manager",
    "eval_js",
    "no_vertical_scroll",
    "redirect_to_element",
    "register_callback",
    "serve_kernel_port_as_iframe",
    "serve_kernel_port_as_window",
    "temporary",
    "to_default_area",
    "to_footer_area",
    "to_header_area",
    "unregister_callback",
    "use_tags",
]

_WIDGET_MANAGERS = ("5.0.0a",)
_tags = threading.local()
_areas: list[tuple[frozenset[str], Any, Any]] = []  # tags, widget and its place, of what can still be cleared
_callbacks: dict[str, Callable] = {}


def clear(wait=False, output_tags=()):
    """Clear the cell's output, or what was shown with all of `output_tags`; with `wait`, when the next output comes."""
    if not isinstance(wait, bool):
        raise WrongValueError("wait must be a boolean value", got=wait, fix="output.clear(wait=True)")
    runtime = here()
    colab = _real(runtime)
    if colab:
        colab.clear(wait=wait, output_tags=output_tags)
        return
    wanted = _as_set(output_tags)
    sys.stdout.flush()
    sys.stderr.flush()
    if not wanted:
        _areas.clear()
        if _in_kernel():
            from IPython.display import clear_output

            clear_output(wait)
        return
    for area in [area for area in _areas if wanted <= area[0]]:
        _areas.remove(area)
        _, widget, shown = area
        shown.update({"text/html": ""}, raw=True)  # a saved notebook shall not look for a widget that is gone
        widget.close()


@contextmanager
def temporary():
    """Clear what is shown inside when it ends well; where no widgets are drawn it stays."""
    tag = str(uuid4())
    with use_tags(tag):
        yield tag
    clear(output_tags=tag)


@contextmanager
def use_tags(tags, append=True):
    """Tag what is shown inside, so that clear(output_tags=...) can take it away; yields the tags in force."""
    runtime = here()
    colab = _real(runtime)
    if colab:
        with colab.use_tags(tags, append=append) as active:
            yield active
        return
    before = frozenset(getattr(_tags, "active", frozenset()))
    active = (before | _as_set(tags)) if append else _as_set(tags)
    _tags.active = active
    try:
        with _area(active, runtime):
            yield set(active)
    finally:
        _tags.active = before


def eval_js(script, ignore_result=False, timeout_sec=None):
    """Run JavaScript in the notebook's page; its result comes back on Colab only: elsewhere pass ignore_result=True."""
    runtime = here()
    colab = _real(runtime)
    if colab:
        return colab.eval_js(script, ignore_result=ignore_result, timeout_sec=timeout_sec)
    if not ignore_result:
        raise UnsupportedError(
            "Cannot get a result from JavaScript: no page that answers is open",
            got=script[:80],
            fix="output.eval_js(script, ignore_result=True), or ask with input() or ipywidgets",
        )
    if runtime.answers_requests:
        from IPython.display import Javascript, display

        display(Javascript(script))
    return None


def register_callback(function_name, callback):
    """Make a function callable from JavaScript by its name; pages other than Colab's never call it."""
    colab = _real(here())
    if colab:
        colab.register_callback(function_name, callback)
    _callbacks[function_name] = callback


def unregister_callback(function_name):
    """Take a registered function back; ValueError if there is none of this name."""
    if function_name not in _callbacks:
        raise WrongValueError(
            f"Callback function not registered: {function_name}",
            expected=", ".join(map(str, _callbacks)),
            fix=f"output.register_callback({function_name!r}, ...) first",
        )
    del _callbacks[function_name]
    colab = _real(here())
    if colab:
        colab.unregister_callback(function_name)


def no_vertical_scroll():
    """Show the whole output without a scroll bar; other pages than Colab's decide that themselves."""
    colab = _real(here())
    if colab:
        colab.no_vertical_scroll()


@contextmanager
def redirect_to_element(selector):
    """Show output inside an element of the page; on other pages than Colab's it is shown where it is."""
    with _colab_area("redirect_to_element", selector) as area:
        yield area


@contextmanager
def to_default_area():
    """Show output at its usual place."""
    with _colab_area("to_default_area") as area:
        yield area


@contextmanager
def to_footer_area():
    """Show output below the rest; on other pages than Colab's it is shown where it is."""
    with _colab_area("to_footer_area") as area:
        yield area


@contextmanager
def to_header_area():
    """Show output above the rest; on other pages than Colab's it is shown where it is."""
    with _colab_area("to_header_area") as area:
        yield area


def serve_kernel_port_as_iframe(port, path="/", width="100%", height="400", cache_in_notebook=False):
    """Show a page that a program on the kernel's machine serves; headless, print its address."""
    runtime = here()
    colab = _real(runtime)
    if colab:
        colab.serve_kernel_port_as_iframe(port, path, width, height, cache_in_notebook)
        return
    address = _served_at(port, path)
    if not runtime.answers_requests:
        print(address)
        return
    style = f'width="{html.escape(str(width))}" height="{html.escape(str(height))}" frameborder="0"'
    _show_html(f'<iframe src="{html.escape(address)}" {style}></iframe>', address)


def serve_kernel_port_as_window(port, path="/", anchor_text=None, skip_warning=False):
    """Show a link to a page that a program on the kernel's machine serves; headless, print its address."""
    runtime = here()
    colab = _real(runtime)
    if colab:
        colab.serve_kernel_port_as_window(port, path, anchor_text, skip_warning)
        return
    address = _served_at(port, path)
    if not runtime.answers_requests:
        print(address)
        return
    text = html.escape(anchor_text or address)
    _show_html(f'<a href="{html.escape(address)}" target="_blank">{text}</a>', address)


def enable_custom_widget_manager(version=_WIDGET_MANAGERS[0]):
    """Allow widgets of third parties; pages other than Colab's load them by themselves.

    ValueError for another version.
    """
    if version not in _WIDGET_MANAGERS:
        raise WrongValueError(
            f"Unknown widgets version: {version}",
            expected=", ".join(_WIDGET_MANAGERS),
            fix="output.enable_custom_widget_manager()",
        )
    colab = _real(here())
    if colab:
        colab.enable_custom_widget_manager(version)


def disable_custom_widget_manager():
    """Undo enable_custom_widget_manager."""
    colab = _real(here())
    if colab:
        colab.disable_custom_widget_manager()


def _real(runtime: Runtime) -> ModuleType | None:
    return real("output", runtime, answered=runtime.answers_javascript)


def _as_set(tags: Any) -> frozenset[str]:
    return frozenset([tags] if isinstance(tags, str) else tags)


def _in_kernel() -> bool:
    ipython = sys.modules.get("IPython")
    return getattr(ipython and ipython.get_ipython(), "kernel", None) is not None


@contextmanager
def _area(tags: frozenset[str], runtime: Runtime) -> Iterator[None]:
    """Catch what is shown inside in a place of its own, where the front end has such places."""
    if not runtime.widgets_usable:
        yield
        return
    import ipywidgets

    area = ipywidgets.Output()
    shown = show_widget(area, "")
    _areas.append((tags, area, shown))
    area.__enter__()
    try:
        yield
    finally:
        # Told of no exception, or it would print it and go on as if nothing had been.
        area.__exit__(None, None, None)


@contextmanager
def _colab_area(name: str, *args: Any) -> Iterator[Any]:
    colab = _real(here())
    with ExitStack() as stack:
        yield stack.enter_context(getattr(colab, name)(*args)) if colab else None


def _served_at(port: int, path: str) -> str:
    """Return the address at which the user's browser reaches a port of the kernel's machine."""
    path = "/" + path.lstrip("/")
    prefix = os.environ.get("JUPYTERHUB_SERVICE_PREFIX")  # only a hub's proxy can be reached from outside
    return f"{prefix.rstrip('/')}/proxy/{int(port)}{path}" if prefix else f"http://localhost:{int(port)}{path}"


def _show_html(text: str, plain: str) -> None:
    from IPython.display import display

    display({"text/html": text, "text/plain": plain}, raw=True)
