"""Work shared with copies of this process: they may fail, hang or be killed, and are gone in the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from colabkit.training.sizing import copies
from colabkit.training.sizing.copies import in_copies


def children():
    """Return the processes that this one has started and not yet taken leave of."""
    return {pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}


@pytest.mark.parametrize("num_copies", [0, 1, 2, 5, 9])
def test_all_is_given_in_order(num_copies):
    before = children()
    wanted = [{"n": n, "long": "x" * 300_000} for n in range(6)]
    assert in_copies([lambda one=one: one for one in wanted], num_copies) == wanted
    assert children() == before


def test_the_work_is_shared():
    found = in_copies([os.getpid] * 4, 1)
    assert found[0] == found[2] == os.getpid() and found[1] == found[3] != os.getpid()


@pytest.mark.parametrize(
    "trouble",
    [
        lambda: 1 / 0,
        lambda: sys.exit(3),
        lambda: os._exit(0),
        lambda: os.kill(os.getpid(), signal.SIGKILL),
        lambda: os.kill(os.getpid(), signal.SIGTERM),
        lambda: time.sleep(600),
        lambda: lambda: "cannot be pickled",
    ],
)
def test_a_copy_in_trouble_is_ended_and_its_work_done_here(trouble, monkeypatch):
    monkeypatch.setattr(copies, "_LEAST_SECONDS", 0.5)
    parent = os.getpid()

    def work():
        return 7 if os.getpid() == parent else trouble()

    handler, before = signal.signal(signal.SIGTERM, lambda *_: time.sleep(600)), children()  # no copy may inherit it
    try:
        began = time.monotonic()
        assert in_copies([lambda: 1, work, lambda: 2], 1) == [1, 7, 2]
        assert time.monotonic() - began < 30 and children() == before
    finally:
        signal.signal(signal.SIGTERM, handler)


def test_copies_that_the_system_reaps_are_no_error():
    handler = signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # as some launchers leave it
    try:
        assert in_copies([lambda: 1, lambda: 2], 1) == [1, 2]
    finally:
        signal.signal(signal.SIGCHLD, handler)


def test_what_goes_wrong_everywhere_is_raised_here():
    with pytest.raises(ZeroDivisionError):
        in_copies([lambda: 1, lambda: 1 / 0], 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_of_them(number, tmp_path):
    """A process that ends by an exception on a signal, as commands do, takes its copies along."""
    code = f"""
        import os, signal, time
        from colabkit.training.sizing.copies import in_copies
        def stop(*_):
            raise SystemExit(75)
        signal.signal(signal.{number.name}, stop)
        def work():
            open(f"{tmp_path}/{{os.getpid()}}", "w").close()
            time.sleep(60)
        in_copies([work] * 3, 2)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
    while len(list(tmp_path.iterdir())) < 3:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait(10) == 75
    for pid in (int(path.name) for path in tmp_path.iterdir()):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
