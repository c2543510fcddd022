"""The front end that shows our output and could answer a question: told by the request at work, not by a name."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from colabkit.core.versions.differences import request_of

_WHAT_THEY_DO = {
    "colab-web": "Colab's own page: questions, secrets and widgets are shown",
    "colab-cli": "Colab's command line: nobody can be asked anything while cells run",
    "vscode": "an editor: input() is shown",
    "jupyterlab": "JupyterLab or Notebook: input() is shown",
    "jupyter": "another Jupyter client: input() is shown",
    "terminal": "a terminal: plain text",
    "none": "headless: plain text, nobody is asked anything",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class FrontEnd:
    """`kind` is one of the keys of the table above; `draws_widgets` is what it would do if ipywidgets are installed."""

    kind: str
    reason: str  # how it is known
    draws_widgets: bool = False


def find_front_end(shell: object | None, env: Mapping[str, str], on_colab_vm: bool) -> FrontEnd:
    """Tell who asked for what runs now; `shell` is IPython's, or None outside of it."""
    kernel = getattr(shell, "kernel", None)
    if kernel is None:
        if _is_terminal(sys.stdout) and _is_terminal(sys.stdin):
            return FrontEnd(kind="terminal", reason="no notebook kernel, input and output are a terminal")
        return FrontEnd(kind="none", reason="no notebook kernel and no terminal")
    request = request_of(kernel)
    metadata = request.get("metadata") or {}
    content = request.get("content") or {}
    # A client that forbids input() runs notebooks headless: papermill, nbclient, nbmake, `colab exec`.
    if content.get("allow_stdin", getattr(kernel, "_allow_stdin", None)) is not True:
        if on_colab_vm and request and not _came_from_parent(request, env):
            return FrontEnd(
                kind="colab-cli", reason="the client that sends the cells is on another machine and takes no input"
            )
        return FrontEnd(kind="none", reason="the notebook runs headless: its client takes no input")
    colab = metadata.get("colab")
    if isinstance(colab, Mapping) and colab.get("cell_id"):
        return FrontEnd(kind="colab-web", reason="the running cell carries Colab's cell address", draws_widgets=True)
    if str(metadata.get("cellId", "")).startswith("vscode-notebook-cell:"):
        return FrontEnd(kind="vscode", reason="the running cell carries an editor's cell address", draws_widgets=True)
    if {"cellId", "deletedCells"} & set(metadata):
        return FrontEnd(
            kind="jupyterlab", reason="the running cell carries JupyterLab's cell address", draws_widgets=True
        )
    if "__vsc_ipynb_file__" in getattr(shell, "user_ns", {}):
        return FrontEnd(kind="vscode", reason="an editor named its notebook file to this kernel", draws_widgets=True)
    if on_colab_vm:
        return FrontEnd(
            kind="colab-web",
            reason="a notebook kernel on a Colab VM whose client answers questions",
            draws_widgets=True,
        )
    # Consoles talk to kernels too but draw no widgets; pages of notebooks name their file to the kernel they start.
    return FrontEnd(
        kind="jupyter",
        reason="a notebook kernel whose client answers questions",
        draws_widgets=env.get("JPY_SESSION_NAME", "").endswith(".ipynb"),
    )


def what_it_does(kind: str) -> str:
    """Say in a few words what to expect of a kind of front end."""
    return _WHAT_THEY_DO[kind]


def current_shell() -> object | None:
    """Return IPython's shell if this process has one; never imports IPython: a kernel has done so long ago."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if hasattr(ipython, "get_ipython") else None


def _came_from_parent(request: Mapping, env: Mapping[str, str]) -> bool:
    """Tell whether the client is the process that started this kernel, as papermill is; Jupyter's message ids say."""
    header = request.get("header") or {}
    sender = re.search(r"_(\d+)_\d+$", str(header.get("msg_id", "")))
    return sender is not None and sender[1] in {str(os.getppid()), env.get("JPY_PARENT_PID")}


def _is_terminal(stream: object) -> bool:
    try:
        return bool(stream is not None and stream.isatty())
    except (ValueError, AttributeError):  # closed, or a stand-in without the question
        return False
