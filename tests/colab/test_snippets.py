"""google.colab.snippets: code snippets in the side pane of Colab's page."""

from __future__ import annotations

from types import SimpleNamespace

from colabkit.colab import snippets


def test_colabs_page_gets_the_address_and_no_other_is_asked(monkeypatch):
    taken = []
    assert snippets.register("https://example.org/none.ipynb") is None, "no page, and nothing is fetched"
    colab = SimpleNamespace(register=taken.append)
    monkeypatch.setattr(snippets, "real", lambda name, runtime, *, answered: colab)
    snippets.register("https://example.org/some.ipynb")
    assert taken == ["https://example.org/some.ipynb"]
