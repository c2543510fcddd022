"""A file of this machine as a link in a notebook's page: its bytes in the link, or its place below the notebook."""

from __future__ import annotations

import base64
import re
from pathlib import Path

from colabkit.colab import file_links


def test_small_files_are_in_the_link_itself():
    Path("a.csv").write_bytes(b"x,y\n")
    address = file_links.embedded("a.csv")
    assert address.startswith("data:text/csv;base64,") and base64.b64decode(address.partition(",")[2]) == b"x,y\n"


def test_addresses_below_the_notebook(tmp_path, monkeypatch):
    notebooks = tmp_path / "notebooks"
    (notebooks / "out").mkdir(parents=True)
    monkeypatch.setenv("JPY_SESSION_NAME", str(notebooks / "n.ipynb"))
    monkeypatch.chdir(notebooks / "out")
    assert file_links.relative_address("a b?.wav") == "out/a%20b%3F.wav"
    assert file_links.relative_address(str(notebooks / "x")) == "x"
    assert file_links.relative_address(str(tmp_path / "outside")) == ""
    assert file_links.relative_address(str(tmp_path / "..x")) == "" and file_links.relative_address("..x") == "out/..x"


def test_a_file_name_cannot_smuggle_markup(monkeypatch):
    shown = []
    monkeypatch.setattr(file_links, "_display", lambda text, path: shown.append(text))
    name = 'a"><img src=x onerror=alert(1)>.txt'
    Path(name).write_text("x")
    file_links.show_download(name)
    file_links.show_view(name)
    Path("big" + name).write_bytes(b"\0" * (file_links.EMBEDDED_BYTES + 1))
    file_links.show_download("big" + name)
    assert len(shown) == 3 and not any(re.search(r"<img|\"><", text) for text in shown)
