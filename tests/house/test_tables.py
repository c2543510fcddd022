"""Tables of docs that are made of what the code says: python -m tests.house.test_tables writes them anew."""

from __future__ import annotations

import re
from pathlib import Path

from colabkit.core.versions import tried
from colabkit.core.versions.differences import DIFFERENCES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "where-to-run.md"
SHOWN = ("torch", "transformers", "huggingface-hub", "numpy", "pyarrow", "gcsfs", "ipykernel", "ipython", "ipywidgets")


def versions() -> str:
    """Return what was tried, an environment a row."""
    lines = ["| tried | on | Python | " + " | ".join(SHOWN) + " |", "|" + "---|" * (len(SHOWN) + 3)]
    lines += [
        f"| {e.name} | {e.date} | {e.python} | " + " | ".join(e.versions.get(name, "") for name in SHOWN) + " |"
        for e in tried.environments()
    ]
    return "\n".join(lines)


def differences() -> str:
    """Return what differs, a difference a row."""
    lines = ["| library | since | what differs | why it matters |", "|---|---|---|---|"]
    lines += [f"| {d.library} | {d.since} | {d.what} | {d.why} |" for d in DIFFERENCES.values()]
    return "\n".join(lines)


TABLES = {"versions": versions, "differences": differences}


def written(text: str) -> str:
    """Return the page with every table as it is now."""
    for name, table in TABLES.items():
        text = re.sub(
            rf"(?s)(<!-- {name} -->\n)(?:\|[^\n]*\n)*(<!-- end -->)",
            lambda found, t=table: found[1] + t() + "\n" + found[2],
            text,
        )
    return text


def test_tables_are_fresh():
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"<!-- {name} -->" in text for name in TABLES)
    assert written(text) == text, "python -m tests.house.test_tables"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
