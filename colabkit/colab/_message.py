"""google.colab._message, which libraries such as wandb ask for the notebook's text: nobody answers, and at once."""

from __future__ import annotations

from colabkit.colab.errors import Error
from colabkit.colab.place import here, real


class MessageError(Error):
    """Colab's page answered with an error."""


def blocking_request(request_type, request="", timeout_sec=5, parent=None):
    """Ask Colab's page and return its answer; None, as after a time-out, where there is no such page."""
    runtime = here()
    colab = real("_message", runtime, answered=runtime.answers_javascript)
    return colab.blocking_request(request_type, request, timeout_sec, parent) if colab else None
