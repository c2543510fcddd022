"""The progress file, for people: how far the work is, renewed while it goes on."""

from __future__ import annotations

import time
from pathlib import Path

from colabkit.core import files
from colabkit.core.errors import StateError
from colabkit.pipelines.dataset.encode.accounts import Tally
from colabkit.pipelines.dataset.encode.credits import Credits
from colabkit.pipelines.dataset.encode.fetch import FULL
from colabkit.pipelines.dataset.encode.journal import Journal
from colabkit.pipelines.dataset.encode.task import Encoded

NAME = "progress.json"
_WRITE_SECONDS = 1.0  # between two versions of the file


class Record:
    """Writes the file, once a second at most. Its counts are of all runs together, but for items_failed.

    before: what was done when this run began.
    """

    def __init__(self, path: Path, journal: Journal, credits: Credits, before: Encoded):
        self.path, self.journal, self.credits, self.before = path, journal, credits, before
        self._began, self._next, self._seconds_before = time.monotonic(), 0.0, journal.count("seconds")

    def write(self, tally: Tally, *, is_last: bool = False) -> None:
        """Write the file when it is old."""
        now = time.monotonic()
        if now < self._next and not is_last:
            return
        self._next = now + _WRITE_SECONDS
        seconds, before = now - self._began, self.before
        record = {
            "items": before.num_items,
            "items_done": before.num_done + tally.num_items,
            "items_failed": tally.num_left_aside,
            "batches_done": int(self.journal.count("batches")),
            "pieces": before.num_pieces,
            "pieces_done": before.num_pieces_done + tally.num_pieces,
            "seconds": round(self._seconds_before + seconds, 1),
            "items_per_second": round(tally.num_items / max(seconds, 1e-9), 2),
            "bytes_on_disk": self.credits.used,
            "updated": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        try:
            files.write_json(self.path, record, durable=False)
        except StateError as error:
            if getattr(error, "errno", None) not in FULL:
                raise
            self._next = now + 10 * _WRITE_SECONDS  # it is for people, and those who fill the disk are told elsewhere
        if is_last:
            self.journal.add("seconds", seconds)
