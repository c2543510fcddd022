"""The house in figures, by room: logical lines, and modules that have a test of their own.

`python -m tests.house.mirrors`

A logical line is one statement, however it is broken: a NEWLINE token of tokenize. A module colabkit/a/b.py is mirrored
when there is tests/a/test_b.py; a package's own __init__.py, where it holds more than its docstring, by
tests/a/test_a.py.
"""

from __future__ import annotations

import tokenize
from collections import Counter
from pathlib import Path

from colabkit.core.table import Table

ROOT = Path(__file__).resolve().parents[2]


def logical_lines(path: Path) -> int:
    """Return how many statements a file holds."""
    with tokenize.open(path) as file:
        return sum(token.type == tokenize.NEWLINE for token in tokenize.generate_tokens(file.readline))


def room_of(path: Path) -> str:
    """Return the room of a module of the package: a folder of it, a pipeline, "front door" for what lies beside."""
    *folders, _ = path.relative_to(ROOT / "colabkit").parts
    if not folders:
        return "front door"
    return "/".join(folders[:2] if folders[0] in ("io", "training", "pipelines") else folders[:1])


def place_of_test(path: Path) -> Path:
    """Return where the test of a module belongs."""
    inside = path.relative_to(ROOT)
    name = inside.parent.name if path.stem == "__init__" else path.stem
    return ROOT / "tests" / Path(*inside.parent.parts[1:]) / f"test_{name}.py"


def mirrored(modules: list[Path]) -> dict[Path, bool]:
    """Tell of each module that holds code whether it has its test."""
    return {
        path: place_of_test(path).is_file()
        for path in modules
        if path.stem != "__main__" and not (path.stem == "__init__" and logical_lines(path) < 5)
    }


def table() -> Table:
    """Return logical lines, files and mirrored modules by room, with the totals."""
    modules = sorted((ROOT / "colabkit").rglob("*.py"))
    lines, files, have, of = Counter(), Counter(), Counter(), Counter()
    for path in modules:
        lines[room_of(path)] += logical_lines(path)
        files[room_of(path)] += 1
    for path, is_there in mirrored(modules).items():
        have[room_of(path)] += is_there
        of[room_of(path)] += 1
    rows = [[room, lines[room], files[room], f"{have[room]} of {of[room]}"] for room in sorted(lines)]
    rows.append(
        ["all", lines.total(), files.total(), f"{have.total()} of {of.total()}, {have.total() / of.total():.1%}"]
    )
    return Table(["room", "logical lines", "files", "with a test of their own"], rows)


if __name__ == "__main__":
    print(table())
    for path, is_there in mirrored(sorted((ROOT / "colabkit").rglob("*.py"))).items():
        if not is_there:
            print(f"  {place_of_test(path).relative_to(ROOT)} is not there")
