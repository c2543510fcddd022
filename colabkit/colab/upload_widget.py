"""The upload button: shown by a running cell, which goes on as soon as files have come or Cancel is pressed."""

from __future__ import annotations

import html
import os
from typing import Any

from colabkit.colab.place import show_widget
from colabkit.colab.waiting import WidgetMessages
from colabkit.core.versions.differences import uploaded_files

_LOOK_SECONDS = 0.1
# A notebook server closes the connection at a message of 10 MiB, and the files come as one.
_ADVICE = "Up to 9 MB in all. Bigger files: drag them into the file browser, then type the path here."
_NO_BUTTON = (
    "An upload button should stand here. If there is none, interrupt this cell and set COLABKIT_UPLOADS to the "
    "files' paths."
)


def ask_for_files(*, multiple: bool) -> tuple[list[tuple[str, bytes]], str]:
    """Show the button and wait; returns what was uploaded as (name, content), or a typed path, or neither."""
    import ipywidgets
    from IPython import get_ipython

    upload = ipywidgets.FileUpload(multiple=multiple, description="Upload")
    cancel = ipywidgets.Button(description="Cancel")
    path = ipywidgets.Text(placeholder="or a path on the notebook's machine", continuous_update=False)
    advice = ipywidgets.HTML(f"<small>{html.escape(_ADVICE)}</small>")
    row = ipywidgets.HBox([upload, cancel, path])
    box = ipywidgets.VBox([row, advice])
    cancelled: list[bool] = []
    cancel.on_click(lambda _: cancelled.append(True))
    for widget, name in ((box, "colabkit-upload"), (cancel, "colabkit-upload-cancel"), (path, "colabkit-upload-path")):
        widget.add_class(name)
    handle = show_widget(box, _NO_BUTTON)
    files: list[tuple[str, bytes]] = []
    typed = ""
    try:
        with WidgetMessages(get_ipython().kernel) as messages:
            while not (cancelled or upload.value or path.value.strip()):
                messages.receive(_LOOK_SECONDS)
        if not cancelled:
            files, typed = files_of(upload.value), path.value.strip()
    finally:
        # Nothing is left that would look alive in the saved notebook.
        said = ", ".join(name for name, _ in files) or typed or "nothing"
        handle.update({"text/plain": f"Uploaded: {said}"}, raw=True)
        for widget in (upload, cancel, path, row, advice, box):
            widget.close()
    return files, typed


def files_of(value: Any) -> list[tuple[str, bytes]]:
    """Return (name, content) of what an upload button holds, the names without folders."""
    return [(bare_name(name), content) for name, content in uploaded_files(value)]


def bare_name(name: str) -> str:
    """Return a file's name without folders, whichever way its sender's machine writes them."""
    bare = os.path.basename(name.replace("\\", "/").replace("\0", ""))
    return bare if bare not in ("", ".", "..") else "upload"
