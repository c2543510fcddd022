"""Bring generations from this machine's disk to a medium that may be away, while training goes on.

One thread sends. What could not be sent is tried again, after seconds at first and minutes later; of several
generations that wait only the newest and the newest best matter. It says once when the medium is away, and once when it
is back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from colabkit.runs.medium import AWAY

RETRY_SECONDS = (1.0, 2.0, 5.0, 15.0, 60.0)  # the last is repeated


@dataclass(frozen=True, slots=True)
class Job:
    """A generation to send: its folder on this machine's disk."""

    step: int
    best: bool
    folder: Path


class Publisher:
    """Sends jobs by `send(job)`, which raises OSError where the medium does not take them.

    `confirm()` tells whether the newest sent one is on the other side, which may be later.
    """

    def __init__(
        self,
        send: Callable[[Job], None],
        confirm: Callable[[], bool],
        *,
        medium_name: str,
        say: Callable[[str], object] = print,
        retry_seconds: tuple[float, ...],
    ):
        self._send, self._confirm, self._name, self._say = send, confirm, medium_name, say
        self._retry_seconds = retry_seconds
        self._waiting: list[Job] = []
        self._offered = 0
        self._in_haste = False  # somebody waits in flush
        self._sending: Job | None = None
        self._unconfirmed = False
        self._failed = 0  # attempts in a row
        self._missed = 0  # generations that only this machine has had since the medium went away
        self._fault: BaseException | None = None
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None

    def folders(self) -> set[Path]:
        """Return what waits or is being sent: it must stay on this machine."""
        with self._wake:
            return {job.folder for job in (*self._waiting, self._sending) if job is not None}

    def offer(self, job: Job) -> None:
        """Have a generation sent, in place of an older one that still waits.

        Raises: the fault that no waiting mends.
        """
        with self._wake:
            self._raise_fault()
            self._offered += 1
            self._missed += bool(self._failed)
            kept = [j for j in self._waiting if j.best][-1:] if not job.best else []
            self._waiting = [*kept, job]
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True, name="checkpoint publisher")
                self._thread.start()
            self._wake.notify_all()

    def flush(self, patience_seconds: float) -> bool:
        """Wait until everything offered is on the other side, at most so long; tell whether it is."""
        with self._wake:
            self._in_haste = True
            self._wake.notify_all()
            self._wake.wait_for(lambda: self._is_done() or self._fault is not None, patience_seconds)
            self._in_haste = False
            self._raise_fault()
            return self._is_done()

    def close(self) -> None:
        """Send nothing more."""
        with self._wake:
            self._waiting, thread, self._thread = [], self._thread, None
            self._wake.notify_all()
        if thread is not None and self._sending is None:
            thread.join(5)

    def _is_done(self) -> bool:
        return not (self._waiting or self._sending or self._unconfirmed)

    def _raise_fault(self) -> None:
        if self._fault is not None:
            fault, self._fault = self._fault, None
            raise fault

    def _work(self) -> None:
        mine = threading.current_thread()
        while True:
            with self._wake:
                self._sending = None
                self._wake.notify_all()
                self._wake.wait_for(lambda: self._thread is not mine or self._waiting or self._unconfirmed)
                if self._thread is not mine:
                    return
                job = self._sending = self._waiting[0] if self._waiting else None
            try:
                if job is None:
                    if self._confirm():
                        self._unconfirmed = False
                    else:
                        self._pause(self._retry_seconds[0])
                    continue
                self._send(job)
            except OSError as error:
                if error.errno not in AWAY:
                    self._end_with(error)
                    return
                self._tell_away(job, error)
                self._pause(self._retry_seconds[min(self._failed, len(self._retry_seconds)) - 1])
            except Exception as error:  # told to the trainer: a training that saves nothing must not look well
                self._end_with(error)
                return
            else:
                self._tell_back(job)
                with self._wake:
                    self._waiting = [j for j in self._waiting if j is not job]
                    self._unconfirmed = True

    def _pause(self, seconds: float) -> None:
        """Wait, at most until something new is offered, somebody waits, or the medium is no longer wanted."""
        mine, offered, began = threading.current_thread(), self._offered, time.monotonic()
        with self._wake:
            self._sending = None
            while self._thread is mine and self._offered == offered:
                left = began + (min(seconds, self._retry_seconds[0]) if self._in_haste else seconds) - time.monotonic()
                if left <= 0:
                    return
                self._wake.wait(left)

    def _end_with(self, error: BaseException) -> None:
        with self._wake:
            self._fault, self._thread, self._waiting, self._sending, self._unconfirmed = error, None, [], None, False
            self._wake.notify_all()

    def _tell_away(self, job: Job | None, error: OSError) -> None:
        self._failed += 1
        if self._failed == 1 and job is not None:
            self._missed = 1
            self._say(
                f"  WARNING {self._name} does not take the checkpoint of step {job.step} ({error.strerror or error}): "
                f"training goes on, checkpoints stay in {job.folder.parent} on this machine until it does"
            )

    def _tell_back(self, job: Job) -> None:
        if self._failed:
            self._say(
                f"  {self._name} answers again: the checkpoint of step {job.step} is stored; "
                f"{self._missed} had stayed on this machine"
            )
        self._failed = self._missed = 0
