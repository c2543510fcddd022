"""Read a notebook and tell where it leaves the anatomy that all notebooks share: python -m tests.house.anatomy FILE ...

Title with badge and table; install; parameters; configuration; start; one step a cell; results; what next.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from notebooks.stamp import Address, address, install_cell
from tests.house import forms

MOST_CODE_LINES = 40
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
WORDS = ("**Does**", "**Reads**", "**Writes**", "**Takes**")
COLUMNS = ("preset", "time", "memory", "disk", "accounts")
TAGS = ("install", "parameters")
_PATH = re.compile(r"""["'](?:/content|/root|/home|/tmp|/mnt|/drive|~/|[A-Z]:\\)""")
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SECRET = re.compile(
    r"hf_[A-Za-z0-9]{16,}|AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|sk-[A-Za-z0-9_-]{20,}"
)
# What a front end writes beside these tells of one execution or of one person: timings, session and cell ids, file
# names.
_METADATA = {"accelerator", "colab", "kernelspec", "language_info"}
_COLAB_METADATA = {"provenance": [], "toc_visible": True}
_FORBIDDEN = {
    ast.FunctionDef: "def",
    ast.AsyncFunctionDef: "def",
    ast.ClassDef: "class",
    ast.For: "for",
    ast.AsyncFor: "for",
    ast.While: "while",
    ast.Lambda: "lambda",
    ast.Try: "try",
    ast.With: "with",
    ast.AsyncWith: "with",
    ast.Match: "match",
    ast.IfExp: "if",
    ast.NamedExpr: ":=",
    ast.Global: "global",
    ast.Delete: "del",
    ast.Raise: "raise",
    ast.ListComp: "a comprehension",
    ast.DictComp: "a comprehension",
    ast.SetComp: "a comprehension",
    ast.GeneratorExp: "a comprehension",
}
_SHELL = {"system", "popen", "Popen", "check_call", "check_output", "getoutput", "run_cell", "run_line_magic"}


def check(
    notebook: dict, *, name: str, pipeline: str, presets: Iterable[str], step_ids: Iterable[str], where: Address
) -> list[str]:
    """Return a line for every departure.

    `name` is the file's stem, `presets` and `step_ids` are the pipeline's in order, `where` is the repository's
    address.
    """
    if not notebook.get("cells"):
        return ["cells: there are none"]
    return [
        *_metadata(notebook),
        *_title(notebook, name, list(presets), where),
        *_order(notebook, pipeline),
        *_install(notebook, pipeline, where),
        *_parameters(notebook, list(presets)),
        *_code(notebook),
        *_steps(notebook, list(step_ids)),
        *_last(notebook),
    ]


def check_text(text: str, **facts) -> list[str]:
    """Check a notebook file's text: that it is written as Jupyter writes it, and all that `check` checks."""
    try:
        notebook = json.loads(text)
    except json.JSONDecodeError as error:
        return [f"file: is not JSON: {error}"]
    as_written = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    untidy = [
        "file: is not written as Jupyter writes it; open it in JupyterLab and save it, or strip it with nbstripout"
    ]
    return (untidy if as_written != text else []) + check(notebook, **facts)


def source(cell: dict) -> str:
    """Return a cell's text."""
    return "".join(cell["source"])


def code_cells(notebook: dict) -> list[dict]:
    """Return the cells that hold code."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def tagged(notebook: dict, tag: str) -> str:
    """Return the text of the cell with this tag, "" if there is none."""
    return next((source(cell) for cell in code_cells(notebook) if tag in _tags(cell)), "")


def _tags(cell: dict) -> list[str]:
    return cell.get("metadata", {}).get("tags", [])


def _metadata(notebook: dict) -> Iterator[str]:
    if (notebook.get("nbformat"), notebook.get("nbformat_minor")) != (4, 5):
        yield "nbformat: is not 4.5; only that has cell ids"
    about = notebook.get("metadata", {})
    if about.get("kernelspec", {}).get("name") != "python3":
        yield "kernelspec: is not python3; set metadata.kernelspec.name"
    for key in sorted(set(about) - _METADATA):
        yield f"metadata: {key} tells of one execution or one person; remove it"
    if set(about.get("language_info", {})) - {"name"}:
        yield "metadata: language_info holds the versions of one machine; keep its name alone"
    if about.get("colab", _COLAB_METADATA) | _COLAB_METADATA != _COLAB_METADATA or about.get("colab", {}).get(
        "provenance"
    ):
        yield f"metadata: colab holds more than {_COLAB_METADATA}"
    ids = [cell.get("id") for cell in notebook["cells"]]
    if None in ids or len(set(ids)) != len(ids) or not all(_ID.fullmatch(str(found)) for found in ids):
        yield "cell ids: not all there, valid and different; give every cell an id of its own and keep it"
    for cell in notebook["cells"]:
        place = f"cell {cell.get('id')}"
        for key in sorted(set(cell.get("metadata", {})) - {"tags", "cellView"}):
            yield f"{place}: metadata {key} tells of one execution or one front end; remove it"
        for tag in sorted(set(_tags(cell)) - set(TAGS)):
            yield f"{place}: the tag {tag} is none of {', '.join(TAGS)}"
        if cell.get("outputs") or cell.get("execution_count") is not None:
            yield f"{place}: holds outputs; clear them (outputs are never committed)"
        if cell.get("attachments"):
            yield f"{place}: holds an attachment; put the picture into docs/"
        if _SECRET.search(source(cell)):
            yield f"{place}: holds a token; take it out and withdraw it where it was made"
    for tag in TAGS:
        if sum(tag in _tags(cell) for cell in code_cells(notebook)) != 1:
            yield f"tag {tag}: expected on exactly one code cell"


def _title(notebook: dict, name: str, presets: list[str], where: Address) -> Iterator[str]:
    first = source(notebook["cells"][0]) if notebook["cells"][0]["cell_type"] == "markdown" else ""
    if not first.startswith("# "):
        yield "first cell: is not a title; begin it with '# '"
    link = f"]({where.badge}/notebooks/{name}.ipynb)"
    if BADGE not in first or f"/notebooks/{name}.ipynb)" not in first:
        yield f"first cell: has no badge that opens notebooks/{name}.ipynb in Colab"
    elif link not in first:
        yield f"first cell: the badge does not open {where.badge}; run make stamp"
    rows = [line for line in first.splitlines() if line.startswith("|")]
    if not rows or not all(column in rows[0] for column in COLUMNS):
        yield "first cell: has no table of presets with time, memory, disk and accounts"
    elif [row.split("|")[1].strip(" `") for row in rows[2:]] != presets:
        yield f"first cell: the table does not list the presets {', '.join(presets)}"


def _order(notebook: dict, pipeline: str) -> Iterator[str]:
    """Install, parameters, configuration and start come first, each below text of its own."""
    cells = code_cells(notebook)
    kinds = [
        ("install", "install" in _tags(cell))
        if i == 0
        else ("parameters", "parameters" in _tags(cell))
        if i == 1
        else ("configuration", f'colabkit.configure("{pipeline}", PRESET' in source(cell))
        if i == 2
        else ("start", f'colabkit.start("{pipeline}", ' in source(cell))
        for i, cell in enumerate(cells[:4])
    ]
    wrong = [kind for kind, there in kinds if not there]
    if wrong or len(cells) < 5:
        yield (
            "order: expected install, parameters, configuration, start, then steps; "
            f"look at {', '.join(wrong) or 'the end'}"
        )
    before = None
    for cell in notebook["cells"]:
        alone = cell["cell_type"] == "code" and (before is None or before["cell_type"] != "markdown")
        if alone and cell is not cells[-1]:  # the assertion belongs to the results above it
            yield f"cell {cell.get('id')}: has no text before it"
        before = cell


def _install(notebook: dict, pipeline: str, where: Address) -> Iterator[str]:
    text, expected = tagged(notebook, "install"), install_cell(pipeline, where)
    if text == expected:
        return
    if re.sub(r"git\+\S+?(?=\")", where.install, text) == expected:
        yield f"install: the address is not {where.install}; run make stamp"
    elif re.sub(r"colabkit\[[^\]]*\]", f"colabkit[{pipeline}]", text) == expected:
        yield f"install: the extra is not [{pipeline}]"
    else:
        yield f"install: is not what notebooks/stamp.py says it is:\n{expected}"


def _parameters(notebook: dict, presets: list[str]) -> Iterator[str]:
    text = tagged(notebook, "parameters")
    yield from forms.faults_in(text, presets)
    try:
        names = forms.parameters(text)
    except SyntaxError:
        return
    used = "\n".join(source(cell) for cell in code_cells(notebook) if not set(TAGS) & set(_tags(cell)))
    for name in names:
        if not re.search(rf"\b{name}\b", used):
            yield f"parameters: nothing uses {name}"


def _code(notebook: dict) -> Iterator[str]:
    cells = code_cells(notebook)
    lines = [
        line
        for cell in cells
        for line in source(cell).splitlines()
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if len(lines) > MOST_CODE_LINES:
        yield f"code: {len(lines)} lines, expected at most {MOST_CODE_LINES}; move logic into the package"
    for cell in cells:
        place, text = f"cell {cell.get('id')}", source(cell)
        if "install" in _tags(cell):
            continue  # it is known word by word
        if re.search(r"^\s*[!%]", text, flags=re.MULTILINE):
            yield f"{place}: has a shell or magic line; only the install cell may"
            continue
        if _PATH.search(text):
            yield f"{place}: has a hard path; make it a parameter"
        yield from _logic(text, place)


def _logic(text: str, place: str) -> Iterator[str]:
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        yield f"{place}: is not Python: {error.msg}"
        return
    for node in ast.walk(tree):
        if type(node) in _FORBIDDEN or isinstance(node, ast.If):
            yield f"{place}: has {_FORBIDDEN.get(type(node), 'if')}; move logic into the package"
        elif isinstance(node, ast.Attribute) and node.attr in _SHELL:
            yield f"{place}: calls the shell; only the install cell may"
        elif isinstance(node, ast.Name) and node.id in ("exec", "eval", "compile", "__import__", "input"):
            yield f"{place}: calls {node.id}; move it into the package"
        elif isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            yield f"{place}: imports *; name what is used"


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


def _last(notebook: dict) -> Iterator[str]:
    cells, last = code_cells(notebook), notebook["cells"][-1]
    asserted = re.findall(r"^assert (.+?), *[frb]*[\"']", source(cells[-1]) if cells else "", flags=re.MULTILINE)
    if not asserted:
        yield "last code cell: asserts nothing, or without a message; a headless run with a bad result must fail"
    elif not any(re.search(r"\b[A-Z][A-Z0-9_]+\b", test) for test in asserted):
        yield "last code cell: asserts no limit that is a parameter"
    if last["cell_type"] != "markdown":
        yield "last cell: is not text; say where the files are, how it resumes and what next"
        return
    for what, pattern in (
        ("what next", "What next"),
        ("where the files are", "folder"),
        ("how it resumes", "continue|resume"),
    ):
        if not re.search(pattern, source(last)):
            yield f"last cell: does not say {what}"


def check_file(path: Path) -> list[str]:
    """Check a notebook of this repository against the pipeline it belongs to."""
    from colabkit.pipelines import discover

    pipeline = next((p for p in discover() if p.notebook == path.stem), None)
    if pipeline is None:
        return [f"file: belongs to no pipeline; they have {', '.join(p.notebook for p in discover())}"]
    return check_text(
        path.read_text(encoding="utf-8"),
        name=path.stem,
        pipeline=pipeline.name,
        presets=list(pipeline.presets),
        step_ids=[step.id for step in pipeline.steps],
        where=address(),
    )


def main(names: list[str]) -> int:
    """Print every departure of the files, by default all notebooks; returns 1 if any, 2 if a file cannot be read."""
    worst = 0
    for name in names or sorted(map(str, (Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))):
        try:
            faults = check_file(Path(name))
        except (OSError, UnicodeDecodeError) as error:
            print(f"{name}: cannot be read: {error}", file=sys.stderr)
            worst = 2
            continue
        print(*(f"{name}: {fault}" for fault in faults), sep="\n", end="\n" if faults else "")
        worst = max(worst, bool(faults))
    return int(worst)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
