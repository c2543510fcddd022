"""Make this package importable as google.colab, for code that says so; only on request, and never over the real one."""

from __future__ import annotations

import importlib.util
import sys
from importlib import import_module
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

MODULES = (
    "auth",
    "data_table",
    "drive",
    "errors",
    "files",
    "output",
    "patches",
    "runtime",
    "snippets",
    "syntax",
    "userdata",
)
INSTEAD = {  # what of google.colab is not here, and what does the same
    "ai": "the client library of a model's provider, with a key from userdata.get()",
    "autoviz": "DataFrame.plot() or matplotlib",
    "html": "IPython.display.HTML or an ipywidgets widget",
    "sheets": "gspread, with credentials from auth.authenticate_user()",
    "sql": "google-cloud-bigquery or bigframes",
    "widgets": "ipywidgets.Tab, ipywidgets.GridBox and ipywidgets.Output",
}
NAME = "google.colab"
_PRIVATE = ("_message",)  # libraries reach for it, so it is there, but it is nobody's interface


def missing(name: str) -> ImportError:
    """Return the error for a module that google.colab has and this package has not; also says what to use instead."""
    return ModuleNotFoundError(
        f"{NAME}.{name} works on Colab only; use instead: {INSTEAD[name]}", name=f"colabkit.colab.{name}"
    )


class _Package(ModuleType):
    """What `import google.colab` gives: the modules of this package, loaded when they are used."""

    def __getattr__(self, name: str) -> Any:
        if name in MODULES or name in _PRIVATE:
            return import_module(f"colabkit.colab.{name}")
        if name in INSTEAD:
            raise missing(name)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *MODULES]


class _Finder:
    """Finds google.colab.* here; and what is installed below google later, where `google` itself is only ours."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        parent, _, child = name.rpartition(".")
        if parent == NAME and child in INSTEAD:
            raise missing(child)
        if parent == NAME and child in (*MODULES, *_PRIVATE):
            return ModuleSpec(name, _Loader(), origin=f"colabkit.colab.{child}")
        if parent == "google" and _is_ours(sys.modules.get("google")):
            found = PathFinder.find_spec("google", sys.path)
            if found is not None and found.submodule_search_locations is not None:
                sys.modules["google"].__path__ = list(found.submodule_search_locations)
                return PathFinder.find_spec(name, sys.modules["google"].__path__)
        return None


class _Loader(Loader):
    """Gives a module of this package under its name in google.colab: the same module, so the same exceptions."""

    def exec_module(self, module: ModuleType) -> None:
        sys.modules[module.__name__] = import_module("colabkit.colab." + module.__name__.rpartition(".")[2])


_finder = _Finder()


def install() -> bool:
    """Register this package as google.colab; returns False, changing nothing, where there is one already."""
    if _is_ours(sys.modules.get(NAME)):
        return True
    if NAME in sys.modules or _is_there():
        return False
    if "google" not in sys.modules:
        try:
            import_module("google")
        except ImportError:  # nothing of Google is installed
            sys.modules["google"] = importlib.util.module_from_spec(_spec("google"))
    package = _Package(NAME, __doc__)
    package.__spec__ = _spec(NAME)
    package.__path__, package.__package__, package.__all__ = [], NAME, list(MODULES)
    sys.meta_path.insert(0, _finder)
    sys.modules[NAME] = sys.modules["google"].colab = package
    return True


def uninstall() -> bool:
    """Undo install(); returns False where google.colab was not ours."""
    package = sys.modules.get(NAME)
    if not _is_ours(package):
        return False
    sys.meta_path.remove(_finder)
    for name in [name for name in sys.modules if name == NAME or name.startswith(NAME + ".")]:
        del sys.modules[name]
    google = sys.modules.get("google")
    if getattr(google, "colab", None) is package:
        del google.colab
    if _is_ours(google) and not any(name.startswith("google.") for name in sys.modules):
        del sys.modules["google"]
    return True


def _spec(name: str) -> ModuleSpec:
    return ModuleSpec(name, None, origin="colabkit.colab", is_package=True)


def _is_ours(module: ModuleType | None) -> bool:
    return getattr(getattr(module, "__spec__", None), "origin", None) == "colabkit.colab"


def _is_there() -> bool:
    try:
        return importlib.util.find_spec(NAME) is not None
    except (ImportError, ValueError):  # no google at all, or somebody's stand-in for it
        return False
