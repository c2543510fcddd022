"""Write the repository's address, and what the notebook needs, into every notebook and document: make stamp.

The address stands in one place, pyproject.toml: [project.urls] Repository, and [tool.colabkit] revision, the branch or
tag that badges open, and that install cells install and errors name. On a branch both say the branch; for a release set
the revision to its tag, run `make stamp` and tag the commit: its notebooks then bring the code they were made with. An
install cell looks for all that its extra asks for, as pyproject.toml says: colabkit may be there from another notebook,
without it. Links to files of the repository are made absolute: a package index shows README.md with no files beside it.
Everything else is kept byte for byte.
"""

from __future__ import annotations

import os
import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_GITHUB = re.compile(r"https://github\.com/(?P<project>[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+?)(?:\.git)?/?")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")
_BADGE = re.compile(r"https://colab\.research\.google\.com/github/[^\s\"')]*?(?=/notebooks/)")
_NOT_INSTALLED = "Not installed: mend what pip says above (more without --quiet), restart the kernel, run again"
_INSTALL = re.compile(r"(?:(?<=\] @ )|(?<=^INSTALLED_FROM = \"))git\+[^\s\"'`\\]+", re.MULTILINE)
_EXTRA = re.compile(r"colabkit\[(?P<extra>\w+)\] @ ")
_LINK = re.compile(
    r"(?P<image>!?)(?P<text>\[[^\]\n]*\]\()(?:https://github\.com/[\w.-]+/[\w.-]+/(?:blob|raw)/[^\s)]*?/)?"
    r"(?P<path>(?:benchmarks|docs|notebooks)/[^\s)#]+)"
)
_IMPORTED_AS = {"pyyaml": "yaml", "scikit-learn": "sklearn"}
_NEEDED = re.compile(r'(?<=NEEDED = \\")[a-z0-9_ ]*(?=\\")')  # as JSON has it


@dataclass(frozen=True, slots=True)
class Address:
    """Where the repository is, and which revision of it notebooks are opened at and install."""

    project: str  # owner/name on GitHub
    revision: str

    @property
    def badge(self) -> str:
        """Where Colab opens the repository; a notebook's path follows."""
        return f"https://colab.research.google.com/github/{self.project}/blob/{self.revision}"

    def link(self, path: str, *, image: bool) -> str:
        """Where GitHub shows a file of the repository, or hands it out as it is for a picture in a page."""
        return f"https://github.com/{self.project}/{'raw' if image else 'blob'}/{self.revision}/{path}"

    @property
    def install(self) -> str:
        """What pip installs from."""
        return f"git+https://github.com/{self.project}@{self.revision}"


def address(root: Path = ROOT) -> Address:
    """Read the address from pyproject.toml; SystemExit says what is wrong with it."""
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    url = settings.get("project", {}).get("urls", {}).get("Repository", "")
    revision = settings.get("tool", {}).get("colabkit", {}).get("revision", "")
    found = _GITHUB.fullmatch(url)
    if found is None:
        raise SystemExit(
            f"pyproject.toml: [project.urls] Repository is {url!r}, expected https://github.com/OWNER/NAME\n"
            "  (Colab opens notebooks from GitHub only)"
        )
    if not _REVISION.fullmatch(revision):
        raise SystemExit(
            f'pyproject.toml: [tool.colabkit] revision is {revision!r}, expected a branch or a tag, as in "main"'
        )
    return Address(found["project"], revision)


def modules_of(extra: str, root: Path = ROOT) -> list[str]:
    """Return the names of the modules that an extra and colabkit itself ask for, as they are imported."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found, waiting = set(), [*project["dependencies"], f"colabkit[{extra}]"]
    while waiting:
        name, _, extras = re.match(r"([\w.-]+)(\[([\w,-]+)\])?", waiting.pop()).groups()
        if name == project["name"]:
            waiting += [text for one in extras.split(",") for text in project["optional-dependencies"].get(one, [])]
        else:
            found.add(_IMPORTED_AS.get(name, name.replace("-", "_")))
    return sorted(found)


def install_cell(pipeline: str, where: Address) -> str:
    """Return the code that every notebook's install cell holds."""
    return f'''from importlib.util import find_spec

NEEDED = "{" ".join(modules_of(pipeline))}"
# A folder named colabkit, such as the one of the state, is not the package: it has no origin.
if getattr(find_spec("colabkit"), "origin", None) is None or None in map(find_spec, NEEDED.split()):
    %pip install --quiet "colabkit[{pipeline}] @ {where.install}"
assert getattr(find_spec("colabkit"), "origin", None) and None not in map(find_spec, NEEDED.split()), \
"{_NOT_INSTALLED}"'''


def stamped(text: str, where: Address, root: Path = ROOT) -> str:
    """Return a notebook's or document's text with every badge, install line and link to our files at the address."""

    def linked(found: re.Match[str]) -> str:
        if not (root / found["path"]).exists():  # of another repository
            return found[0]
        return found["image"] + found["text"] + where.link(found["path"], image=bool(found["image"]))

    text = _LINK.sub(linked, _INSTALL.sub(where.install, _BADGE.sub(where.badge, text)))
    extra = _EXTRA.search(text)
    return _NEEDED.sub(" ".join(modules_of(extra["extra"], root)), text) if extra else text


def places(root: Path = ROOT) -> list[Path]:
    """List the files that may hold the address: notebooks, README.md, documents, and the package for its errors."""
    return sorted(
        [
            *root.glob("notebooks/*.ipynb"),
            *root.glob("README.md"),
            *root.glob("docs/*.md"),
            *root.glob("colabkit/core/errors.py"),
        ]
    )


def stamp(root: Path = ROOT) -> list[Path]:
    """Stamp all files; returns those that changed.

    A notebook without badge or install line is an error: nothing is written.
    """
    where, changed = address(root), {}
    for path in places(root):
        text = path.read_bytes().decode("utf-8")
        if path.suffix == ".ipynb" and not (_BADGE.search(text) and _INSTALL.search(text)):
            raise SystemExit(f"{path}: has no badge or no install line to stamp; copy both from another notebook")
        if stamped(text, where, root) != text:
            changed[path] = stamped(text, where, root)
    for path, text in changed.items():
        beside = path.with_name(f".{path.name}.stamping")
        beside.write_bytes(text.encode("utf-8"))
        os.replace(beside, path)
    return list(changed)


if __name__ == "__main__":
    for stamped_file in stamp():
        print(f"stamped {stamped_file.relative_to(ROOT)}", file=sys.stdout)
    print(f"badges and install cells say {address().install}")
