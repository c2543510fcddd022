"""The notebook that is meant: by a pipeline's name or number, a path, or an address in a bucket."""

from __future__ import annotations

import difflib
import importlib.metadata
from pathlib import Path

from colabkit.core.errors import UsageError
from colabkit.io.places.addresses import meant, split_scheme, without_user
from colabkit.pipelines import discover


def find_notebook(name: str) -> str:
    """Return the path or address of a notebook. Raises: UsageError when there is none.

    A name or number of a pipeline stands for its notebook in ./notebooks, beside the package, or where pip put it.
    """
    scheme, rest = split_scheme(name)
    if scheme in ("s3", "gs"):
        return name
    if scheme:
        raise UsageError(
            "Cannot read a notebook from this kind of address",
            got=without_user(name),
            expected="s3://BUCKET/PATH.ipynb, gs://BUCKET/PATH.ipynb or a path",
            fix=f"did you mean {meant(scheme, without_user(rest)) or 's3://my-bucket/notebook.ipynb'}?",
        )
    path = Path(name).expanduser()
    if path.is_file():
        return str(path)
    known = {p.notebook: p.name for p in discover()}
    for notebook, pipeline in known.items():
        if name in (pipeline, notebook, f"{notebook}.ipynb", notebook.partition("_")[0]):
            return str(_of_pipeline(notebook))
    if path.suffix == ".ipynb" or len(path.parts) > 1:
        raise UsageError(
            "There is no such notebook",
            got=name,
            expected="a path to a file",
            where=path.absolute().parent,
            fix="correct the path",
        )
    near = difflib.get_close_matches(name, known.values(), n=1)
    names = ", ".join(f"{pipeline} ({notebook.partition('_')[0]})" for notebook, pipeline in known.items())
    raise UsageError(
        "There is no such notebook",
        got=name,
        expected=f"a path, an address, or one of {names}",
        fix=f"colabkit notebook {next(iter(near or known.values()))}",
    )


def _of_pipeline(notebook: str) -> Path:
    file = f"{notebook}.ipynb"
    top = Path(__file__).resolve().parents[2]  # the repository, or site-packages
    for folder in (Path("notebooks"), Path(), top / "notebooks", top / "share" / "colabkit" / "notebooks"):
        if (folder / file).is_file():
            return folder / file
    for installed in _installed_files():
        if installed.name == file and installed.is_file():
            return installed
    raise UsageError(
        f"The notebook {file} is not on this machine",
        where=Path().absolute(),
        expected=f"notebooks/{file} here or beside the package",
        fix=f"copy notebooks/{file} from colabkit's repository, then: colabkit notebook {file}",
    )


def _installed_files() -> list[Path]:
    try:
        listed = importlib.metadata.files("colabkit") or []
    except importlib.metadata.PackageNotFoundError:  # run from its source folder
        return []
    return [Path(file.locate()).resolve() for file in listed if file.suffix == ".ipynb"]
