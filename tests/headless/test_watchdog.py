"""The watchdog against real processes: at work, asleep, deaf to signals, with children."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from colabkit.headless.watchdog import Limits, Watchdog, measure
from tests.headless.conftest import wait_until

ASLEEP = "import time; print(flush=True); time.sleep(600)"
BUSY = "print(flush=True)\nwhile True: pass"
BUSY_CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BUSY!r}])"
DEAF = "import signal, time\nfor n in (2, 15): signal.signal(n, signal.SIG_IGN)\nprint(flush=True); time.sleep(600)"
SAVES = """
import signal, sys, time
def save(number, frame):
    time.sleep(0.5); sys.exit(75)
signal.signal(signal.SIGTERM, save)
print(flush=True); time.sleep(600)
"""


def end(process: subprocess.Popen) -> None:
    """Kill a process and its children, if they are still there."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def watched(code: str, **limits: float) -> Iterator[tuple[Watchdog, subprocess.Popen]]:
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    process.stdout.readline()
    dog = Watchdog(
        process.pid,
        Limits(**{"hung_after_seconds": 1.0, "interrupt_seconds": 0.5, "stop_seconds": 1.0} | limits),
        lambda line: None,
    )
    dog.start()
    try:
        yield dog, process
    finally:
        dog.close()
        end(process)
        process.stdout.close()


def test_asleep_is_interrupted():
    with watched(ASLEEP) as (dog, process):
        time.sleep(1.4)
        assert process.poll() is None and not dog.verdict, "no cell is at work"
        dog.cell_begins()
        assert process.wait(10) == -signal.SIGINT
        assert dog.verdict == "hung" and dog.quiet_seconds > 1.0


def test_deaf_is_killed():
    with watched(DEAF) as (dog, process):
        dog.cell_begins()
        assert process.wait(10) == -signal.SIGKILL and dog.verdict == "hung"


def test_busy_by_a_child_is_left_alone():
    with watched(BUSY_CHILD) as (dog, process):
        dog.cell_begins()
        time.sleep(2.2)
        assert process.poll() is None and not dog.verdict and dog.used_bytes > 1_000_000


def test_messages_keep_it_alive():
    with watched(ASLEEP) as (dog, process):
        dog.cell_begins()
        for _ in range(18):
            time.sleep(0.1)
            dog.heard()
        assert process.poll() is None and not dog.verdict


def test_hanging_is_allowed_for_ever():
    with watched(ASLEEP, hung_after_seconds=0) as (dog, process):
        dog.cell_begins()
        time.sleep(1.6)
        assert process.poll() is None and not dog.verdict


def test_stop_lets_it_save():
    with watched(SAVES) as (dog, process):
        dog.cell_begins()
        dog.stop()
        assert process.wait(10) == 75 and dog.verdict == "stopped"


def test_stop_of_the_deaf_and_the_second_time():
    with watched(DEAF, hung_after_seconds=0) as (dog, process):
        dog.cell_begins()
        began = time.monotonic()
        dog.stop()
        assert process.wait(10) == -signal.SIGKILL and time.monotonic() - began >= 1.4, "it had its time"
    with watched(DEAF, stop_seconds=600) as (dog, process):
        dog.cell_begins()
        dog.stop()
        dog.stop()
        assert process.wait(10) == -signal.SIGKILL and dog.verdict == "stopped"


def test_stop_between_cells_signals_nobody():
    with watched(SAVES) as (dog, process):
        dog.stop()
        time.sleep(1)
        assert process.poll() is None and dog.verdict == "stopped"


def test_a_cell_that_takes_too_long():
    with watched(SAVES, cell_seconds=0.5) as (dog, process):
        dog.cell_begins()
        assert process.wait(10) == 75 and dog.verdict == "too long"


def test_a_cell_that_ends_is_no_longer_pursued():
    with watched(DEAF, stop_seconds=0.5) as (dog, process):
        dog.cell_begins()
        dog.stop()
        dog.cell_ends()
        time.sleep(1.5)
        assert process.poll() is None


def test_measure():
    busy = subprocess.Popen([sys.executable, "-c", BUSY_CHILD], stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_until(lambda: measure(busy.pid)[0] > 0.3)
        assert measure(busy.pid)[1] > 5_000_000
    finally:
        end(busy)
    assert measure(busy.pid) == (0.0, 0)
