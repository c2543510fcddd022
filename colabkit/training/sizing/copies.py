"""Work shared with copies of this process: none of them can make it wait for ever, or outlives it."""

from __future__ import annotations

import os
import pickle
import select
import signal
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")
_PATIENCE = 3.0  # times what this process took for its own share
_LEAST_SECONDS = 10.0
_ENDING = {signal.SIGTERM, signal.SIGINT}


def in_copies(works: Sequence[Callable[[], T]], num_copies: int) -> list[T]:
    """Return what these give, in their order: a share by this process, the others by forked copies of it.

    What a copy gives has to be picklable. A copy that fails, or is silent for three times as long as this process took
    (a lock that a thread held while it was copied is never given back there), is ended and its share done here. Linux
    and macOS alone can fork.
    """
    shares = [range(number, len(works), num_copies + 1) for number in range(num_copies + 1)]
    own, others = shares[0], [share for share in shares[1:] if share]
    found: dict[int, T] = {}
    children: list[tuple[int, int]] = []  # process, the end of its pipe to read
    try:
        for share in others:
            _fork(lambda share=share: {number: works[number]() for number in share}, children)
        began = time.monotonic()
        found |= {number: works[number]() for number in own}
        deadline = time.monotonic() + max(_LEAST_SECONDS, _PATIENCE * (time.monotonic() - began))
        for share, (_, reader) in zip(others, children, strict=True):
            found |= _answer(reader, deadline) or {number: works[number]() for number in share}
    finally:
        for pid, reader in children:
            with suppress(ProcessLookupError, ChildProcessError):  # where SIGCHLD is ignored, the system reaps them
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            os.close(reader)
    return [found[number] for number in range(len(works))]


def _fork(work: Callable[[], Any], children: list[tuple[int, int]]) -> None:
    """Start a copy; a signal that asks this process to end is held back until the copy is known."""
    reader, writer = os.pipe()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of other threads: see in_copies
            pid = os.fork()
        if pid == 0:
            _be_a_copy(work, writer, before)
        children.append((pid, reader))
    finally:
        os.close(writer)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _be_a_copy(work: Callable[[], Any], writer: int, mask: set[signal.Signals]) -> NoReturn:
    """Answer and end, without what this process does on signals and at its end; what goes wrong is done there again."""
    try:
        for number in _ENDING:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        content = pickle.dumps(work())
        with open(writer, "wb", closefd=False) as pipe:
            pipe.write(content)
    finally:
        os._exit(0)


def _answer(reader: int, deadline: float) -> dict[int, Any] | None:
    """Return what a copy says until it hangs up, None where it says nothing whole in time."""
    parts = []
    while select.select([reader], [], [], max(0.0, deadline - time.monotonic()))[0]:
        part = os.read(reader, 1 << 20)
        if not part:
            try:
                return pickle.loads(b"".join(parts))
            except (EOFError, pickle.UnpicklingError):  # it ended before its answer did
                return None
        parts.append(part)
    return None
