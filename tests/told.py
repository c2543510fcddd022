"""Told: a Teller that keeps what it is told, for tests to look at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from colabkit.core.teller import Teller


class Told(Teller):
    """Keeps `said` lines, `choices` (name, value, reason) and `left_aside` (item, reason).

    `stop()` says whether to stop.
    """

    def __init__(self, stop: Callable[[], object] = lambda: False):
        self.said: list[str] = []
        self.choices: list[tuple[str, Any, str]] = []
        self.left_aside: list[tuple[str, str]] = []
        self.problems: dict[str, str] = {}  # the same by item
        self.stop = stop
        super().__init__(self.said.append)

    @property
    def stop_requested(self) -> str:
        return "the test" if self.stop() else ""

    @property
    def chosen(self) -> dict[str, tuple[Any, str]]:
        """Return {name: (value, reason)}, the last of each name."""
        return {name: (value, reason) for name, value, reason in self.choices}

    def choose(self, name: str, value: Any, reason: str) -> Any:
        self.choices.append((name, value, reason))
        return value

    def problem(self, item: str, reason: str) -> None:
        self.left_aside.append((item, reason))
        self.problems[item] = reason
