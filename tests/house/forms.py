"""Read a notebook's parameters cell: forms that Colab draws, defaults that fit them, lines that papermill can read."""

from __future__ import annotations

import ast
import datetime
import json
import re
from collections.abc import Iterator
from typing import Any

REQUIRED = ("PRESET", "RUN", "STATE", "SETTINGS")
_FORM = re.compile(r"#@param(?:\s+(?P<choices>\[.*?\]))?(?:\s+(?P<options>\{.*\}))?")
_NAME = re.compile(r"[A-Z][A-Z0-9_]*")
_TYPES = {
    "string": (str,),
    "raw": (str, int, float, bool, list),
    "boolean": (bool,),
    "date": (str,),
    "integer": (int,),
    "number": (int, float),
    "slider": (int, float),
}
_OPTIONS = {"type", "min", "max", "step", "allow-input", "placeholder", "isTemplate"}


def parameters(text: str) -> dict[str, Any]:
    """Return name -> default of a parameters cell, of the lines that are assignments of literals."""
    found = {}
    for statement in ast.parse(text).body:
        name = _name_of(statement)
        if name:
            found[name] = ast.literal_eval(statement.value)
    return found


def faults_in(text: str, presets: list[str]) -> Iterator[str]:
    """Yield what is wrong with a parameters cell."""
    try:
        statements = ast.parse(text).body
    except SyntaxError as error:
        yield f"parameters: is not Python: {error.msg}"
        return
    lines, seen = text.splitlines(), []
    for statement in statements:
        line = lines[statement.lineno - 1]
        name = _name_of(statement)
        if not name:
            yield f"parameters: {line!r} is not NAME = literal"
            continue
        if name in seen:
            yield f"parameters: {name} is assigned twice"
        seen.append(name)
        if not _NAME.fullmatch(name):
            yield f"parameters: {name} is not in capitals"
        if statement.end_lineno != statement.lineno or lines[statement.lineno - 1].count(";"):
            yield f"parameters: {name} does not stand on a line of its own; forms and papermill read line by line"
            continue
        before, comment = line[: statement.end_col_offset], line[statement.end_col_offset :].strip()
        if "#" in before:
            yield f"parameters: {name} has a # in its default; papermill would cut it there"
        if not comment.startswith("#@param"):
            yield f"parameters: {line!r} has no #@param form"
            continue
        yield from _faults_of_form(name, ast.literal_eval(statement.value), comment, presets)
    for number, line in enumerate(lines):
        if line.strip() and not any(s.lineno - 1 <= number < (s.end_lineno or 0) for s in statements):
            yield f"parameters: {line!r} is not a parameter"
    missing = [name for name in REQUIRED if name not in seen]
    if missing:
        yield f"parameters: {', '.join(missing)} missing; every notebook has them"


def _name_of(statement: ast.stmt) -> str:
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    if len(targets) != 1 or not isinstance(targets[0], ast.Name):
        return ""
    try:
        ast.literal_eval(statement.value)
    except ValueError:
        return ""
    return targets[0].id


def _faults_of_form(name: str, default: Any, comment: str, presets: list[str]) -> Iterator[str]:
    form = _FORM.fullmatch(comment)
    if form is None:
        yield f"parameters: {name}: {comment!r} is not #@param [choices] {{options}}"
        return
    try:
        # Colab takes bare words as keys; the values are JSON in both.
        options = (
            json.loads(re.sub(r"([{,]\s*)([A-Za-z-]+)\s*:", r'\1"\2":', form["options"])) if form["options"] else {}
        )
        choices = json.loads(form["choices"]) if form["choices"] else None
    except json.JSONDecodeError as error:
        yield f"parameters: {name}: the form is not JSON: {error.msg}"
        return
    unknown = sorted(set(options) - _OPTIONS)
    if unknown:
        yield f"parameters: {name}: Colab's forms know no {', '.join(unknown)}"
    if choices is None and "type" not in options:
        yield f"parameters: {name}: the form says neither choices nor a type"
    elif choices is not None and default not in choices and not options.get("allow-input"):
        yield f"parameters: {name}: the default {default!r} is not among its choices {choices}"
    if name == "PRESET" and choices != presets:
        yield f"parameters: PRESET: the choices are {choices}, the pipeline has {presets}"
    yield from _faults_of_type(name, default, options)


def _faults_of_type(name: str, default: Any, options: dict[str, Any]) -> Iterator[str]:
    kind = options.get("type")
    if kind is None:
        return
    if kind not in _TYPES:
        yield f"parameters: {name}: {kind!r} is no type of Colab's forms; they are {', '.join(_TYPES)}"
        return
    if not isinstance(default, _TYPES[kind]) or (isinstance(default, bool) and kind not in ("boolean", "raw")):
        yield f"parameters: {name}: the default {default!r} is not of the form's type {kind}"
    elif kind == "slider" and not all(isinstance(options.get(key), (int, float)) for key in ("min", "max", "step")):
        yield f"parameters: {name}: a slider needs min, max and step"
    elif kind == "slider" and not options["min"] <= default <= options["max"]:
        yield f"parameters: {name}: the default {default!r} is outside of the slider"
    elif kind == "date":
        try:
            datetime.date.fromisoformat(default)
        except ValueError:
            yield f"parameters: {name}: the default {default!r} is no date YYYY-MM-DD"
