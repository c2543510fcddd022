"""The published list of what a Colab runtime brings, as of its date: python -m tests.install.colab_freeze renews it.

Written from https://github.com/googlecolab/backend-info (or a checkout of it, given as the argument) to
colab-freeze.txt, the runtime without a GPU, and colab-freeze-gpu.txt, what the one with a GPU has beside it. Lines are
pip's own.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name

SOURCE = "https://github.com/googlecolab/backend-info"
FREEZE = Path(__file__).with_name("colab-freeze.txt")
GPU_FREEZE = Path(__file__).with_name("colab-freeze-gpu.txt")
_WHEEL_VERSION = re.compile(r"/[A-Za-z0-9_.]+-(?P<version>\d[^-/]*?)(?:%2B[^-/]*)?-[^/]*\.whl")


@dataclass(frozen=True, slots=True)
class Pin:
    """One package of the list.

    `version`: "" where only a place is told that no index has; `line`: as it is published.
    """

    name: str
    version: str
    line: str


def pins(path: Path = FREEZE) -> list[Pin]:
    """Return the packages of a list, in its order."""
    return [_pin(line) for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]


def _pin(line: str) -> Pin:
    name, _, place = line.partition(" @ ")
    if not place:
        name, _, version = line.partition("==")
        return Pin(canonicalize_name(name), version.partition("+")[0], line)
    found = _WHEEL_VERSION.search(place) if "pytorch.org" in place else None
    return Pin(canonicalize_name(name), found["version"] if found else "", line)


def told(path: Path = FREEZE) -> dict[str, str]:
    """Return what the head of a list says of it: Date, Python, Source."""
    return dict(re.findall(r"^# (Date|Python|Source): (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE))


def renew(source: str) -> None:
    """Write both lists from a git repository."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [
                "git",
                "clone",
                "--quiet",
                "--depth",
                "1",
                source if "://" in source else f"file://{Path(source).resolve()}",
                folder,
            ],
            check=True,
        )
        commit, date = subprocess.run(
            ["git", "-C", folder, "log", "-1", "--format=%H %cs"], check=True, capture_output=True, text=True
        ).stdout.split()
        texts = {
            name: Path(folder, name).read_text(encoding="utf-8")
            for name in ("pip-freeze.txt", "pip-freeze.gpu.txt", "os-info.txt")
        }
    python = re.search(r"^Python (\S+)", texts["os-info.txt"], re.MULTILINE)[1]
    plain, gpu = (_lines(texts[name]) for name in ("pip-freeze.txt", "pip-freeze.gpu.txt"))
    names = {_pin(line).name for line in plain}
    head = f"# Date: {date}\n# Python: {python}\n# Source: {SOURCE} at {commit}\n"
    again = "# Renewed by: python -m tests.install.colab_freeze\n"
    beside = [line for line in gpu if _pin(line).name not in names]
    for path, title, lines in (
        (FREEZE, "# What a Colab runtime without a GPU brings.\n", plain),
        (GPU_FREEZE, "# What a Colab runtime with a GPU has beside colab-freeze.txt.\n", beside),
    ):
        path.write_text(title + head + again + "\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(plain)} packages and {len(beside)} more with a GPU, of {date}, Python {python}")


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


if __name__ == "__main__":
    renew(sys.argv[1] if len(sys.argv) > 1 else SOURCE)
