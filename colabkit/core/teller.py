"""Teller: whom work tells what it does, chooses and leaves aside, and how far it is; who may ask it to stop.

Functions that work take one, and none of them prints. A run is a Teller that also writes everything into its report.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from colabkit.core.progress import Progress


class Teller:
    """Prints what it is told, a line each; `say` takes the lines where that is not print.

        build_index(source, folder, teller=Teller())
        publish_dataset(segments, codes, "me/voices", teller=Teller(log.info))

    `stop_requested` is what asks the work to stop in good order, such as the name of a signal; "" while nothing does.
    """

    stop_requested: str = ""

    def __init__(self, say: Callable[[str], object] = print):
        self.say = say

    def choose(self, name: str, value: Any, reason: str) -> Any:
        """Take an automatic choice with its reason; returns the value to use."""
        self.say(f"  choice: {name} = {value}, because {reason}")
        return value

    def problem(self, item: str, reason: str) -> None:
        """Take one thing that is left aside, such as a broken recording, and why."""
        self.say(f"  left aside: {item}: {reason}")

    def progress(self, total: int, title: str, *, done: int = 0, unit: str = "steps") -> Progress:
        """Return what shows how far a loop is; a context."""
        return Progress(total, title, done=done, unit=unit)


@contextmanager
def signals_to(handler: Callable[[int, object], object], *numbers: signal.Signals) -> Iterator[None]:
    """Have `handler` take these signals inside; in a thread, which gets none, nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            # None: what Python did not set and cannot set again
            signal.signal(number, signal.SIG_DFL if earlier is None else earlier)
