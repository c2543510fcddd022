"""Environments with other versions than .venv's, built beside it: python -m tests.install.environments KIND FOLDER

colab     all that a Colab runtime brings, by its published list, with PyTorch's default build and the real google.colab
lowest    the lowest versions that pyproject.toml allows, on the Python of --python
gpu-host  as seen on GPU servers: Python 3.12, torch 2.11, transformers 5.17

Python is taken where it is: --python (make PYTHON=...), else the one that the kind wants, else the nearest there is,
which is said. What cannot be had is left out by name; FOLDER/built.json keeps what was. Packages come by uv, from the
index that pip asks.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.install import colab_freeze, described_colab

ROOT = Path(__file__).resolve().parents[2]
BUILT, SUITE = "built.json", "suite"
COLABTOOLS = "https://github.com/googlecolab/colabtools"
BUILD_SECONDS = 45  # for a package that is to be had only as source
_COMPILED = (
    "numpy",
    "scipy",
    "scikit-learn",
    "pyarrow",
    "onnx",
    "onnxruntime",
    "matplotlib",
    "safetensors",
    "cryptography",
    "soxr",
)
BESIDE = ("ipython", "jupyter-client", "protobuf", "tensorflow")  # that Colab's other packages hold fast
GPU_HOST = ("torch==2.11.0", "transformers==5.17.0")
PYTHONS = {"colab": ("3.13", "3.12", "3.11"), "lowest": ("3.11", "3.12", "3.13"), "gpu-host": ("3.12",)}
# What the tests of the package need: as test in pyproject.toml has it, without what serves browsers and mounts alone.
TOOLS = (
    "pytest>=8",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.6",
    "moto[server]>=5.0",
    "gcp-storage-emulator>=2024.8.3",
    "datasets>=4.0",
    "cryptography>=42",
    "pyannote.metrics>=4.0",
    "nbmake>=1.5.5",
    "mfusepy>=3.0",
    "ruff>=0.8",
)
_CULPRIT = re.compile(r"Because (?P<why>.*?)(?: and|\. And because) you require (?P<name>[A-Za-z0-9_.-]+)==")


@dataclass
class Built:
    """What an environment is.

    `left_out`: package -> why; `instead`: package -> what is there instead of what was wanted.
    """

    kind: str
    of: str  # the date of the list, or what was asked for
    python: str = ""
    left_out: dict[str, str] = field(default_factory=dict)
    instead: dict[str, str] = field(default_factory=dict)
    google_colab: str = ""

    def save(self, folder: Path) -> None:
        (folder / BUILT).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def read_built(folder: Path) -> Built:
    """Return what an environment is."""
    return Built(**json.loads((folder / BUILT).read_text(encoding="utf-8")))


def python_of(folder: Path) -> Path:
    return folder / "bin" / "python"


def build_colab(folder: Path, python: str) -> Built:
    """Build the whole published list, and nothing else."""
    head = colab_freeze.told()
    built = Built("colab", head["Date"])
    _make(folder, built, python, wanted=head["Python"])
    wanted = {pin.name: pin for pin in colab_freeze.pins()}
    companions = [f"{name}=={pin.version}" for name, pin in wanted.items() if " @ " in pin.line and pin.version]
    for name, pin in wanted.items():
        if " @ " in pin.line and not pin.version and name != "google-colab":
            built.left_out[name] = "its place is no package index"
    lines = [pin.line for pin in wanted.values() if " @ " not in pin.line]
    lines, sources = _with_wheels(folder, lines, built)
    _install(folder, *lines, "--no-deps", "--no-build")
    _from_source(folder, sources, built)
    # The default build brings CUDA's libraries, some of other versions than the list's: it is they that PyTorch
    # imports.
    before = _installed(folder)
    held = [f"{name}=={version}" for name, version in before.items() if not name.startswith("nvidia-")]
    _install(folder, *companions, "--no-build", constraints=held)
    for name, version in _installed(folder).items():
        if name in before and before[name] != version:
            built.instead[name] = f"{version} instead of {before[name]}: PyTorch's default build wants it"
    built.google_colab = _google_colab(folder)
    if not built.google_colab:
        described_colab.write(site_packages(folder))
    _suite(folder, built)
    return built


def layer(base: Path, folder: Path) -> Path:
    """Make an environment that finds another one's packages, which pip sees and cannot remove; returns its python."""
    subprocess.run([python_of(base), "-m", "venv", "--clear", "--without-pip", folder], check=True)
    (site_packages(folder) / "beneath.pth").write_text(f"{site_packages(base)}\n", encoding="utf-8")
    return python_of(folder)


def site_packages(folder: Path) -> Path:
    """Return an environment's own folder of packages."""
    return next(folder.glob("lib/python3*/site-packages"))


def _suite(folder: Path, built: Built) -> None:
    """Put what the tests need into a layer above Colab's packages, by Colab's own pip: nothing of them is replaced."""
    python = layer(folder, folder / SUITE)
    held = Path(folder, "held.txt")
    held.write_text("".join(f"{name}=={version}\n" for name, version in _installed(folder).items()), encoding="utf-8")
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--constraint", held]
    ours = subprocess.run([*pip, *_ours()], capture_output=True, text=True)
    if ours.returncode:
        raise SystemExit(f"colabkit cannot be installed beside what Colab brings:\n{ours.stderr}")
    for tool in TOOLS:
        done = subprocess.run([*pip, tool], capture_output=True, text=True)
        if done.returncode:
            built.left_out[tool] = _reason(done.stderr)


def build_lowest(folder: Path, python: str) -> Built:
    """Build the lowest versions that the pipelines' extras allow, with what the tests need beside."""
    built = Built("lowest", "the lowest versions of pyproject.toml")
    _make(folder, built, python)
    wheels = [word for name in _COMPILED for word in ("--only-binary", name)]
    _install(folder, *_ours(), "--resolution", "lowest-direct", *wheels)
    _tools(folder, built)
    return built


def build_gpu_host(folder: Path, python: str) -> Built:
    """Build what GPU servers have, with the newest of all else that fits."""
    built = Built("gpu-host", " ".join(GPU_HOST))
    _make(folder, built, python)
    _install(folder, *_ours(), *GPU_HOST)
    _tools(folder, built)
    return built


KINDS = {"colab": build_colab, "lowest": build_lowest, "gpu-host": build_gpu_host}


def wanted_packages() -> set[str]:
    """Return names of what the package and its pipelines' extras ask for, and what Colab's other packages hold fast."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [
        *project["dependencies"],
        *(
            text
            for name, extra in project["optional-dependencies"].items()
            if name not in ("test", "cluster")
            for text in extra
        ),
    ]
    return {canonicalize_name(Requirement(text).name) for text in asked} - {project["name"]} | set(BESIDE)


def _ours() -> list[str]:
    """Return the package itself, with the extras of the pipelines."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    names = [name for name in extras if (ROOT / "colabkit" / "pipelines" / name).is_dir()]
    return ["--editable", f"{ROOT}[{','.join([*names, 'tracking', 'notebook'])}]"]


def _tools(folder: Path, built: Built) -> None:
    """Put what the tests need beside it: of what pyproject.toml names nothing changes."""
    held = [f"{name}=={version}" for name, version in _installed(folder).items() if name in wanted_packages()]
    for tool in TOOLS:
        done = _uv("pip", "install", "--python", python_of(folder), tool, constraints=held)
        if done.returncode:
            built.left_out[tool] = _reason(done.stderr)


def _make(folder: Path, built: Built, python: str, wanted: str = "") -> None:
    """Make the virtual environment on a Python that fits, and say which one where it is not the one that is wanted."""
    shutil.rmtree(folder, ignore_errors=True)
    versions = [python] if python else PYTHONS[built.kind]
    for place in (place for version in versions for place in _places_of(version)):
        if _uv("venv", "--seed", "--python", place, folder).returncode == 0:
            break
    else:
        raise SystemExit(
            f"There is no Python {' or '.join(versions)} here: name one that is: make PYTHON=/path/to/python3 ..."
        )
    built.python = subprocess.run(
        [python_of(folder), "-c", "import platform; print(platform.python_version())"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    if wanted and built.python != wanted:
        built.instead["python"] = f"{built.python} instead of {wanted}: it is what this machine has"


def _places_of(version: str) -> list[str]:
    """Return where a Python may be: where uv looks, and among those of pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or "~/.pyenv").expanduser() / "versions"
    return [version, *map(str, sorted(pyenv.glob(f"{version}.*/bin/python"), reverse=True))]


def _with_wheels(folder: Path, lines: list[str], built: Built) -> tuple[list[str], list[str]]:
    """Return the lines of which the index has wheels that fit, and those of which it has the source alone."""
    lines, sources = list(lines), []
    while True:
        done = _uv(
            "pip", "install", "--dry-run", "--no-deps", "--no-build", "--python", python_of(folder), requirements=lines
        )
        if done.returncode == 0:
            return lines, sources
        found = _CULPRIT.search(" ".join(done.stderr.split()))
        culprit = next(
            (
                line
                for line in lines
                if found and canonicalize_name(line.partition("==")[0]) == canonicalize_name(found["name"])
            ),
            None,
        )
        if culprit is None:
            raise SystemExit(f"The packages of the list cannot be had:\n{done.stderr}")
        lines.remove(culprit)
        if "wheels" in found["why"]:
            sources.append(culprit)
        else:
            built.left_out[canonicalize_name(culprit.partition("==")[0])] = found["why"].partition(", we can conclude")[
                0
            ]


def _from_source(folder: Path, lines: Iterable[str], built: Built) -> None:
    """Build what has no wheel, where that is done in a short time and with what this machine has."""

    def build(line: str) -> tuple[str, str]:
        name = canonicalize_name(line.partition("==")[0])
        try:
            done = _uv("pip", "install", "--no-deps", "--python", python_of(folder), line, seconds=BUILD_SECONDS)
        except subprocess.TimeoutExpired:
            return name, f"only as source, whose build takes more than {BUILD_SECONDS} s"
        return name, "" if done.returncode == 0 else "only as source, which does not build with what is here"

    with ThreadPoolExecutor(2) as threads:
        built.left_out.update((name, why) for name, why in threads.map(build, lines) if why)


def _google_colab(folder: Path) -> str:
    """Install the real google.colab where its source can be had (COLABTOOLS: a checkout); returns where it is from."""
    given = os.environ.get("COLABTOOLS", "")
    with tempfile.TemporaryDirectory() as place:
        if given:
            shutil.copytree(given, place, dirs_exist_ok=True)
        elif not _cloned(COLABTOOLS, place):
            return ""
        _install(folder, place, "--no-deps")
    return f"a checkout of {COLABTOOLS}" if given else COLABTOOLS


def _cloned(url: str, place: str) -> bool:
    """Fetch a repository; tell whether it could be had."""
    try:
        return not subprocess.run(
            ["git", "clone", "--quiet", "--depth", "1", url, place],
            capture_output=True,
            timeout=60,
            env=os.environ | {"GIT_TERMINAL_PROMPT": "0"},
        ).returncode
    except (OSError, subprocess.TimeoutExpired):
        return False


def _installed(folder: Path) -> dict[str, str]:
    listed = _uv("pip", "list", "--format", "json", "--python", python_of(folder))
    return {
        canonicalize_name(entry["name"]): entry["version"]
        for entry in json.loads(listed.stdout)
        if "editable_project_location" not in entry
    }


def _install(folder: Path, *what: str, constraints: Iterable[str] = ()) -> None:
    options = [word for word in what if word.startswith("--") or not re.match(r"[A-Za-z0-9._-]+==", word)]
    packages = [word for word in what if word not in options]
    done = _uv(
        "pip", "install", "--python", python_of(folder), *options, requirements=packages, constraints=constraints
    )
    if done.returncode:
        raise SystemExit(
            f"{folder} cannot be built:\n{done.stderr}\nCheck the network and free disk (15 GB), then run it again."
        )


def _uv(
    *command: str | Path,
    requirements: Iterable[str] = (),
    constraints: Iterable[str] = (),
    seconds: float | None = None,
) -> subprocess.CompletedProcess:
    """Run uv, with requirements and constraints in files."""
    binary = Path(sys.executable).with_name("uv")
    if not binary.exists():
        raise SystemExit("uv is not installed: make install")
    environment = os.environ | {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1"}
    if "PIP_INDEX_URL" in os.environ:
        environment.setdefault("UV_DEFAULT_INDEX", os.environ["PIP_INDEX_URL"])
    with tempfile.TemporaryDirectory() as place:
        more: list[str | Path] = []
        for option, lines in (("--requirements", list(requirements)), ("--constraints", list(constraints))):
            if lines:
                path = Path(place, option)
                path.write_text("\n".join(lines) + "\n", encoding="utf-8")
                more += [option, path]
        with subprocess.Popen(
            [binary, *command, *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        ) as process:
            try:
                output, errors = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # with the compilers that it has started
                raise
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def _reason(errors: str) -> str:
    """Return the line of pip's or uv's errors that says why."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    return next((line for line in lines if line.startswith(("ERROR: Cannot", "cause:"))), (lines or [""])[-1])[:200]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", default="", help="version or path; empty: what fits the kind best")
    options = parser.parse_args(arguments)
    folder = options.folder.resolve()
    built = KINDS[options.kind](folder, options.python)
    built.save(folder)
    print(f"{options.folder}: {built.kind}, {built.of}, Python {built.python}, {len(_installed(folder))} packages")
    if built.kind == "colab":
        print(
            f"  google.colab: {built.google_colab or 'its source cannot be had here: our description of it stands in'}"
        )
    for name, why in sorted(
        {**built.instead, **{name: f"left out: {why}" for name, why in built.left_out.items()}}.items()
    ):
        print(f"  {name}: {why}")


if __name__ == "__main__":
    main()
