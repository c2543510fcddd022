"""A file of this machine as a link in a notebook's page: its bytes in the link, or its place below the notebook."""

from __future__ import annotations

import base64
import html
import mimetypes
import os
import sys
from urllib.parse import quote

EMBEDDED_BYTES = 2**20  # what stands in a link is kept in the notebook for good


def show_download(path: str) -> None:
    """Display a link that saves the file on the user's machine."""
    size = os.path.getsize(path)
    address = embedded(path) if size <= EMBEDDED_BYTES else relative_address(path)
    name = html.escape(os.path.basename(path))
    link = (
        f'Download <a download="{name}" href="{html.escape(address)}">{name}</a>'
        if address
        else f"{name} is too big for a link and not below the notebook's folder; it is at"
    )
    _display(f"{link} <code>{html.escape(os.path.abspath(path))}</code>", path)


def show_view(path: str) -> None:
    """Display a link that opens the file or folder in the notebook's page."""
    address = relative_address(path)
    name = html.escape(os.path.basename(os.path.abspath(path)) or path)
    link = f'<a href="{html.escape(address)}">{name}</a> ' if address else ""
    _display(f"{link}<code>{html.escape(os.path.abspath(path))}</code>", path)


def embedded(path: str) -> str:
    """Return the file as a data address."""
    kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
    with open(path, "rb") as file:
        return f"data:{kind};base64,{base64.b64encode(file.read()).decode('ascii')}"


def relative_address(path: str) -> str:
    """Return the address a notebook server gives a file below the notebook's folder; "" for a file elsewhere."""
    name = os.environ.get("JPY_SESSION_NAME", "")  # the notebook's path, where the server tells it
    folder = os.path.dirname(name) if os.path.isabs(name) else os.getcwd()
    try:
        below = os.path.relpath(os.path.realpath(path), os.path.realpath(folder))
    except ValueError:  # another drive on Windows
        return ""
    return "" if below.split(os.sep)[0] == os.pardir else quote(below.replace(os.sep, "/"))


def _display(text: str, path: str) -> None:
    from IPython.display import display

    sys.stdout.flush()  # what was printed before stays before
    display({"text/html": f'<div class="colabkit-file">{text}</div>', "text/plain": os.path.abspath(path)}, raw=True)
