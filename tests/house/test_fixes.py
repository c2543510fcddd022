"""Every mend that an error names is real: the settings, flags, commands and functions in a fix= exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from colabkit import cli, pipelines
from colabkit.core.config import describe

ROOT = Path(__file__).resolve().parents[2]
# Flags of other people's commands, by the command.
OTHERS_FLAGS = {
    "hf download": {"--local-dir"},
    "pip": {"--upgrade", "--force-reinstall", "--no-deps"},
    "convmv": {"--notest"},
    "aws": {"--profile", "--format"},
    "ray": {"--address"},
    "python": {"--version"},
    "install_command": {"--upgrade"},
    "papermill": {"--engine"},
    "--engine colabkit": {"--engine"},
}


@dataclass(frozen=True)
class Fix:
    """A fix= as it is written; what is known at run time alone stands as {its expression}."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Texts:
    """What expressions of a module may be as text: names and functions of the module are followed."""

    def __init__(self, module: ast.Module) -> None:
        self.values: dict[str, list[ast.expr]] = {}
        for node in ast.walk(module):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    for name in target.elts if isinstance(target, ast.Tuple) else [target]:
                        if isinstance(name, ast.Name):
                            self.values.setdefault(name.id, []).append(node.value)
            elif isinstance(node, ast.FunctionDef):
                returned = [one.value for one in ast.walk(node) if isinstance(one, ast.Return) and one.value]
                self.values.setdefault(node.name, []).extend(returned)

    def of(self, node: ast.AST, depth: int = 0) -> Iterator[str]:
        """Yield what an expression may be; what is known at run time alone is nothing."""
        if depth > 4:
            return
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(
                part.value if isinstance(part, ast.Constant) else f"{{{ast.unparse(part.value)}}}"
                for part in node.values
            )
        elif isinstance(node, ast.BinOp):
            yield from (left + right for left in self.of(node.left, depth) for right in self.of(node.right, depth))
        else:
            for below in self._alternatives(node):
                yield from self.of(below, depth + 1)

    def _alternatives(self, node: ast.AST) -> list[ast.AST]:
        if isinstance(node, ast.IfExp):
            return [node.body, node.orelse]
        if isinstance(node, ast.BoolOp):
            return node.values
        if isinstance(node, (ast.Dict, ast.Tuple, ast.List)):
            return node.values if isinstance(node, ast.Dict) else node.elts
        if isinstance(node, ast.Subscript):
            return [node.value]
        if isinstance(node, ast.Call):  # of a function, or the get of a dict with its default
            is_get = isinstance(node.func, ast.Attribute) and node.func.attr == "get"
            return [node.func.value, *node.args[1:]] if is_get else [node.func]
        name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
        return self.values.get(name, [])


def fixes() -> list[Fix]:
    """Return every fix= of the package."""
    found = []
    for path in sorted((ROOT / "colabkit").rglob("*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        texts, name = Texts(module), str(path.relative_to(ROOT / "colabkit"))
        for node in ast.walk(module):
            for keyword in node.keywords if isinstance(node, ast.Call) else ():
                if keyword.arg == "fix":
                    found += [Fix(name, keyword.value.lineno, text) for text in texts.of(keyword.value)]
    return found


def _settings() -> dict[str, set[str]]:
    """Return the names of the settings by pipeline."""
    return {one.name: {row[0] for row in describe(one.config_type)} for one in pipelines.discover()}


def _commands(parser) -> dict[str, set[str]]:
    """Return the flags of each command, by its words."""
    found = {"": {flag for action in parser._actions for flag in action.option_strings}}
    for action in parser._actions:
        for name, below in (action.choices or {}).items() if hasattr(action.choices, "items") else ():
            for words, flags in _commands(below).items():
                found[f"{name} {words}".strip()] = flags
    return found


def _functions() -> set[str]:
    """Return the names of all functions and classes of the package."""
    names = set()
    for path in (ROOT / "colabkit").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                names.add(node.name)
    return names


SETTINGS = _settings()
COMMANDS = _commands(cli._parser())
FUNCTIONS = _functions()
SECTIONS = {name.split(".")[0] for names in SETTINGS.values() for name in names if "." in name}
# Where people call Python themselves: what is named there with "=" is an argument.
PYTHON_DOORS = (
    "io/audio/",
    "io/voices/",
    "io/samples/own_dataset.py",
    "colab/",
    "pipelines/asr/configure/",
    "pipelines/diarization/rttm.py",
    "pipelines/diarization/evaluate/metrics.py",
    "pipelines/diarization/model/network.py",
    "training/sizing/",
)
# Functions of other people's libraries.
OTHERS_FUNCTIONS = {
    "Audio", "astype", "cast_column", "dumps", "from_pretrained", "get_context", "input", "len", "load_dataset",
    "make_archive", "nan_to_num", "print", "rename_column", "save_pretrained",
}  # fmt: skip
WORDS_AFTER_COLABKIT = {"keeps", "for", "that"}  # where it is no command


def faults(fix: Fix) -> list[str]:
    """Return what a fix names and does not exist."""
    found, text = [], fix.text.partition("in Python: ")[0]
    pipeline = re.match(r"pipelines/([a-z]+)/", fix.file)
    known = SETTINGS[pipeline[1]] if pipeline else set().union(*SETTINGS.values())
    for name in re.findall(r"(?<![\w./{])([a-z]+\.[a-z_]+)(?![\w.(/])", re.sub(r"\w+\.safetensors", "", text)):
        if name.split(".")[0] in SECTIONS and name not in known:
            found.append(f"no setting {name}")
    for name in re.findall(r"--set ([\w.]+)=", text):
        if name not in known and "{" not in name:
            found.append(f"no setting {name}")
    for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*", text):
        others = set().union(*(flags for tool, flags in OTHERS_FLAGS.items() if tool in text))
        if flag not in set().union(*COMMANDS.values()) | others:
            found.append(f"no flag {flag}")
    for words in re.findall(r"colabkit ((?:[a-z]+ ?){1,2})", re.sub(r"\{[^}]*\}", "X", text)):
        first = words.split()[0]
        if first not in WORDS_AFTER_COLABKIT | {command.split(" ")[0] for command in COMMANDS}:
            found.append(f"no command colabkit {words}")
    for name in re.findall(r"(?<![\w{])(?:\w+\.)*(\w+)\(", re.sub(r"\{[^}]*\}", "X", text)):
        if name not in FUNCTIONS | OTHERS_FUNCTIONS:
            found.append(f"no function {name}")
    if not fix.file.startswith(PYTHON_DOORS):
        for name in re.findall(r"(?<![\w.{=,(-])([a-z][a-z_]*)=(?!=)", re.sub(r"\([^)]*\)|\{[^}]*\}", "X", text)):
            found.append(f"{name}= is no setting")
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("fix", fixes(), ids=str)
def test_what_a_fix_names_exists(fix):
    assert not faults(fix), fix.text


@pytest.mark.parametrize(
    "file, text, fault",
    [
        ("pipelines/dataset/a.py", "decide: rate_hz=24000 brings all to one", "rate_hz= is no setting"),
        ("pipelines/dataset/a.py", "--set segments.rate=24000", "no setting segments.rate"),
        ("pipelines/asr/a.py", "set segments.rate_hz=24000", "no setting segments.rate_hz"),
        ("io/a.py", "look at data.colums", "no setting data.colums"),
        ("cli.py", "fetch less (--channels)", "no flag --channels"),
        ("cli.py", "colabkit mend it", "no command colabkit mend it"),
        ("colab/a.py", "call files.unload()", "no function unload"),
        ("pipelines/asr/a.py", "--set data.columns=text=COLUMN, then `colabkit run asr --redo 01`", ""),
    ],
)
def test_what_does_not_exist_is_found(file, text, fault):
    assert [one.strip() for one in faults(Fix(file, 1, text))] == [fault] * bool(fault)


def test_names_and_functions_are_followed():
    module = ast.parse('KNOWN = {1: "a"}\nfix = f"b {x}"\ndef f():\n    return "c" if x else g()\nraise E(fix=1)')
    found = [list(Texts(module).of(ast.parse(code, mode="eval").body)) for code in ("KNOWN.get(2, 'd')", "fix", "f()")]
    assert found == [["a", "d"], ["b {x}"], ["c"]] and len(fixes()) > 500
