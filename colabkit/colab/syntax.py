"""google.colab.syntax: name the language of a text, so that Colab's editor colours it; returns the text as it is."""

from __future__ import annotations

__all__ = ["css", "html", "javascript", "sql"]


def html(s):
    """Return the HTML text `s`."""
    return s


def javascript(s):
    """Return the JavaScript text `s`."""
    return s


def sql(s):
    """Return the SQL text `s`."""
    return s


def css(s):
    """Return the CSS text `s`."""
    return s
