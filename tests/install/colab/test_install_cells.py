"""The install cells on Colab's packages: in Colab's kernel, with its own pip, where only another notebook was used."""

from __future__ import annotations

import pytest

from colabkit.pipelines import discover
from tests.install import environments, fresh

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
PIPELINES = discover()
ANOTHER = [(PIPELINES[i], PIPELINES[i - 1]) for i in range(len(PIPELINES))]
WHERE_THEY_ARE = (
    "import torch, numpy, transformers, pyarrow, IPython, ipykernel\n"
    "print([(m.__file__, m.__version__) for m in (torch, numpy, transformers, pyarrow, IPython, ipykernel)])"
)


def notebook_of(pipeline):
    return fresh.ROOT / "notebooks" / f"{pipeline.notebook}.ipynb"


@pytest.mark.parametrize("pipeline, another", ANOTHER, ids=lambda p: p.name)
def test_where_only_another_extra_is_installed(pipeline, another, layer, wheel, index, tmp_path):
    source, python = wheel.as_uri(), environments.python_of(layer)
    (tmp_path / "work" / "colabkit").mkdir(parents=True)  # as the state's folder lies in /content
    with fresh.Kernel(python, tmp_path / "work") as kernel:
        before, error = kernel.run(WHERE_THEY_ARE)
        assert not error and "6.17.1" in before and "7.34.0" in before, before
        printed, error = kernel.run(fresh.install_cell(source, notebook_of(another)))
        assert not error, printed
    with fresh.Kernel(python, tmp_path / "work") as kernel:
        printed, error = kernel.run(fresh.install_cell(source, notebook_of(pipeline)))
        assert not error, printed
        assert kernel.run(fresh.install_cell(source, notebook_of(pipeline))) == ("", ""), (
            "the second time it does nothing"
        )
        assert kernel.run(WHERE_THEY_ARE)[0] == before, "nothing that Colab brings is replaced"
        printed, error = kernel.run(f"import colabkit; print(colabkit.configure('{pipeline.name}').__class__.__name__)")
        assert not error and printed.endswith("Config\n")
