"""The repository's address stands in one place and is stamped into the rest: idempotent, byte for byte elsewhere."""

from __future__ import annotations

import difflib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from notebooks.stamp import Address, address, modules_of, places, stamp, stamped

ROOT = Path(__file__).resolve().parents[2]
COLAB = "https://colab.research.google.com"


@pytest.fixture
def copy(tmp_path):
    """Return a copy of what is stamped and of what it links to, beside a pyproject.toml that can be changed."""
    for path in (ROOT / "pyproject.toml", ROOT / "benchmarks/README.md", *ROOT.glob("docs/*.png"), *places(ROOT)):
        (tmp_path / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, tmp_path / path.relative_to(ROOT))
    return tmp_path


def move(root: Path, project: str, revision: str) -> None:
    old = address(root)
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    text = text.replace(f"https://github.com/{old.project}", f"https://github.com/{project}")
    (root / "pyproject.toml").write_text(text.replace(f'revision = "{old.revision}"', f'revision = "{revision}"'))


def contents(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in places(root)}


def test_everything_here_is_stamped():
    where = address()
    for path in places():
        text = path.read_text(encoding="utf-8")
        assert stamped(text, where) == text, f"{path.name} says another address: run make stamp"
    assert any(path.suffix == ".ipynb" for path in places()) and ROOT / "README.md" in places()


def test_the_address_stands_nowhere_else():
    """A copy of it in code or prose would stay behind when the repository moves."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    address_text, allowed = f"github.com/{address().project}", {ROOT / "pyproject.toml", *places()}
    for name in filter(None, listed.stdout.decode().split("\0")):
        path = ROOT / name
        if path.is_file() and path not in allowed:
            assert address_text.encode() not in path.read_bytes(), (
                f"{name} holds the repository's address: read it instead"
            )


def test_nothing_tells_to_install_by_the_name_alone():
    """On the package index the name belongs to somebody else."""
    by_name = re.compile(r"""pip\W+install\W[^\n@]*?(?<![\w/.-])colabkit\b(?!(\[[^\]]*\])? @ )""")
    for text in ("pip install colabkit", "%pip install -q 'colabkit[asr]'", "pip install -U colabkit; or"):
        assert by_name.search(text)
    assert not by_name.search('pip install x "colabkit[a,b] @ git+https://y"')
    for path in (*places(), *ROOT.glob("colabkit/**/*.py"), *ROOT.glob("benchmarks/**/*.py"), ROOT / "install.py"):
        found = by_name.search(path.read_text(encoding="utf-8"))
        assert found is None, (
            f"{path.relative_to(ROOT)} says {found[0]!r}: name the repository, as errors.install_command does"
        )


@pytest.mark.parametrize(
    ("project", "revision"), [("else-where/other.kit_2", "v0.2.0"), ("a/b", "release/1.0"), ("a/b", "main")]
)
def test_moving_the_repository_changes_the_address_and_nothing_else(copy, project, revision):
    before = contents(copy)
    move(copy, project, revision)
    changed = stamp(copy)
    assert [path for path in changed if path.suffix == ".ipynb"] == sorted(copy.glob("notebooks/*.ipynb"))
    for path, old in before.items():
        new = path.read_bytes()
        lines = [
            line
            for line in difflib.unified_diff(old.decode().splitlines(True), new.decode().splitlines(True), n=0)
            if line[0] in "+-" and line[:3] not in ("+++", "---")
        ]
        assert all(re.search(rf"{COLAB}|\]\(https://github\.com/|git\+https://github\.com/", line) for line in lines), (
            lines
        )
        assert stamped(new.decode(), address(ROOT)).encode() == old  # and back again
        if path.suffix == ".ipynb":
            text = "".join("".join(cell["source"]) for cell in json.loads(new)["cells"])
            assert f"]({COLAB}/github/{project}/blob/{revision}/notebooks/{path.name})" in text
            assert f'] @ git+https://github.com/{project}@{revision}"' in text
    assert stamp(copy) == []
    assert not list(copy.glob("**/.*stamping"))


def test_line_ends_and_bytes_are_kept(copy):
    path = next(copy.glob("notebooks/*.ipynb"))
    odd = path.read_bytes().replace(b"\n", b"\r\n").replace(b"Streaming", "Strëaming\u2028".encode())
    path.write_bytes(odd)
    move(copy, "a/b", "main")
    assert path in stamp(copy)
    assert stamped(path.read_bytes().decode(), address(ROOT)).encode() == odd


def test_old_forms_of_the_address_are_stamped_too():
    where = Address("a/b", "v1")
    assert (
        stamped('"colabkit[diarization] @ git+https://github.com/old/name"', where)
        == '"colabkit[diarization] @ git+https://github.com/a/b@v1"'
    )
    assert stamped("pip install 'colabkit[hubert] @ git+ssh://git@host/x.git@0f0f'", where).endswith(
        "git+https://github.com/a/b@v1'"
    )
    other = f"see https://github.com/pyannote/pyannote-audio and {COLAB}/assets/colab-badge.svg and pip install git+https://x"
    assert stamped(other, where) == other


def test_links_to_files_of_the_repository_become_absolute():
    """As README.md is shown on an index; a picture is asked for as it is, not as a page about it."""
    where = Address("a/b", "release/1.0")
    here = "https://github.com/a/b"
    assert (
        stamped("[x](docs/batch-size.md#y) ![z](docs/timeline.png)", where)
        == f"[x]({here}/blob/release/1.0/docs/batch-size.md#y) ![z]({here}/raw/release/1.0/docs/timeline.png)"
    )
    moved = stamped("[x](https://github.com/old/na.me/blob/release/0.9/docs/batch-size.md)", where)
    assert moved == f"[x]({here}/blob/release/1.0/docs/batch-size.md)"
    for other in (
        "[x](https://github.com/c/d/blob/main/docs/not-ours.md)",
        "[x](batch-size.md)",
        "[x](../docs/batch-size.md)",
        "docs/batch-size.md",
        "[x](https://c.org/docs/batch-size.md)",
    ):
        assert stamped(other, where) == other


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            'Repository = "https://github.com/',
            'Repository = "https://gitlab.com/',
            "expected https://github.com/OWNER/NAME",
        ),
        (
            'Repository = "https://github.com/',
            'Repository = "git@github.com:',
            "expected https://github.com/OWNER/NAME",
        ),
        ("Repository = ", "Homepage = ", "Repository is ''"),
        ('revision = "main"', 'revision = ""', "a branch or a tag"),
        ('revision = "main"', 'revision = "ma in"', "a branch or a tag"),
    ],
)
def test_an_address_that_cannot_be_is_told_and_nothing_written(copy, old, new, words):
    settings = copy / "pyproject.toml"
    assert old in settings.read_text()
    settings.write_text(settings.read_text().replace(old, new))
    before = contents(copy)
    with pytest.raises(SystemExit, match=words):
        stamp(copy)
    assert contents(copy) == before


def test_a_notebook_without_a_place_for_it_is_told_and_nothing_written(copy):
    (copy / "notebooks" / "99_new.ipynb").write_text('{"cells": []}')
    move(copy, "a/b", "main")
    before = contents(copy)
    with pytest.raises(SystemExit, match="99_new.ipynb: has no badge or no install line"):
        stamp(copy)
    assert contents(copy) == before


@pytest.mark.parametrize(
    "spelling", ["https://github.com/a/b", "https://github.com/a/b/", "https://github.com/a/b.git"]
)
def test_spellings_of_one_address(tmp_path, spelling):
    (tmp_path / "pyproject.toml").write_text(
        f'[project.urls]\nRepository = "{spelling}"\n[tool.colabkit]\nrevision = "main"\n'
    )
    assert address(tmp_path) == Address("a/b", "main")


def test_the_command_needs_nothing_installed_and_says_what_it_did(copy):
    shutil.copyfile(ROOT / "notebooks" / "stamp.py", copy / "notebooks" / "stamp.py")
    move(copy, "a/b", "v1")
    command = [sys.executable, "-I", "-S", str(copy / "notebooks" / "stamp.py")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "stamped notebooks/01_" in done.stdout, done.stderr
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "badges and install cells say git+https://github.com/a/b@v1\n"
    assert subprocess.run(["make", "--dry-run", "stamp"], cwd=ROOT, capture_output=True).returncode == 0


def test_an_install_cell_looks_for_all_that_its_extra_brings(copy):
    """colabkit may be there from another notebook: what tells is what the extra asks for."""
    assert {"num2words", "jiwer", "numpy", "espeakng_loader", "obstore", "torch"} <= set(modules_of("asr"))
    assert "silero_vad" in modules_of("dataset") and "silero_vad" not in modules_of("asr")
    settings = copy / "pyproject.toml"
    settings.write_text(re.sub(r'(  "num2words[^"]*",\n)', r'\1  "newly-needed>=1",\n', settings.read_text()))
    assert [path.name for path in stamp(copy)] == ["03_asr_auto_config.ipynb"] and stamp(copy) == []
    assert "newly_needed num2words" in (copy / "notebooks/03_asr_auto_config.ipynb").read_text()
