"""colabkit's calls beside the real google.colab (or, where its source cannot be had, what we wrote down of it)."""

from __future__ import annotations

import json
import subprocess

from tests.install import environments, fresh

_COMPARE = """
import importlib, inspect, json, sys
from colabkit.colab.alias import MODULES
import google.colab
found = {}
for name in MODULES:
    try:
        real = importlib.import_module(f"google.colab.{name}")
    except ImportError as error:
        found[name] = f"not importable: {error}"
        continue
    ours = importlib.import_module(f"colabkit.colab.{name}")
    for function in getattr(ours, "__all__", ()):
        theirs, mine = getattr(real, function, None), getattr(ours, function)
        if inspect.isfunction(theirs) and inspect.isfunction(mine):
            told = [[p.name, p.kind.name, repr(p.default)] for p in inspect.signature(theirs).parameters.values()]
            same = told == [[p.name, p.kind.name, repr(p.default)] for p in inspect.signature(mine).parameters.values()]
            found[f"{name}.{function}"] = "same" if same else f"{told}"
print(json.dumps(found))
"""


def test_signatures_are_those_of_what_colab_has(colab):
    python = environments.python_of(colab / environments.SUITE)
    done = subprocess.run([python, "-W", "ignore", "-c", _COMPARE], capture_output=True, text=True, cwd=fresh.ROOT)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    others = {name: told for name, told in found.items() if told != "same"}
    assert len(found) >= 30 and not others, others


def test_a_notebook_without_anybody_at_it_never_waits(colab, tmp_path):
    """In the kernel of a Colab VM that papermill runs in: nobody answers for secrets and Drive, and nothing hangs."""
    python = environments.python_of(colab / environments.SUITE)
    with fresh.Kernel(
        python,
        tmp_path,
        COLAB_RELEASE_TAG="release-colab",
        TBE_RUNTIME_ADDR="127.0.0.1:9",
        PYTHONPATH=str(fresh.ROOT),
        COLABKIT_STATE=str(tmp_path / "state"),
    ) as kernel:
        printed, error = kernel.run("import colabkit; print(colabkit.machine_table())")
        assert (
            not error and "Colab VM" in printed and "set tokens as environment variables" in " ".join(printed.split())
        ), printed
        assert "dataset, full and h200" in printed and "CODEC" in printed, "that NeuCodec is not to be had is said"
        printed, error = kernel.run("from colabkit.colab import userdata; userdata.get('NO_SUCH_SECRET')")
        assert error, printed
