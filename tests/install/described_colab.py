"""A google.colab to stand in where the real one's source cannot be had: names, parameters and errors we wrote down.

Made of tests/colab/google_colab_api.json. On the runtime nobody answers, so that a call does what the real one does
then: it raises the first error that is known of it, or returns nothing.
"""

from __future__ import annotations

import json
from pathlib import Path

API = Path(__file__).resolve().parents[1] / "colab" / "google_colab_api.json"
_SIGNS = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}


def write(site_packages: Path) -> None:
    """Write the package google.colab into a folder of packages; `google` stays open for others."""
    modules = json.loads(API.read_text(encoding="utf-8"))["modules"]
    folder = site_packages / "google" / "colab"
    folder.mkdir(parents=True, exist_ok=True)
    for name, module in modules.items():
        (folder / f"{name}.py").write_text(_source(name, module), encoding="utf-8")
    (folder / "__init__.py").write_text('"""As described."""\n\n__version__ = "described"\n', encoding="utf-8")


def _source(name: str, module: dict) -> str:
    lines = ["import contextlib", ""]
    bases = {} if name == "errors" else {"Error": "errors.Error"}
    lines += ["from google.colab import errors", ""] * bool(bases)
    for kind, spec in sorted(module["classes"].items(), key=lambda pair: pair[0] != "Error"):
        above = ", ".join(bases.get(base, base) for base in spec["bases"] if base in ("Error", "Exception")) or "object"
        lines += [f"class {kind}({above}):", "    pass", ""]
    known = set(module["classes"])
    for function, spec in module["functions"].items():
        raised = next((error for error in spec["raises"] if error in known or error in _BUILTIN), "")
        body = (
            f"    raise {raised}('nobody answers')"
            if raised
            else "    yield"
            if spec["contextmanager"]
            else "    return None"
        )
        lines += ["@contextlib.contextmanager"] * spec["contextmanager"]
        lines += [f"def {function}({_parameters(spec['parameters'])}):", body, ""]
    return "\n".join(lines)


_BUILTIN = ("ValueError", "NotImplementedError", "FileNotFoundError")


def _parameters(parameters: list[list]) -> str:
    told, has_star = [], False
    for name, kind, default in parameters:
        if kind == "KEYWORD_ONLY" and not has_star:
            told.append("*")
        has_star = has_star or kind in ("KEYWORD_ONLY", "VAR_POSITIONAL")
        told.append(_SIGNS.get(kind, "") + name + (f"={default}" if default is not None else ""))
    return ", ".join(told)
