"""google.colab.snippets: code snippets in the side pane of Colab's page."""

from __future__ import annotations

from colabkit.colab.place import here, real

__all__ = ["register"]


def register(url):
    """Add a notebook's snippets to Colab's snippets pane; does nothing where there is no such pane."""
    runtime = here()
    colab = real("snippets", runtime, answered=runtime.answers_javascript)
    if colab:
        colab.register(url)
