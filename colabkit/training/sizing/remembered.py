"""Measurements of real steps on this GPU, kept for the next run: by GPU, driver, torch, model and regime.

A file that is cut, corrupt or not ours costs a few probing steps, never a run.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from colabkit.core import files
from colabkit.core.config import digest
from colabkit.core.errors import StateError
from colabkit.training.sizing.chosen import Sizing

FORMAT = 1
MOST_ENTRIES = 200
FILE_NAME = "sizing.json"


class Remembered:
    """Entries in one JSON file. `folder`: the state root; the file is made with the first entry."""

    def __init__(self, folder: str | Path, *, say: Callable[[str], Any] = print):
        self.path, self.say = Path(folder) / FILE_NAME, say

    def load(self, key: str) -> dict[str, Any] | None:
        """Return an entry, None where there is none that can be read."""
        return self._entries().get(key)

    def save(self, key: str, entry: dict[str, Any]) -> None:
        """Keep an entry, beside those of other processes that ended in between; a failed write is told, not raised."""
        entries = {known: value for known, value in self._entries(quietly=True).items() if known != key} | {key: entry}
        entries = dict(list(entries.items())[-MOST_ENTRIES:])
        try:
            files.write_json(self.path, {"format": FORMAT, "entries": entries})
        except StateError as error:
            self.say(f"  what was measured is not remembered: {error.what}")

    def _entries(self, *, quietly: bool = False) -> dict[str, dict[str, Any]]:
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
            if stored["format"] != FORMAT:
                raise ValueError(f"format {stored['format']}")
            return {str(key): dict(entry) for key, entry in stored["entries"].items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if not quietly:
                self.say(f"  {self.path} cannot be used ({type(error).__name__}: {error}); it is made anew")
            return {}


def key_of(sizing: Sizing) -> str:
    """Return what measurements of this sizing are kept under."""
    import torch

    device = sizing.device
    return digest([device.name, device.driver, torch.__version__, sizing.identity, asdict(sizing.regime)])[:24]
