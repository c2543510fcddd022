"""The imports of the package keep to its floors; the checker itself is tried on trees that break each rule."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.house.floors import check, find_modules, read_imports

ROOT = Path(__file__).resolve().parents[2]


def test_the_house_stands():
    modules = find_modules(ROOT, "colabkit")
    assert len(modules) > 30 and "colabkit.core.errors" in modules
    assert sum(1 for name, path in modules.items() for _ in read_imports(name, path, modules)) > 200
    faults = check(ROOT, "colabkit")
    assert not faults, "\n".join(faults)


GOOD = {
    "kit/__init__.py": "from importlib import import_module\n",
    "kit/cli.py": "from kit.core.errors import E\ndef f():\n    from kit.launch import g\n",
    "kit/launch.py": "from kit.pipelines import find\nfrom kit.core.state import S\n",
    "kit/core/__init__.py": "",
    "kit/core/errors.py": "import json\nclass E: pass\n",
    "kit/core/accelerators.py": "def f():\n    import torch\n",
    "kit/core/state.py": "from kit.core import errors\nclass S: pass\ndef f():\n    import torch\n",
    "kit/runs/__init__.py": "",
    "kit/runs/state.py": "from kit.core import state\n",
    "kit/training/__init__.py": "",
    "kit/training/stream.py": "from kit.runs import state\ndef f():\n    from kit.training.tracing import fake\n",
    "kit/training/tracing/__init__.py": "",
    "kit/training/tracing/fake.py": "import torch\n",
    "kit/io/__init__.py": "",
    "kit/io/audio.py": "import numpy\nfrom kit.core.errors import E\n",
    "kit/pipelines/__init__.py": "def find(): pass\n",
    "kit/pipelines/a/__init__.py": "RATE = 1\n",
    "kit/pipelines/a/recipe.py": "from kit.pipelines.a import RATE\ndef f():\n    import torch\n"
    "    from kit.pipelines.a import export\n",
    "kit/pipelines/a/export.py": "from kit.io import audio\ndef f():\n    from kit.pipelines.a.model import network\n",
    "kit/pipelines/a/model/__init__.py": "",
    "kit/pipelines/a/model/network.py": "import torch\nfrom kit.training.tracing import fake\n",
    "kit/pipelines/b/__init__.py": "",
    "kit/pipelines/b/recipe.py": "",
}
BREAKS = {
    "core imports third party": ("kit/core/errors.py", "import yaml\n", "standard library and numpy"),
    "core imports third party in a class": (
        "kit/core/errors.py",
        "class A:\n    import pyarrow\n",
        "standard library and numpy",
    ),
    "core imports runs": (
        "kit/core/errors.py",
        "def f():\n    from kit.runs import state\n",
        "0 must not know floor 1",
    ),
    "core imports io": ("kit/core/state.py", "def f():\n    import kit.io.audio\n", "floor 0 must not know floor 2"),
    "core imports a pipeline": (
        "kit/core/state.py",
        "from kit.pipelines import find\n",
        "floor 0 must not know floor 4",
    ),
    "core imports it by name": (
        "kit/core/state.py",
        "import importlib as i\ni.import_module('kit.io.audio')\n",
        "floor 2",
    ),
    "io imports a pipeline": (
        "kit/io/audio.py",
        "def f():\n    from ..pipelines.a import export\n",
        "2 must not know floor 4",
    ),
    "io imports runs": ("kit/io/audio.py", "from kit.runs import state\n", "nothing of io"),
    "training imports io": ("kit/training/stream.py", "def f():\n    import kit.io.audio\n", "nothing of io"),
    "runs import training": ("kit/runs/state.py", "from kit.training import stream\n", "floor 1 must not know floor 2"),
    "core imports torch at the top": ("kit/core/state.py", "import torch\n", "inside the function"),
    "a step imports torch at the top": ("kit/pipelines/a/model/step.py", "import torch\n", "inside the function"),
    "training imports librosa at the top": ("kit/training/stream.py", "import librosa\n", "a room named model"),
    "a step imports what imports torch": (
        "kit/pipelines/a/cut.py",
        "from kit.pipelines.a.model import network\n",
        "with it",
    ),
    "training imports its heavy room": ("kit/training/stream.py", "from kit.training.tracing import fake\n", "with it"),
    "io imports torch in a class": ("kit/io/audio.py", "class A:\n    import torch\n", "inside the function"),
    "recipe imports torch at the top": ("kit/pipelines/a/recipe.py", "import torch.nn\n", "inside the function"),
    "recipe imports numpy at the top": ("kit/pipelines/a/recipe.py", "from numpy import pi\n", "inside the step"),
    "a package imports scipy at the top": ("kit/pipelines/b/__init__.py", "import scipy\n", "the step"),
    "a pipeline imports another": (
        "kit/pipelines/b/recipe.py",
        "def f():\n    from kit.pipelines.a import export\n",
        "no pipe",
    ),
    "a pipeline imports launch": ("kit/pipelines/b/recipe.py", "from kit import launch\n", "nobody but the front door"),
    "core imports the command line": (
        "kit/core/state.py",
        "def f():\n    from kit.cli import main\n",
        "the front door",
    ),
    "a circle": ("kit/io/audio.py", "from kit.io import video\n", "circle of imports"),
    "a circle through a function": (
        "kit/core/errors.py",
        "def f():\n    from kit.core import accelerators\n",
        "circle",
    ),
    "it imports its tests": ("kit/io/audio.py", "import tests.house\n", "without its tests"),
}


def _build(root: Path, tree: dict[str, str]) -> Path:
    for name, text in tree.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_a_good_tree_has_no_faults(tmp_path):
    assert check(_build(tmp_path, GOOD), "kit") == []


@pytest.mark.parametrize("name", BREAKS)
def test_every_break_is_seen_and_told_how_to_mend(name, tmp_path):
    path, text, part = BREAKS[name]
    extra = {"kit/io/video.py": "def f():\n    from kit.io import audio\n"} if name == "a circle" else {}
    if name == "a circle through a function":
        extra = {"kit/core/accelerators.py": "from kit.core import errors\n"}
    faults = check(_build(tmp_path, GOOD | {path: text} | extra), "kit")
    # An upward import may close a circle too; that is told besides.
    told = [f for f in faults if ("circle" in f) == ("circle" in part)]
    assert len(told) == 1 and len(faults) - len(told) <= ("circle" not in part), faults
    assert part in told[0] and "mend:" in told[0]
    assert Path(path).stem in told[0] or "kit.pipelines.b" in told[0]
