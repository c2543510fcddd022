"""colabkit notebook: a notebook from top to bottom, as a job that can be killed and started again."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from colabkit.core.errors import StateError, UsageError, missing_extra
from colabkit.headless.watchdog import minutes

AUTOSAVE_SECONDS = 10
_HELP = """\
Run a notebook from top to bottom without a browser. A cell's title and lines are printed as they come; the executed
notebook is saved all along. SIGTERM and Ctrl-C let the step at work save what it has; run the same command again, after
whatever happened, and it continues. Exit codes: 0 done, 1 failed, 2 wrong use (nothing was started), 75 stopped."""


def add_command(commands: Any) -> None:
    """Add the command `notebook` to the command line."""
    command = commands.add_parser(
        "notebook", help="run a notebook from top to bottom, without a browser", description=_HELP
    )
    command.add_argument(
        "name", metavar="NAME", help="a pipeline's name or number (01), a path, or an address s3://... or gs://..."
    )
    command.add_argument(
        "-p",
        "--parameter",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set a parameter of the notebook; may be repeated",
    )
    command.add_argument(
        "--output",
        default="",
        metavar="PATH",
        help="the executed notebook: a path or an address s3://... or "
        "gs://... (default: out/<notebook's name>.ipynb); an earlier one is kept as <name>.previous.ipynb",
    )
    command.add_argument(
        "--cell-timeout",
        type=minutes,
        default=0.0,
        metavar="MINUTES",
        help="stop a cell that takes longer, after it could save what it has (default: no limit)",
    )
    command.add_argument(
        "--hung-after",
        type=minutes,
        default=None,
        metavar="MINUTES",
        help="interrupt, then kill a kernel that neither prints nor computes for so long "
        "(default: COLABKIT_HUNG_AFTER, or 15; 0: never)",
    )
    command.set_defaults(command=run)


def run(options: argparse.Namespace) -> None:
    """Carry out the command. Raises: ColabkitError."""
    from colabkit.headless import parameters
    from colabkit.headless.lookup import find_notebook

    source = find_notebook(options.name)
    try:
        import papermill
        from papermill.engines import papermill_engines
        from papermill.iorw import load_notebook_node

        from colabkit.headless import remote
        from colabkit.headless.engine import ColabkitEngine
    except ModuleNotFoundError as error:
        raise missing_extra(error, "notebook") from error
    remote.register()
    papermill_engines.register("colabkit", ColabkitEngine)
    try:
        notebook = load_notebook_node(source)
    except (OSError, ValueError, AttributeError) as error:  # what nbformat raises for what is no notebook
        raise UsageError(
            "Cannot read the notebook",
            got=f"{type(error).__name__}: {error}".splitlines()[0],
            where=source,
            fix="give the path of a notebook file (.ipynb)",
        ) from error
    values = parameters.checked(_given(options.parameter), parameters.declared(notebook, source), source, is_text=True)
    output = _output(options.output, source)
    print(f"notebook {source}\nexecuted notebook {output}", flush=True)
    # Doubled: papermill fills in {names} in paths.
    paths = [path.replace("{", "{{").replace("}", "}}") for path in (source, output)]
    papermill.execute_notebook(
        *paths,
        values,
        engine_name="colabkit",
        kernel_name="python3",
        autosave_cell_every=AUTOSAVE_SECONDS,
        hung_after_minutes=options.hung_after,
        cell_minutes=options.cell_timeout,
        raise_failures=True,
    )
    print(f"done: {output}", flush=True)


def _given(texts: list[str]) -> dict[str, str]:
    given: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UsageError("Cannot read a parameter", got=name, expected="NAME=VALUE", fix="-p PRESET=demo")
        if name.strip() in given:
            raise UsageError("A parameter is given twice", got=name.strip(), fix="give it once")
        given[name.strip()] = value
    return given


def _output(wanted: str, source: str) -> str:
    from colabkit.io.places.addresses import split_scheme

    output = wanted or str(Path("out", source.rpartition("/")[2].rpartition("\\")[2]))
    if split_scheme(output)[0]:
        is_same = output == source
    else:
        if not wanted:
            _make_folder(Path("out"))
        is_same = Path(output).resolve() == Path(source).resolve()
    if is_same:
        raise UsageError(
            "The executed notebook would take the place of the notebook itself",
            got=output,
            fix="give another place: --output out/executed.ipynb",
        )
    return output


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise StateError(
            "Cannot make the folder of the executed notebook",
            got=error.strerror,
            where=folder.absolute(),
            fix="--output PATH of a place that can be written",
        ) from error
