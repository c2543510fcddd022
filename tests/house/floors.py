"""Read the imports of a source tree and tell which break the floors, each with the way to mend it.

The folder is the floor. 0: core, the standard library and numpy; what else it bridges it imports on use. 1: runs. 2:
training; io and colab. 3: loopback. 4: pipelines. 5: cli, headless, launch, plan and worker. Nobody imports upward, in
functions neither; runs and training nothing of io, colab and loopback, nor these of them; no pipeline another; no
cycles. Whatever is heavy to import stands in a room for it.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path

FLOORS = {"core": 0, "runs": 1, "training": 2, "io": 2, "colab": 2, "loopback": 3, "pipelines": 4}
FRONT = 5  # everything else
HEAVY = {
    "torch",
    "torchaudio",
    "accelerate",
    "transformers",
    "onnx",
    "onnxruntime",
    "matplotlib",
    "safetensors",
    "wandb",
    "tensorboard",
    "tensorflow",
    "IPython",
    "ipywidgets",
    "google",
    "ray",
    "espeakng_loader",
    "librosa",
    "numba",
    "sklearn",
    "pandas",
    "mediapipe",
    "cv2",
    "av",
    "gradio",
}
# Rooms whose modules are useless without torch. A step.py is what the recipe calls, and never heavy.
HEAVY_ROOMS = ("model", "models", "train", "tracing")
WINGS = ({"runs", "training"}, {"io", "colab", "loopback"})  # one knows nothing of the other
BARE = {"__init__", "config", "recipe"}  # of a pipeline: read by `colabkit list`


@dataclass(frozen=True)
class Import:
    """One import: `name` as written or a module of the tree; `top` when it happens on importing the importer."""

    importer: str
    name: str
    line: int
    top: bool


def check(root: Path, package: str) -> list[str]:
    """Return a line for every break of the rules in `root`/`package`; an empty list when the house stands."""
    modules = find_modules(root, package)
    imports = [i for name, path in modules.items() for i in read_imports(name, path, modules)]
    heavy = {i.importer for i in imports if i.top and i.name.split(".")[0] in HEAVY and _may_be_heavy(i.importer)}
    return [*(fault for i in imports for fault in faults_of(i, package, heavy)), *cycles(imports, modules)]


def find_modules(root: Path, package: str) -> dict[str, Path]:
    """Return {dotted name: file} of every module; a package has its own name."""
    found = {}
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def read_imports(module: str, path: Path, modules: dict[str, Path]) -> Iterator[Import]:
    """Yield every import of a module, those in functions and import_module("...") included."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.walk(node)
        if child is not node
    }
    for node in ast.walk(tree):
        for name in _names(node, module, path.stem == "__init__", modules):
            yield Import(module, name, node.lineno, id(node) not in inside)


def _names(node: ast.AST, module: str, is_package: bool, modules: dict[str, Path]) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        parents = module.split(".")[: len(module.split(".")) - node.level + is_package] if node.level else []
        source = ".".join([*parents, *([node.module] if node.module else [])])
        submodules = {f"{source}.{alias.name}" for alias in node.names}
        return sorted({name if name in modules else source for name in submodules})
    if (
        isinstance(node, ast.Call)
        and getattr(node.func, "attr", getattr(node.func, "id", "")) == "import_module"
        and node.args
    ):
        first = node.args[0]
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            return [first.value]
    return []


def floor(module: str, package: str) -> int:
    """Return the floor of a module of the package."""
    return FLOORS.get(".".join(module.split(".")[1:2]), FRONT)


def faults_of(found: Import, package: str, heavy: Set[str]) -> Iterator[str]:
    """Yield what is wrong with one import; `heavy` are the modules that import something heavy at the top."""
    at = f"{found.importer}:{found.line} imports {found.name}"
    ours = found.name.split(".")[0] == package
    here = floor(found.importer, package)
    if ours:
        if found.top and found.name in heavy and not _may_be_heavy(found.importer):
            yield f"{at} at the top, and with it what that imports; mend: import it inside the function that uses it"
        yield from _faults_inside(found, package, here, at)
        return
    outside = found.name.split(".")[0]
    if outside in ("tests", "benchmarks"):
        yield f"{at}: the package must work without its tests; mend: move what is needed into {package}"
    elif outside in sys.stdlib_module_names:
        return
    elif here == 0 and found.top and outside != "numpy":
        yield (
            f"{at} at the top: core is the standard library and numpy; mend: import it inside the function that uses it"
        )
    elif found.top and outside in HEAVY and not _may_be_heavy(found.importer):
        yield (
            f"{at} at the top, which makes importing {found.importer} slow; mend: import it inside the function that "
            f"uses it, or move the code to a room named {' or '.join(HEAVY_ROOMS)}"
        )
    elif found.top and here == 4 and found.importer.split(".")[3:] in ([], *([name] for name in BARE)):
        yield f"{at} at the top, which `list` would need; mend: import it inside the step that uses it"


def _faults_inside(found: Import, package: str, here: int, at: str) -> Iterator[str]:
    there = floor(found.name, package)
    if there == FRONT:
        if here != FRONT:
            yield f"{at}: nobody but the front door imports cli or launch; mend: move what is needed into core"
    elif there > here:
        yield (
            f"{at}: floor {here} must not know floor {there}; mend: hand it in as an argument, or move the code "
            f"both need down to {'core' if here == 0 else 'io'}"
        )
    elif {_wing(found.importer), _wing(found.name)} == {0, 1}:
        yield (
            f"{at}: runs and training know nothing of io, nor io of them; "
            "mend: hand it in as an argument, or move it to core"
        )
    elif here == there == 4:
        mine, other = found.importer.split(".")[2:3], found.name.split(".")[2:3]
        if mine and other and mine != other:
            yield f"{at}: no pipeline imports another; mend: move what both need to {package}.io or {package}.core"


def _wing(module: str) -> int | None:
    return next((number for number, wing in enumerate(WINGS) if module.split(".")[1] in wing), None)


def _may_be_heavy(module: str) -> bool:
    *rooms, name = module.split(".")
    return any(room in HEAVY_ROOMS for room in rooms) and name != "step"


def cycles(imports: list[Import], modules: dict[str, Path]) -> list[str]:
    """Return a line for every group of modules that import each other in a circle."""
    edges: dict[str, set[str]] = {name: set() for name in modules}
    for found in imports:
        if found.name in modules and found.name != found.importer:
            edges[found.importer].add(found.name)
    reach = {name: _reachable(name, edges) for name in edges}
    groups = {tuple(sorted(n for n in reach[name] if name in reach[n])) for name in edges if name in reach[name]}
    return [
        f"{' <-> '.join(group)}: a circle of imports; "
        "mend: move what they share into a module that imports none of them"
        for group in sorted(groups)
    ]


def _reachable(start: str, edges: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = list(edges[start])
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += edges[name]
    return seen
