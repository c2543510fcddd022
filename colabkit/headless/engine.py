"""The papermill engine `colabkit`: papermill in.ipynb out.ipynb --engine colabkit.

papermill loads this module while it is being imported itself, so nothing of papermill is imported on top.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from colabkit.colab.fetched_secrets import KnownSecrets
from colabkit.core.errors import EXIT_FAILED, UsageError, install_command
from colabkit.headless import parameters
from colabkit.headless.failures import CellFailed, told_by_papermill
from colabkit.headless.redaction import redact, secret_values
from colabkit.headless.watchdog import Limits, minutes


class ColabkitEngine:
    """Executes a notebook whose parameters are right, in a kernel that is watched, with statuses that are true.

    Takes what papermill hands to engines, and `hung_after_minutes` (0: never; default: COLABKIT_HUNG_AFTER, or 15),
    `cell_minutes` (0: no limit; papermill's --execution-timeout in seconds does the same) and `raise_failures`: raise
    CellFailed for every cell that fails, instead of leaving plain failures to papermill.
    """

    @classmethod
    def execute_notebook(
        cls,
        nb: Any,
        kernel_name: str,
        output_path: str | None = None,
        progress_bar: Any = True,
        log_output: bool = False,
        autosave_cell_every: float = 30,
        **options: Any,
    ) -> Any:
        """Execute the notebook in place and return it.

        Raises: ColabkitError, or what papermill's command makes of it.
        """
        with told_by_papermill():
            return _execute(
                nb, kernel_name, output_path, bool(progress_bar) or log_output, autosave_cell_every, **options
            )

    @classmethod
    def nb_kernel_name(cls, nb: Any, name: str | None = None) -> str:
        """Return the kernel to use: the one asked for, the notebook's own, or this Python's."""
        return name or nb.metadata.get("kernelspec", {}).get("name") or "python3"

    @classmethod
    def nb_language(cls, nb: Any, language: str | None = None) -> str:
        """Return the language of the notebook, Python if it says nothing."""
        about = nb.metadata
        return (
            language
            or about.get("language_info", {}).get("name")
            or about.get("kernelspec", {}).get("language")
            or "python"
        )


def _execute(
    nb: Any,
    kernel_name: str,
    output_path: str | None,
    tells: bool,
    autosave_seconds: float,
    *,
    input_path: Any = None,
    start_timeout: float = 60,
    execution_timeout: float | None = None,
    stdout_file: Any = None,
    stderr_file: Any = None,
    hung_after_minutes: float | None = None,
    cell_minutes: float = 0,
    raise_failures: bool = False,
    **unknown: Any,
) -> Any:
    if unknown:
        raise UsageError(
            "The engine colabkit has no such option",
            got=", ".join(unknown),
            expected="hung_after_minutes, cell_minutes, raise_failures or papermill's own",
            fix="leave it out",
        )
    source = input_path if isinstance(input_path, str) else "the notebook"
    _check_parameters(nb, source, kernel_name)

    from jupyter_client.kernelspec import NoSuchKernel

    from colabkit.headless.client import Client
    from colabkit.headless.lines import Copies, Lines
    from colabkit.headless.places import make_papermill_write_atomically, place_of
    from colabkit.headless.record import Record

    secrets = KnownSecrets(secret_values(os.environ))
    say = functools.partial(_say, secrets)
    make_papermill_write_atomically()
    record = Record(
        nb,
        place_of(output_path) if output_path else None,
        autosave_seconds=autosave_seconds or 0,
        secrets=secrets,
        say=say,
    )
    quiet_minutes = _hung_after() if hung_after_minutes is None else hung_after_minutes
    limits = Limits(hung_after_seconds=60 * quiet_minutes, cell_seconds=60 * cell_minutes or execution_timeout or 0)
    copies = Copies({"stdout": stdout_file, "stderr": stderr_file}, secrets)
    client = Client(
        record,
        Lines(nb, say if tells else _silent, secrets),
        limits,
        say=say,
        kernel_name=kernel_name,
        startup_timeout=start_timeout,
        take_output=copies.take,
    )
    record.begin()
    whole = False
    try:
        client.carry_out()
        whole = True
    except CellFailed as failed:
        if raise_failures or failed.exit_code != EXIT_FAILED:
            raise
        # papermill finds the error in the notebook, marks the cell, and raises what its users expect.
    except NoSuchKernel as error:
        raise UsageError(
            "There is no such kernel",
            got=kernel_name,
            where=source,
            fix=f"-k python3, after {install_command('notebook')}",
        ) from error
    finally:
        copies.end()
        record.end(whole=whole)
        secrets.close()
    return nb


def _check_parameters(nb: Any, source: str, kernel_name: str) -> None:
    language = ColabkitEngine.nb_language(nb)
    if language.lower() not in ("python", "ipython", "python3"):
        raise UsageError(
            "The engine colabkit runs Python notebooks",
            got=language,
            where=source,
            fix="leave out --engine colabkit for this one",
        )
    given = nb.metadata.get("papermill", {}).get("parameters") or {}
    known = parameters.declared(nb, source)
    parameters.inject(nb, given, parameters.checked(given, known, source), kernel_name)


def _hung_after() -> float:
    text = os.environ.get("COLABKIT_HUNG_AFTER") or "15"
    try:
        return minutes(text)
    except ValueError as error:
        raise UsageError(
            "Cannot read COLABKIT_HUNG_AFTER",
            got=text,
            expected="minutes, 0 for never",
            fix="export COLABKIT_HUNG_AFTER=15",
        ) from error


def _say(secrets: Iterable[str], line: str) -> None:
    """Print one line on standard error: standard output may be the notebook itself."""
    with suppress(BrokenPipeError, ValueError):  # nobody reads any more; the work goes on
        print(redact(line, secrets), file=sys.stderr, flush=True)


def _silent(line: str) -> None:
    """Print nothing: --no-progress-bar."""
