"""The google.colab calls a notebook makes, working on any machine: in JupyterLab, VS Code, a terminal and headless.

`from colabkit.colab import drive, files, userdata` has the names, signatures, return values and exceptions of
google.colab. On a Colab VM every call is handed to the real one; elsewhere widgets, environment variables, .env files,
the keyring and plain paths take the place of Colab's web page. Where nobody can answer, no call waits longer than five
seconds: it takes its value from the environment or raises what google.colab would raise, with a line that says how to
give the value.

| module | elsewhere than on Colab |
|---|---|
| `userdata` | environment variable, `.env` file, keyring (service "colabkit"), else asks at the front end |
| `files` | upload: `COLABKIT_UPLOADS`, an upload button, or a typed path; download, view: a link, headless the path |
| `drive` | `COLABKIT_DRIVE` names a synced or mounted folder of Drive; it appears as MyDrive below the mount point |
| `auth` | application default credentials: `gcloud auth application-default login` or a service account key |
| `output` | tags and areas over ipywidgets; JavaScript runs, but its result cannot come back |
| `runtime` | `unassign` raises: there is no machine to give back |
| `data_table` | data frames as a scrolling table |
| `patches`, `snippets`, `syntax`, `errors` | as there; Colab's page alone keeps snippets: registering does nothing |
| `ai`, `autoviz`, `html`, `sheets`, `sql`, `widgets` | not here: the ImportError names what to use instead |

`install()` makes all of this importable as `google.colab` for code that says so, where the real one is absent.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from colabkit.colab.alias import INSTEAD, MODULES, install, missing, uninstall

if TYPE_CHECKING:
    from colabkit.colab import (
        auth,
        data_table,
        drive,
        errors,
        files,
        output,
        patches,
        runtime,
        snippets,
        syntax,
        userdata,
    )

__all__ = [
    "auth",
    "data_table",
    "drive",
    "errors",
    "files",
    "install",
    "output",
    "patches",
    "runtime",
    "snippets",
    "syntax",
    "uninstall",
    "userdata",
]


def __getattr__(name: str) -> Any:
    if name in MODULES:
        return import_module(f"colabkit.colab.{name}")
    if name in INSTEAD:
        raise missing(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
