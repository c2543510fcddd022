"""Notebooks with other values in the parameters cell, for front ends that take none, and what their runs recorded."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

# Parameters that keep the last cell from failing a run so short that it reaches nothing.
LENIENT: dict[str, dict[str, float]] = {
    "asr": {"LARGEST_WER": 99.0},
    "dataset": {"LARGEST_DISTANCE_DB": 999.0},
    "diarization": {"LARGEST_DER": 99.0},
}


def with_parameters(notebook: dict, values: dict[str, str | float]) -> dict:
    """Return a copy with these values as the form's literals, as if a person had typed them. Raises: KeyError."""
    notebook = copy.deepcopy(notebook)
    cell = next(c for c in notebook["cells"] if "parameters" in c["metadata"].get("tags", []))
    source = "".join(cell["source"])
    for name, value in values.items():
        source, found = re.subn(
            rf"^{name} = (\"[^\"]*\"|[\d.]+)",
            lambda m, n=name, v=value: f"{n} = {json.dumps(v)}",
            source,
            flags=re.MULTILINE,
        )
        if not found:
            raise KeyError(f"{name} is no parameter of this notebook")
    cell["source"] = source
    return notebook


def ledgers(folder: Path) -> dict[str, dict]:
    """Return a run's records by step, without what differs from one undisturbed run to the next: times."""
    records = {path.stem: json.loads(path.read_text()) for path in sorted((folder / "ledger").glob("*.json"))}
    return {id: {k: v for k, v in record.items() if k not in ("finished", "seconds")} for id, record in records.items()}
