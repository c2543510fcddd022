"""What README.md promises is there: its links, its commands, its list of notebooks."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from colabkit.cli import _parser
from colabkit.pipelines import discover
from notebooks.stamp import address

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"

pytestmark = pytest.mark.skipif(not README.exists(), reason="README.md is not written yet")


@pytest.fixture(scope="module")
def text() -> str:
    return README.read_text(encoding="utf-8")


def targets(text: str) -> list[str]:
    """Return where Markdown links and images lead, those within the page left out."""
    return [found.partition("#")[0] for found in re.findall(r"\]\(([^)\s#][^)\s]*)", text)]


def links(text: str) -> list[str]:
    """Return the relative targets of Markdown links and images."""
    return [target for target in targets(text) if not re.match(r"[a-z]+:", target)]


def commands(text: str) -> list[str]:
    """Return the lines of shell blocks and of inline code that call make or colabkit."""
    blocks = re.findall(r"```(?:bash|sh|shell|console|text)?\n(.*?)```", text, flags=re.DOTALL)
    lines = [line.strip().removeprefix("$ ") for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"(?<!`)`((?:colabkit|make|python -m colabkit) [^`\n]+)`(?!`)", text)
    return [
        line.partition("  #")[0].strip()
        for line in lines
        if re.match(r"(?:colabkit|make|python3? -m colabkit)\b", line)
    ]


def test_links_lead_somewhere(text):
    assert not links(text), f"a package index shows README.md with no files beside it: run make stamp for {links(text)}"
    ours = rf"{re.escape(address().link('', image=False))}|{re.escape(address().link('', image=True))}"
    named = [re.sub(ours, "", target) for target in targets(text) if re.match(ours, target)]
    assert len(named) >= 5, "the documents, the benchmarks, a picture"
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing, f"README.md links to what is not there: {missing}"


def test_commands_are_real(text):
    found = commands(text)
    assert len(found) >= 3, "README.md shows how to install, run and test"
    assert any(line.startswith("make ") for line in found) and any("colabkit run" in line for line in found)
    for line in found:
        assert is_real(line), f"README.md shows a command that does not exist: {line}"


def is_real(line: str) -> bool:
    """Tell whether a command's target, subcommand, options and settings exist; nothing is carried out."""
    words = [w for w in shlex.split(line) if w not in ("|", "...")]
    if words[0] == "make":
        return subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, capture_output=True).returncode == 0
    words = words[words.index("colabkit") + 1 :]
    if not words or words[0].startswith("-"):
        return words in ([], ["--help"])
    try:
        options = _parser().parse_args(words)
    except SystemExit as end:
        return end.code == 0
    from colabkit.core.errors import ColabkitError
    from colabkit.launch import configure

    try:
        if hasattr(options, "preset"):
            configure(options.name, options.preset, options.set, say=lambda _: None)
    except ColabkitError:
        return False
    return True


def test_every_notebook_is_in_the_table(text):
    rows = [line for line in text.splitlines() if line.lstrip().startswith("|")]
    for pipeline in discover():
        assert any(f"notebooks/{pipeline.notebook}.ipynb" in row for row in rows), (
            f"{pipeline.notebook} is not in the table"
        )


def test_notebooks_named_exist(text):
    named = set(re.findall(r"\b(\d\d_[a-z0-9_]+)\.ipynb", text))
    assert named == {p.notebook for p in discover()}


def test_checks_themselves():
    assert links("[a](b/c.md#x) ![d](e.png) [f](https://g) [h](#i)") == ["b/c.md", "e.png"]
    assert targets("[a](b/c.md#x) [f](https://g#h) [h](#i)") == ["b/c.md", "https://g"]
    shown = "Run `make test`.\n```bash\n$ colabkit run diarization --set train.steps=5  # short\nls\n```"
    assert commands(shown) == ["colabkit run diarization --set train.steps=5", "make test"]
    assert (
        is_real("colabkit run diarization --set train.steps=5")
        and is_real("make test")
        and is_real("python -m colabkit list")
    )
    for wrong in (
        "colabkit fly",
        "colabkit run diarization --fast",
        "colabkit run diarization --set train.stepz=5",
        "colabkit run diarization --preset huge",
        "colabkit run nothing",
        "make cake",
    ):
        assert not is_real(wrong), wrong
