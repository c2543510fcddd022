"""A thread that watches a kernel at work: has it hung, has a cell run too long, must it stop because we are asked to?

A kernel hangs when its cell sends no message and its processes use no CPU time. It is interrupted first, and killed
when that does not help. When it shall stop it gets SIGTERM first, which lets a step save its work.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

INTERRUPT_SECONDS = 10.0  # for a hung cell to be interrupted, before it is killed
STOP_SECONDS = 120.0  # for a step to save its work when asked to stop
_LOOK_SECONDS = 0.25
_IDLE_SHARE = 0.005  # of one core: what a kernel that does nothing uses for its heartbeat and threads
_IDLE_SECONDS = 0.1  # of CPU time: below this nothing can be told


@dataclass(frozen=True, slots=True)
class Limits:
    """What a cell is allowed; 0 is no limit."""

    hung_after_seconds: float = 900.0
    cell_seconds: float = 0.0
    stop_seconds: float = STOP_SECONDS
    interrupt_seconds: float = INTERRUPT_SECONDS


def minutes(text: str) -> float:
    """Read a number of minutes for a limit; argparse names this function in its message. Raises: ValueError."""
    number = float(text)
    if not 0 <= number < float("inf"):
        raise ValueError("not a number of minutes")
    return number


class Watchdog(threading.Thread):
    """Watches the process `pid` while cells are at work.

    `verdict` says why it was made to stop: hung, too long, stopped.
    """

    def __init__(self, pid: int, limits: Limits, say: Callable[[str], None]):
        super().__init__(name="kernel watchdog", daemon=True)
        self.pid, self.limits, self.say = pid, limits, say
        self.verdict = ""
        self.quiet_seconds, self.used_bytes = 0.0, 0
        self._at_work = self._ended = False
        self._plan: list[tuple[signal.Signals, float]] = []
        self._due = 0.0
        self._lock = threading.RLock()  # a signal handler may come in between

    def heard(self) -> None:
        """A message came from the cell."""
        self._heard_at = time.monotonic()

    def cell_begins(self) -> None:
        with self._lock:
            self._began_at = self._heard_at = self._busy_at = time.monotonic()
            self._busy_cpu = None
            self._at_work = True

    def cell_ends(self) -> None:
        with self._lock:
            self._at_work = False
            self._plan = []

    def close(self) -> None:
        self._ended = True

    def stop(self) -> None:
        """Ask the kernel to stop in good order; the second time, kill it."""
        with self._lock:
            again, self.verdict = self.verdict == "stopped", "stopped"
            if self._at_work:
                self._follow([(signal.SIGKILL, 0.0)] if again else self._stopping())

    def _stopping(self) -> list[tuple[signal.Signals, float]]:
        return [
            (signal.SIGTERM, self.limits.stop_seconds),
            (signal.SIGINT, self.limits.interrupt_seconds),
            (signal.SIGKILL, 0.0),
        ]

    def run(self) -> None:
        while not self._ended:
            time.sleep(_LOOK_SECONDS)
            with self._lock:
                if self._at_work:
                    self._look(time.monotonic())

    def _look(self, now: float) -> None:
        limits = self.limits
        if self._plan:
            if now >= self._due:
                self.say(f"the cell does not end: the kernel gets {self._plan[0][0].name}")
                self._follow(self._plan)
        elif self.verdict:
            return
        elif limits.cell_seconds and now - self._began_at > limits.cell_seconds:
            self.verdict = "too long"
            self._follow(self._stopping())
        else:
            self._note_cpu(now)
            self.quiet_seconds = now - max(self._heard_at, self._busy_at)
            if limits.hung_after_seconds and self.quiet_seconds > limits.hung_after_seconds:
                self.verdict = "hung"
                self._follow([(signal.SIGINT, limits.interrupt_seconds), (signal.SIGKILL, 0.0)])

    def _follow(self, plan: Sequence[tuple[signal.Signals, float]]) -> None:
        """Send the first signal of a plan, and keep the rest for when it was of no use."""
        (number, patience), *self._plan = plan
        self._due = time.monotonic() + patience
        try:
            # The step's own process decides what its workers do; an interrupt is for all, as in a terminal.
            os.kill(self.pid, number) if number is signal.SIGTERM else os.killpg(self.pid, number)
        except ProcessLookupError:
            self._plan = []  # it has ended meanwhile, which the client notices

    def _note_cpu(self, now: float) -> None:
        """Find out whether the kernel's processes have computed something lately."""
        if self._busy_cpu is not None and now - self._looked_at < min(5.0, self.limits.hung_after_seconds / 10 or 5.0):
            return
        self._looked_at = now
        cpu_seconds, self.used_bytes = measure(self.pid)
        if self._busy_cpu is None:
            self._busy_cpu = cpu_seconds
        elif abs(cpu_seconds - self._busy_cpu) > max(_IDLE_SECONDS, _IDLE_SHARE * (now - self._busy_at)):
            self._busy_cpu, self._busy_at = cpu_seconds, now


def measure(pid: int) -> tuple[float, int]:
    """Return the CPU seconds and bytes of memory that a process and all below it have used, ended ones included."""
    import psutil

    seconds, num_bytes = 0.0, 0
    try:
        processes = [psutil.Process(pid)]
        processes += processes[0].children(recursive=True)
    except psutil.Error:
        return 0.0, 0
    for process in processes:
        try:
            with process.oneshot():
                times = process.cpu_times()
                seconds += (
                    times.user
                    + times.system
                    + getattr(times, "children_user", 0)
                    + getattr(times, "children_system", 0)
                )
                num_bytes += process.memory_info().rss
        except psutil.Error:
            continue  # it ended just now
    return seconds, num_bytes
