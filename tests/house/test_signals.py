"""Ctrl-C in the tests does what the tests say: a shell that starts them in the background lets them ignore it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OWN_AND_CHILDS = (
    "tests/test_cli.py::test_interrupt_by_hand_is_75_and_goes_on",
    "tests/headless/test_watchdog.py::test_asleep_is_interrupted",
)


def test_who_ignores_ctrl_c_may_start_the_tests(tmp_path):
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        f"--basetemp={tmp_path / 'inner'}",
        *OWN_AND_CHILDS,
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=400,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout[-3000:] + done.stderr
