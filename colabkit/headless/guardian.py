"""No kernel outlives the process that runs the notebook, not even when that process is killed without a word.

A small process waits on a pipe from its parent. When the parent is gone the pipe is closed, and it kills the kernel's
whole process group: the kernel, and the workers and commands that it started.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Runs without this package and without site-packages, so that it is there within milliseconds.
_WAITING = """
import os, signal, sys
if not os.read(0, 1):
    try:
        os.killpg(int(sys.argv[1]), signal.SIGKILL)
    except OSError:
        pass
"""


@contextmanager
def guardian(process_group: int) -> Iterator[None]:
    """Guard a kernel's process group while the context is open."""
    waiting = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _WAITING, str(process_group)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        try:
            waiting.communicate(b".", timeout=5)  # all is well: it ends without killing
        except (OSError, subprocess.TimeoutExpired):
            waiting.kill()
            waiting.wait()
