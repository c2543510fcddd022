"""What is installed where: the requirement files agree, licence and continuous integration are what they say."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from colabkit.pipelines import discover

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def lines_of(name: str) -> list[str]:
    return [line.strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines() if line.strip() and line[0] != "#"]


def flattened(extra: str) -> set[str]:
    """Return an extra's requirements, those of the extras it names included."""
    found = set()
    for text in EXTRAS[extra]:
        requirement = Requirement(text)
        if requirement.name == PROJECT["name"]:
            found |= {inner for name in requirement.extras for inner in flattened(name)}
        else:
            found.add(str(requirement))
    return found


def test_requirements_are_the_union_of_the_extras():
    wanted = set(map(str, map(Requirement, PROJECT["dependencies"])))
    for extra in ("voices", "notebook", *(p.name for p in discover())):
        wanted |= flattened(extra)
    assert set(map(str, map(Requirement, lines_of("requirements.txt")))) == wanted


def test_every_pipeline_has_an_extra():
    assert {p.name for p in discover()} <= set(EXTRAS)


def test_nothing_is_pinned_for_those_who_install():
    for text in (*PROJECT["dependencies"], *(t for extra in EXTRAS.values() for t in extra), *lines_of("requirements.txt")):
        operators = {s.operator for s in Requirement(text).specifier}
        assert operators <= {">=", "!=", "<"}, f"{text} would replace what Colab has"


def test_constraints_pin_one_fitting_version_of_each():
    pins = {canonicalize_name(r.name): r.specifier for r in map(Requirement, lines_of("constraints.txt"))}
    assert len(pins) == len(lines_of("constraints.txt")), "something is pinned twice"
    assert all(re.fullmatch(r"==[^*,]+", str(specifier)) for specifier in pins.values())
    needed = [Requirement(t) for t in PROJECT["dependencies"]] + [Requirement(t) for extra in EXTRAS for t in flattened(extra)]
    assert len(needed) > 15
    for requirement in needed:
        version = str(pins[canonicalize_name(requirement.name)]).removeprefix("==")
        assert requirement.specifier.contains(Version(version), prereleases=True), f"{requirement} but {version} is pinned"


def test_nothing_in_constraints_is_there_for_nothing():
    """Everything pinned is reached from what pyproject.toml asks for: a stray name is somebody else's package."""
    from importlib.metadata import PackageNotFoundError, distribution
    pins = {canonicalize_name(Requirement(line).name) for line in lines_of("constraints.txt")}
    waiting = [Requirement(t) for t in PROJECT["dependencies"]] + [Requirement(t) for extra in EXTRAS for t in flattened(extra)]
    reached: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for extra in ("", *requirement.extras):
            if (name, extra) in reached:
                continue
            reached.add((name, extra))
            try:
                needs = distribution(name).requires or []
            except PackageNotFoundError:
                continue
            waiting += [r for r in map(Requirement, needs) if r.marker is None or r.marker.evaluate({"extra": extra})]
    stray = sorted(pins - {name for name, _ in reached})
    assert not stray, f"pinned, but nothing asks for it: {stray}"


def test_licence_is_apache_2():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert PROJECT["license"] == "Apache-2.0"
    assert "Apache License" in text and "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text


def test_continuous_integration_is_one_command():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().startswith("#!/usr/bin/env bash\n") and re.search(r"^make test$", script.read_text(), re.MULTILINE)
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0


def test_data_files_of_the_package_are_shipped():
    globs = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for path in (ROOT / "colabkit").rglob("*"):
        if path.is_file() and path.suffix not in (".py", ".pyc"):
            package = ".".join(path.parent.relative_to(ROOT).parts)
            assert any(path.match(pattern) for pattern in globs.get(package, [])), f"{path} would be missing from a wheel"


@pytest.mark.parametrize("target", ["install", "demo", "test", "lint", "stamp"])
def test_make_targets_exist(target):
    done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
