"""What is installed where: the requirement files agree, licence and continuous integration are what they say."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from colabkit.pipelines import discover

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def lines_of(name: str) -> list[str]:
    return [
        line.strip()
        for line in (ROOT / name).read_text(encoding="utf-8").splitlines()
        if line.strip() and line[0] != "#"
    ]


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
    for text in (
        *PROJECT["dependencies"],
        *(t for extra in EXTRAS.values() for t in extra),
        *lines_of("requirements.txt"),
    ):
        operators = {s.operator for s in Requirement(text).specifier}
        assert operators <= {">=", "!=", "<"}, f"{text} would replace what Colab has"


def test_constraints_pin_one_fitting_version_of_each():
    pins = {canonicalize_name(r.name): r.specifier for r in map(Requirement, lines_of("constraints.txt"))}
    assert len(pins) == len(lines_of("constraints.txt")), "something is pinned twice"
    assert all(re.fullmatch(r"==[^*,]+", str(specifier)) for specifier in pins.values())
    needed = [Requirement(t) for t in PROJECT["dependencies"]] + [
        Requirement(t) for extra in EXTRAS for t in flattened(extra)
    ]
    assert len(needed) > 15
    for requirement in needed:
        version = str(pins[canonicalize_name(requirement.name)]).removeprefix("==")
        assert requirement.specifier.contains(Version(version), prereleases=True), (
            f"{requirement} but {version} is pinned"
        )


def test_nothing_in_constraints_is_there_for_nothing():
    """Everything pinned is reached from what pyproject.toml asks for: a stray name is somebody else's package."""
    from importlib.metadata import PackageNotFoundError, distribution

    pins = {canonicalize_name(Requirement(line).name) for line in lines_of("constraints.txt")}
    waiting = [Requirement(t) for t in PROJECT["dependencies"]] + [
        Requirement(t) for extra in EXTRAS for t in flattened(extra)
    ]
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
    assert script.read_text().startswith("#!/usr/bin/env bash\n") and re.search(
        r"^make test$", script.read_text(), re.MULTILINE
    )
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0


def test_data_files_of_the_package_are_shipped():
    globs = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for path in (ROOT / "colabkit").rglob("*"):
        if path.is_file() and path.suffix not in (".py", ".pyc"):
            package = ".".join(path.parent.relative_to(ROOT).parts)
            assert any(path.match(pattern) for pattern in globs.get(package, [])), (
                f"{path} would be missing from a wheel"
            )


def build(what: str, source: Path, place: Path) -> Path:
    """Build an "sdist" or a "wheel" as `python -m build` does, with the setuptools that is here: nothing is fetched."""
    place.mkdir()
    code = f"from setuptools import build_meta; build_meta.build_{what}({os.fspath(place)!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return next(place.iterdir())


def test_the_source_archive_is_whole_and_a_wheel_comes_of_it(tmp_path):
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True)
    if listed.returncode:
        pytest.skip("not a git checkout, so nothing says what belongs to it")
    files = {name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()}
    assert {"Makefile", "constraints.txt", ".ci/run", "docs/timeline.png", "tests/conftest.py"} <= files
    for name in files:
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / "copy" / name)
    for odd in ("out/state.json", "tests/__pycache__/x.cpython-311.pyc", "notebooks/.ipynb_checkpoints/x.ipynb"):
        (tmp_path / "copy" / odd).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / odd).write_text("what git ignores stays at home")

    with tarfile.open(build("sdist", tmp_path / "copy", tmp_path / "sdist")) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    unpacked = next((tmp_path / "unpacked").iterdir())
    held = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
    made = {"PKG-INFO", "setup.cfg"} | {name for name in held if name.startswith("colabkit.egg-info/")}
    assert held - made == files, "what MANIFEST.in leaves out, or takes in besides"
    assert all((unpacked / name).read_bytes() == (ROOT / name).read_bytes() for name in files)
    assert os.access(unpacked / ".ci" / "run", os.X_OK)

    with zipfile.ZipFile(build("wheel", unpacked, tmp_path / "wheel")) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    notebooks = {name for name in names if ".data/data/share/colabkit/notebooks/" in name}
    assert {PurePosixPath(name).name for name in notebooks} == {f"{p.notebook}.ipynb" for p in discover()}
    assert names - notebooks == {name for name in files if name.startswith("colabkit/")}


def test_what_the_version_suites_leave_out_is_there_and_rests_on_nobody_else():
    show = ["make", "--no-print-directory", "--eval", "show: ; @echo $(OURS_ALONE)", "show"]
    left_out = subprocess.run(show, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert len(left_out) > 10
    for name in left_out:
        assert (ROOT / name).is_file(), (
            f"Makefile, OURS_ALONE: {name} is not there any more: say its new name, or take it out"
        )
        nodes = list(ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))))
        imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        imported |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
        ours = {"colabkit", "tests", "pytest", "numpy", *sys.stdlib_module_names}
        others = {found.partition(".")[0] for found in imported} - ours
        assert not others, f"Makefile, OURS_ALONE: another version of {others} may break {name}: take it out there"


@pytest.mark.parametrize("target", ["install", "demo", "test", "test-all", "lint", "stamp"])
def test_make_targets_exist(target):
    done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_all_floors_are_tried():
    done = subprocess.run(["make", "--dry-run", "test-floors"], cwd=ROOT, capture_output=True, text=True)
    for kind in ("lowest-3.11", "lowest-3.12", "lowest-3.13", "gpu-host"):
        assert f".venv-{kind}/bin/python -m pytest " in done.stdout, f"{kind} is not tried:\n{done.stdout}"


def test_what_is_long_is_left_to_test_all():
    commands = {
        target: subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True).stdout
        for target in ("test", "test-all")
    }
    assert '-m "not long"' in commands["test"]
    assert " -m pytest " in commands["test-all"] and "long" not in commands["test-all"]
