"""When the process that runs the notebook is gone, the kernel and what it started are gone, too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from colabkit.headless.guardian import guardian
from tests.headless.conftest import is_alive, wait_until

KERNEL = """
import subprocess, sys, time
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(worker.pid, flush=True)
time.sleep(600)
"""
PARENT = f"""
import subprocess, sys, time
from colabkit.headless.guardian import guardian
kernel = subprocess.Popen([sys.executable, "-c", {KERNEL!r}], stdout=subprocess.PIPE, text=True, start_new_session=True)
with guardian(kernel.pid):
    print(kernel.pid, kernel.stdout.readline().strip(), flush=True)
    time.sleep(600)
"""


def test_killed_without_a_word():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    kernel, worker = map(int, parent.stdout.readline().split())
    assert is_alive(kernel) and is_alive(worker)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    wait_until(lambda: not is_alive(kernel) and not is_alive(worker), seconds=5)
    parent.stdout.close()


def test_an_orderly_end_kills_nothing():
    kernel = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    try:
        with guardian(kernel.pid):
            pass
        assert kernel.poll() is None and is_alive(kernel.pid)
    finally:
        kernel.kill()
        kernel.wait()


def test_a_kernel_that_is_gone_already():
    kernel = subprocess.Popen([sys.executable, "-c", ""], start_new_session=True)
    kernel.wait()
    with guardian(kernel.pid):
        pass
