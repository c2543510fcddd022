"""Read a notebook and tell where it leaves the anatomy that all notebooks share."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator

MOST_CODE_LINES = 40
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
WORDS = ("**Does**", "**Reads**", "**Writes**", "**Takes**")
_PATH = re.compile(r"""["'](?:/content|/root|/home|/tmp|/mnt|/drive|~/|[A-Z]:\\)""")


def check(notebook: dict, *, name: str, step_ids: Iterable[str]) -> list[str]:
    """Return a line for every departure; `name` is the file's stem, `step_ids` the pipeline's steps in order."""
    return [*_shape(notebook, name), *_parameters(notebook), *_code(notebook), *_steps(notebook, list(step_ids))]


def source(cell: dict) -> str:
    """Return a cell's text."""
    return "".join(cell["source"])


def code_cells(notebook: dict) -> list[dict]:
    """Return the cells that hold code."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def _tags(cell: dict) -> list[str]:
    return cell.get("metadata", {}).get("tags", [])


def _shape(notebook: dict, name: str) -> Iterator[str]:
    cells = notebook["cells"]
    if notebook.get("metadata", {}).get("kernelspec", {}).get("name") != "python3":
        yield "kernelspec: is not python3; set metadata.kernelspec.name"
    ids = [cell.get("id") for cell in cells]
    if None in ids or len(set(ids)) != len(ids):
        yield "cell ids: not all there and different; give every cell an id of its own"
    first = source(cells[0]) if cells and cells[0]["cell_type"] == "markdown" else ""
    if not first.startswith("# "):
        yield "first cell: is not a title; begin it with '# '"
    if BADGE not in first or f"/notebooks/{name}.ipynb" not in first:
        yield f"first cell: has no badge that opens notebooks/{name}.ipynb in Colab"
    if "| preset |" not in first:
        yield "first cell: has no table of presets with time, memory, disk and accounts"
    for cell in code_cells(notebook):
        if cell.get("outputs") or cell.get("execution_count") is not None:
            yield f"cell {cell.get('id')}: holds outputs; clear them (outputs are never committed)"
    for tag in ("install", "parameters"):
        if sum(tag in _tags(cell) for cell in cells) != 1:
            yield f"tag {tag}: expected on exactly one cell"
    if cells and cells[-1]["cell_type"] != "markdown":
        yield "last cell: is not text; say where the files are, how it resumes and what next"
    elif cells and "What next" not in source(cells[-1]):
        yield "last cell: does not say what next"


def _parameters(notebook: dict) -> Iterator[str]:
    for cell in code_cells(notebook):
        if "parameters" not in _tags(cell):
            continue
        text = source(cell)
        for statement in ast.parse(text).body:
            line = text.splitlines()[statement.lineno - 1]
            targets = statement.targets if isinstance(statement, ast.Assign) else []
            if len(targets) != 1 or not isinstance(targets[0], ast.Name) or not _is_literal(statement.value):
                yield f"parameters: {line!r} is not NAME = literal"
            elif "#@param" not in line:
                yield f"parameters: {line!r} has no #@param form"


def _is_literal(value: ast.expr) -> bool:
    try:
        ast.literal_eval(value)
    except ValueError:
        return False
    return True


def _code(notebook: dict) -> Iterator[str]:
    cells = code_cells(notebook)
    lines = [line for cell in cells for line in source(cell).splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if len(lines) > MOST_CODE_LINES:
        yield f"code: {len(lines)} lines, expected at most {MOST_CODE_LINES}; move logic into the package"
    for cell in cells:
        place, text = f"cell {cell.get('id')}", source(cell)
        if "install" in _tags(cell):
            text = re.sub(r"^(\s*)[%!].*$", r"\1pass", text, flags=re.MULTILINE)
            magic = re.findall(r"^\s*([%!].*)$", source(cell), flags=re.MULTILINE)
            if any(not m.startswith("%pip install") for m in magic):
                yield f"{place}: installs by other means than %pip install"
        elif re.search(r"^\s*[!%]", text, flags=re.MULTILINE):
            yield f"{place}: has a shell or magic line; only the install cell may"
            continue
        if _PATH.search(text):
            yield f"{place}: has a hard path; make it a parameter"
        yield from _logic(text, place)
    last = source(cells[-1]) if cells else ""
    if not any(line.startswith("assert ") for line in last.splitlines()):
        yield "last code cell: asserts nothing; a headless run with a bad result must fail"


def _logic(text: str, place: str) -> Iterator[str]:
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        yield f"{place}: is not Python: {error.msg}"
        return
    forbidden = {ast.FunctionDef: "def", ast.AsyncFunctionDef: "def", ast.ClassDef: "class", ast.For: "for", ast.While: "while",
                 ast.Lambda: "lambda", ast.Try: "try", ast.ListComp: "a comprehension", ast.DictComp: "a comprehension",
                 ast.SetComp: "a comprehension", ast.GeneratorExp: "a comprehension"}
    for node in ast.walk(tree):
        if type(node) in forbidden:
            yield f"{place}: has {forbidden[type(node)]}; move logic into the package"
        elif isinstance(node, ast.Attribute) and node.attr in ("system", "popen", "Popen", "check_call", "check_output"):
            yield f"{place}: calls the shell; only the install cell may"


def _steps(notebook: dict, step_ids: list[str]) -> Iterator[str]:
    called, before = [], None
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            ids = re.findall(r"""\brun\.do\(\s*["']([^"']+)["']""", source(cell))
            called += ids
            if len(ids) > 1:
                yield f"cell {cell.get('id')}: carries out {len(ids)} steps; one step a cell"
            for step_id in ids:
                text = source(before) if before and before["cell_type"] == "markdown" else ""
                missing = [word for word in WORDS if word not in text]
                if missing:
                    yield f"step {step_id}: the text before it lacks {', '.join(missing)}"
        before = cell
    if called != step_ids:
        yield f"steps: the cells carry out {called}, the recipe has {step_ids}"
