"""Describe the public interface of google.colab from a git checkout of colabtools, by reading its syntax only.

    git clone https://github.com/googlecolab/colabtools && python tests/colab/record_api.py colabtools

writes tests/colab/google_colab_api.json, which tests compare colabkit.colab with. Nothing of colabtools is imported or
copied but names: modules, functions with their parameters, classes with their bases, and which function raises what.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

API = Path(__file__).with_name("google_colab_api.json")
SOURCE = "https://github.com/googlecolab/colabtools"
_TOP = "google/colab/"


def main(checkout: str) -> None:
    """Write the description of the checkout's HEAD."""
    commit, date = _git(checkout, "log", "-1", "--format=%H %cs").split()
    paths = _git(checkout, "ls-tree", "-r", "--name-only", "HEAD", _TOP).splitlines()
    modules = {}
    for path in sorted(path for path in paths if path.endswith(".py") and not path.endswith("_test.py")):
        parts = path.removeprefix(_TOP).removesuffix(".py").split("/")
        if parts[-1] == "__init__":
            parts = parts[:-1]
        if parts and len(parts) == 1 and not parts[0].startswith("_"):
            modules[parts[0]] = describe(lambda p: _git(checkout, "show", f"HEAD:{p}"), path)
    API.write_text(
        json.dumps({"source": SOURCE, "commit": commit, "date": date, "modules": modules}, indent=1, sort_keys=True)
        + "\n"
    )
    print(f"{API.name}: {len(modules)} modules of {SOURCE} at {commit}")


def describe(read, path: str) -> dict:
    """Describe one module; what a package takes from its private modules counts as its own."""
    tree = ast.parse(read(path))
    exported = next(
        (
            ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
        ),
        None,
    )
    found: dict = {"functions": {}, "classes": {}}
    _add(found, tree, exported)
    for node in tree.body:
        if (
            path.endswith("__init__.py")
            and isinstance(node, ast.ImportFrom)
            and (node.module or "").startswith("google.colab.")
        ):
            source = (
                ast.parse(read(node.module.replace(".", "/") + ".py"))
                if node.module.count(".") > 2
                else ast.Module([], [])
            )
            _add(found, source, [alias.name for alias in node.names])
    if exported is not None:
        found["all"] = sorted(exported)
    return found


def _add(found: dict, tree: ast.Module, names: list[str] | None) -> None:
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    constants = _constants(tree.body)
    for node in tree.body:
        name = getattr(node, "name", "")
        if not name or name.startswith("_") or (names is not None and name not in names):
            continue
        if isinstance(node, ast.FunctionDef):
            found["functions"][name] = _function(node, constants) | {"raises": _raised(node, functions, set())}
        elif isinstance(node, ast.ClassDef):
            methods = {
                part.name: _function(part, constants)
                for part in node.body
                if isinstance(part, ast.FunctionDef) and (part.name == "__init__" or not part.name.startswith("_"))
            }
            found["classes"][name] = {
                "bases": [_last(base) for base in node.bases],
                "methods": methods,
                "attributes": {k: repr(v) for k, v in _constants(node.body).items()},
            }


def _constants(body: list[ast.stmt]) -> dict:
    found = {}
    for node in body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                continue  # not a constant
    return found


def _function(node: ast.FunctionDef, constants: dict) -> dict:
    spec = node.args
    plain = [(arg.arg, "POSITIONAL_ONLY") for arg in spec.posonlyargs] + [
        (arg.arg, "POSITIONAL_OR_KEYWORD") for arg in spec.args
    ]
    defaults = [None] * (len(plain) - len(spec.defaults)) + [_value(value, constants) for value in spec.defaults]
    parameters = [[name, kind, default] for (name, kind), default in zip(plain, defaults, strict=True)]
    if spec.vararg:
        parameters.append([spec.vararg.arg, "VAR_POSITIONAL", None])
    parameters += [
        [arg.arg, "KEYWORD_ONLY", _value(value, constants) if value else None]
        for arg, value in zip(spec.kwonlyargs, spec.kw_defaults, strict=True)
    ]
    if spec.kwarg:
        parameters.append([spec.kwarg.arg, "VAR_KEYWORD", None])
    return {"parameters": parameters, "contextmanager": any(_last(d) == "contextmanager" for d in node.decorator_list)}


def _value(node: ast.expr, constants: dict) -> str:
    """Return a default as repr() writes it; sums and products of constants are worked out."""
    if isinstance(node, ast.BinOp):
        return repr(eval(compile(ast.Expression(node), "", "eval"), {"__builtins__": {}}, constants))
    return repr(constants[node.id]) if isinstance(node, ast.Name) else repr(ast.literal_eval(node))


def _raised(function: ast.FunctionDef, functions: dict[str, ast.FunctionDef], seen: set[str]) -> list[str]:
    """Return the exceptions raised by name in a function and in the functions of its module that it calls."""
    if function.name in seen:
        return []
    seen.add(function.name)
    found = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Raise) and node.exc is not None:
            found.add(_last(node.exc.func if isinstance(node.exc, ast.Call) else node.exc))
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in functions:
            found.update(_raised(functions[node.func.id], functions, seen))
    return sorted(found)


def _last(node: ast.expr) -> str:
    if isinstance(node, ast.Call):
        return _last(node.func)
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _git(checkout: str, *command: str) -> str:
    return subprocess.run(["git", "-C", checkout, *command], check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main(sys.argv[1])
