"""Names of modules: no two of a scope that differ by an ending, no crumbs, docstrings that begin with the noun."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2] / "colabkit"
MODULES = sorted(p for p in ROOT.rglob("*.py") if not p.stem.startswith("__"))
ENDINGS = ("ations", "ation", "ings", "ing", "ions", "ion", "ers", "er", "ors", "or", "ed", "es", "e", "s", "y")
FEWEST_LINES = 30
ASKING = {"What", "Where", "How", "Which", "When", "Who", "Why", "nothing"}
MIRRORED = {"colab"}  # its modules are those of google.colab, however short
FOUND_BY_NAME = {"needs", "step"}  # by colabkit/pipelines, and by whoever reads a recipe


def stem(name: str) -> str:
    """Return a module's name without the endings of its words: predict of predictions, predict, predicting."""

    def cut(word: str) -> str:
        return next((word[: -len(e)] for e in ENDINGS if word.endswith(e) and len(word) - len(e) >= 3), word)

    return "_".join(map(cut, name.split("_")))


def scopes_of(modules: list[Path]) -> dict[str, set[str]]:
    """Return {scope: names in it}: those side by side in a folder, and all within one pipeline."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in modules:
        folder = path.parent.relative_to(ROOT)
        found[str(folder)].add(path.stem)
        found[str(folder.parent)].add(folder.name)
        if folder.parts[:1] == ("pipelines",) and len(folder.parts) > 1:
            found[f"pipelines/{folder.parts[1]}, all of it"].add(path.stem)
    return found


def twins(names: set[str]) -> list[list[str]]:
    """Return the groups of names that differ by an ending."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        groups[stem(name)].append(name)
    return [group for group in groups.values() if len(group) > 1]


@pytest.mark.parametrize(
    "names, found",
    [
        ({"predict", "predictions"}, [["predict", "predictions"]]),
        ({"encode", "encoding", "encoder"}, [["encode", "encoder", "encoding"]]),
        ({"source", "sources"}, [["source", "sources"]]),
        ({"listen", "listened", "list"}, [["listen", "listened"]]),
        ({"shard", "share", "short"}, []),
        ({"run_codec", "run_codecs"}, [["run_codec", "run_codecs"]]),
    ],
)
def test_twins_are_recognised(names, found):
    assert twins(names) == found


def test_no_two_modules_of_one_scope_differ_by_an_ending():
    assert {scope: found for scope, names in scopes_of(MODULES).items() if (found := twins(names))} == {}


def test_what_is_short_lives_with_a_neighbour():
    crumbs = [
        f"{path.relative_to(ROOT)}: {count} lines"
        for path in MODULES
        if path.relative_to(ROOT).parts[0] not in MIRRORED
        and path.stem not in FOUND_BY_NAME
        and (count := len(path.read_text(encoding="utf-8").splitlines())) < FEWEST_LINES
    ]
    assert crumbs == [], "a neighbour takes them in"


def test_docstrings_of_modules_begin_with_the_noun():
    trees = {str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8")) for path in ROOT.rglob("*.py")}
    firsts = {name: (ast.get_docstring(tree) or "nothing").split()[0] for name, tree in trees.items()}
    assert {name: first for name, first in firsts.items() if first in ASKING} == {}, "begin with the name of the thing"
