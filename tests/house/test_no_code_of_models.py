"""No model brings code along, and none is unpickled: held in every call that loads one."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Classes of one kind, which look for no code; they read JSON and text alone.
READERS = ("FeatureExtractor", "Tokenizer", "config_class")
SAFE = {"trust_remote_code": False, "use_safetensors": True}


def loading() -> list[tuple[str, str, set[str]]]:
    """Return every call of from_pretrained: where, of what, and which of the safe arguments it has."""
    found = []
    for path in sorted((ROOT / "colabkit").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "from_pretrained":
                given = {k.arg for k in node.keywords if ast.unparse(k.value) == str(SAFE.get(k.arg))}
                found.append((f"{path.name}:{node.lineno}", ast.unparse(node.func.value), given))
    return found


def test_every_model_is_loaded_safely():
    calls = loading()
    assert len(calls) >= 10
    assert [call for call in calls if not call[2] and not any(word in call[1] for word in READERS)] == []
