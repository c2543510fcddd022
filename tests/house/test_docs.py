"""What the documents in docs/ promise is there: their links and headings, their commands, the places they name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.house.test_readme import commands, is_real, links

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted((ROOT / "docs").glob("*.md"))


def anchors(text: str) -> set[str]:
    """Return the names that GitHub gives the headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def whole(line: str) -> str:
    """Return a command that can be looked at whole: prose names some by their first words alone."""
    words = line.split()
    return " ".join([*words[:2], "--help"]) if words[0] == "colabkit" and (len(words) == 2 or "..." in words) else line


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_links_and_commands(path):
    text = path.read_text(encoding="utf-8")
    assert not [target for target in links(text) if not (path.parent / target).exists()]
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors(text)
    for line in commands(text):
        assert is_real(whole(line)), f"{path.name} shows a command that does not exist: {line}"


def test_where_to_run_names_every_place_and_real_files():
    text = (ROOT / "docs" / "where-to-run.md").read_text(encoding="utf-8")
    places = re.findall(r"^\| \[", text, flags=re.MULTILINE)
    assert len(re.findall(r"^## ", text, flags=re.MULTILINE)) == len(places) + 1 == 7 and len(commands(text)) >= 3
    for name in re.findall(r"notebooks/[\w.]+\.ipynb", text):
        assert (ROOT / name.replace("_output", "")).exists(), name


def test_checks_themselves():
    assert is_real(whole("colabkit run")) and is_real(whole("colabkit run ... --processes 2"))
    assert (
        not is_real(whole("colabkit fly"))
        and not is_real(whole("colabkit fly ... x"))
        and not is_real("colabkit run --fly")
    )
    assert anchors("# A b\n## Colab's line, *x*\n```\n# no\n```") == {"a-b", "colabs-line-x"}
