"""The parameters of a notebook: what its cell tagged `parameters` declares, and whether what is given fits it."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from colabkit.core.errors import UsageError
from colabkit.headless.redaction import is_secret_name, redact

TAG, INJECTED_TAG = "parameters", "injected-parameters"
_CHOICES = re.compile(r"#\s*@param\s*(\[.*?\])\s*(\{.*\})?\s*$")
_NO_LITERAL = object()
_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_TYPE_NAMES = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "a mapping",
    tuple: "a tuple",
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: its default says its type; `choices` are those of its form, empty when any value is allowed."""

    name: str
    default: Any
    choices: tuple[Any, ...] = ()

    def fitting(self, value: Any, *, is_text: bool = False) -> Any:
        """Return the value as the type of the default; `is_text` for what was typed in. Raises: UsageError."""
        if self.default is _NO_LITERAL or self.default is None:
            return _read(value) if is_text else value
        fitting = _as(type(self.default), value, is_text)
        if fitting is _NO_LITERAL:
            raise UsageError(
                f"The parameter {self.name} is of another type",
                got=redact(str(value)),
                expected=f"{_TYPE_NAMES.get(type(self.default), type(self.default).__name__)}, as its default "
                f"{self.default!r}",
                fix=f"-p {self._example()}",
            )
        if self.choices and fitting not in self.choices:
            raise UsageError(
                f"The parameter {self.name} has no such choice",
                got=redact(str(value)),
                expected=" or ".join(map(str, self.choices)),
                fix=f"-p {self._example()}",
            )
        return fitting

    def _example(self) -> str:
        value = self.choices[0] if self.choices else self.default
        return f"{self.name}={value} (with papermill: -p {self.name} {value})"


def declared(notebook: Any, where: str) -> dict[str, Parameter]:
    """Return the parameters of a notebook. Raises: UsageError unless exactly one cell declares them in Python."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and TAG in cell.metadata.get("tags", ())]
    if len(cells) != 1:
        raise UsageError(
            "Cannot tell what the notebook's parameters are",
            where=where,
            got=len(cells),
            expected=f"one cell with the tag {TAG!r}",
            fix=f"tag the one cell that assigns them with {TAG!r} (in JupyterLab: the gear on the right)",
        )
    try:
        tree = ast.parse(cells[0].source)
    except SyntaxError as error:
        raise UsageError(
            "Cannot read the parameters cell",
            got=f"line {error.lineno}: {error.msg}",
            where=where,
            expected="assignments of plain values in Python",
            fix="correct this cell of the notebook",
        ) from error
    lines, found = cells[0].source.splitlines(), {}
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        for target in targets:
            if isinstance(target, ast.Name) and node.value is not None:
                found[target.id] = Parameter(target.id, _literal(node.value), _choices(lines[node.end_lineno - 1]))
    return found


def checked(
    given: Mapping[str, Any], parameters: Mapping[str, Parameter], where: str, *, is_text: bool = False
) -> dict[str, Any]:
    """Return the given values in the types of the defaults. Raises: UsageError for the first that does not fit."""
    for name in given:
        if is_secret_name(name):
            raise UsageError(
                f"The parameter {name} looks like a secret, which would stand in the executed notebook",
                where=where,
                fix=f"set it as an environment variable instead, and let the notebook read it: export {name}=...",
            )
        if name not in parameters:
            near = difflib.get_close_matches(name, parameters, n=1, cutoff=0.5) or difflib.get_close_matches(
                name.upper(), parameters, n=1, cutoff=0.5
            )
            raise UsageError(
                "The notebook has no such parameter",
                got=name,
                where=where,
                expected="one of " + (", ".join(parameters) or "none: it has no parameters"),
                fix=f"did you mean {near[0]}?" if near else f"leave out -p {name}",
            )
    return {name: parameters[name].fitting(value, is_text=is_text) for name, value in given.items()}


def inject(notebook: Any, given: Mapping[str, Any], values: Mapping[str, Any], kernel_name: str) -> None:
    """Write the values anew into the cell that papermill added, where their type was put right."""
    if dict(given) == dict(values) and all(type(given[name]) is type(value) for name, value in values.items()):
        return
    from papermill.translators import translate_parameters

    for cell in notebook.cells:
        if INJECTED_TAG in cell.metadata.get("tags", ()):
            cell.source = translate_parameters(kernel_name, "python", dict(values), "Parameters")
    notebook.metadata.papermill["parameters"] = dict(values)


def _as(kind: type, value: Any, is_text: bool) -> Any:
    """Return the value as this type without a loss, or _NO_LITERAL."""
    if type(value) is kind:
        return value
    if kind is str:
        return str(value) if isinstance(value, (bool, int, float)) else _NO_LITERAL
    if kind is bool:
        word = str(value).strip().lower()
        return _WORDS.get(word, _NO_LITERAL) if is_text or value in (0, 1) else _NO_LITERAL
    if is_text:
        value = _read(value)
        if type(value) is kind:
            return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return _NO_LITERAL
    if kind is float:
        return float(value)
    if kind is int and float(value).is_integer():
        return int(value)
    return _NO_LITERAL


def _read(text: str) -> Any:
    """Read what was typed in as a Python value, or as the text that it is."""
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        pass  # no literal; nan and inf are none, either
    try:
        return float(text)
    except ValueError:
        return text


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, SyntaxError):
        return _NO_LITERAL


def _choices(line: str) -> tuple[Any, ...]:
    found = _CHOICES.search(line)
    if not found or "allow-input" in (found[2] or ""):
        return ()
    try:
        choices = ast.literal_eval(found[1])
    except (ValueError, SyntaxError):
        return ()  # the form has choices in a way of its own: all values are allowed
    return tuple(choices)
