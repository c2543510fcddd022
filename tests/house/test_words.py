"""House rules about words: names, docstrings, what may not stand in any file, and errors that are not swallowed."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FORBIDDEN_STEMS = {"utils", "util", "common", "helpers", "helper", "base", "misc"}
# The product speaks of itself alone: nothing of where and by whom it was made.
FORBIDDEN_WORDS = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"farm[-_ ]studio",
        r"(?<![\w.])/work/",
        r"sub-?agent",
        r"\bchatgpt\b",
        r"\bclaude\b",
        r"\banthropic\b",
        r"\bcopilot\b",
        r"\bas an ai\b",
        r"/tmp/brief",
        r"\bDESIGN\.md\b",
        r"\bTODO\b",
        r"\bFIXME\b",
    )
]
NOT_SEARCHED = {Path(__file__).relative_to(ROOT).as_posix()}  # it names them all


def tracked() -> list[Path]:
    """Return every file that is or would be in the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return sorted({ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()})


def python_files(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found
    return found


def test_names_say_what_is_inside():
    found = [p for p in tracked() if p.stem in FORBIDDEN_STEMS]
    assert not found, f"say in the name what is in these: {found}"


def test_forbidden_words():
    files = tracked()
    assert len(files) > 50
    found = [line for p in files if p.relative_to(ROOT).as_posix() not in NOT_SEARCHED for line in words_in(p)]
    assert not found, "\n".join(found)


def words_in(path: Path) -> list[str]:
    """Return "file:line: word" for every forbidden word of a text file."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return []
    return [
        f"{path.name}:{text.count(chr(10), 0, match.start()) + 1}: {match.group()!r}"
        for pattern in FORBIDDEN_WORDS
        for match in pattern.finditer(text)
    ]


@pytest.mark.parametrize(
    "text", ["see /work/shared", "farm-studio", "Farm Studio", "a subagent did", "# TODO: x", "DESIGN.md"]
)
def test_forbidden_words_are_found(text, tmp_path):
    (tmp_path / "a.txt").write_text("fine\n" + text)
    assert [line.split(":")[1] for line in words_in(tmp_path / "a.txt")] == ["2"]


@pytest.mark.parametrize("text", ["framework/network/x", "https://x.org/work", "the baseline"])
def test_harmless_words_pass(text, tmp_path):
    (tmp_path / "a.txt").write_text(text)
    assert words_in(tmp_path / "a.txt") == []


def test_every_module_says_what_it_is():
    silent = [
        str(p.relative_to(ROOT))
        for folder in ("colabkit", "tests", "benchmarks")
        for p in python_files(folder)
        if not ast.get_docstring(ast.parse(p.read_text(encoding="utf-8")))
        and p.name not in ("__main__.py",)
        and p.read_text().strip()
    ]
    assert not silent, f"no docstring: {silent}"


def test_faults_of_the_package():
    found = [
        f"{p.relative_to(ROOT)}:{fault}"
        for p in python_files("colabkit")
        for fault in faults_in(p.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


def faults_in(text: str) -> list[str]:
    """Return "line: fault" for swallowed errors, public functions without a docstring and errors without a cure."""
    found = []
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            wide = node.type is None or getattr(node.type, "id", "") in ("Exception", "BaseException")
            if node.type is None:
                found.append(f"{node.lineno}: bare except")
            elif wide and all(isinstance(s, (ast.Pass, ast.Continue)) for s in node.body):
                found.append(f"{node.lineno}: every error is swallowed; catch the ones expected")
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            name = getattr(node.exc.func, "id", "")
            if name in (
                "DataError",
                "UsageError",
                "StateError",
                "ChangedError",
                "ColabkitError",
                "Stopped",
            ) and "fix" not in [k.arg for k in node.exc.keywords]:
                found.append(f"{node.lineno}: {name} without fix=")
    found += [f"{f.lineno}: {f.name} has no docstring" for f in public_functions(tree) if not ast.get_docstring(f)]
    return found


def public_functions(tree: ast.Module) -> list[ast.FunctionDef]:
    """Return functions of the module without a leading underscore: what others call."""
    functions = [node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    return [node for node in functions if not node.name.startswith("_")]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("try:\n    x\nexcept:\n    y", "bare except"),
        ("try:\n    x\nexcept Exception:\n    pass", "swallowed"),
        ("for a in b:\n    try:\n        x\n    except BaseException:\n        continue", "swallowed"),
        ("def f():\n    return 1", "no docstring"),
        ("def _f():\n    raise DataError('x')", "without fix="),
    ],
)
def test_each_fault_is_seen(text, part):
    assert [part in fault for fault in faults_in(text)] == [True]


def test_good_text_has_no_faults():
    text = (
        'def f():\n    """Do."""\n    try:\n        x\n    except OSError:\n        pass\n'
        '    raise DataError("x", fix="y")'
    )
    assert faults_in(text) == []
