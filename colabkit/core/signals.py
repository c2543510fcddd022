"""Signals taken for a while, and handled as before afterwards.

asked = []
with signals_to(lambda number, frame: asked.append(number), signal.SIGTERM, signal.SIGINT):
    work(until=lambda: asked)
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def signals_to(handler: Callable[[int, object], object], *numbers: signal.Signals) -> Iterator[None]:
    """Have `handler` take these signals inside; in a thread, which gets none, nothing changes.

    Who handled them before does so again afterwards, however the block ends; a handler that was not Python's, which
    signal.signal cannot give back, becomes the system's own.
    """
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
