"""Signals taken for a while, and handled as before afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from colabkit.core.signals import signals_to


def test_the_handler_takes_them_inside_and_no_longer():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    taken, outer = [], []
    with signals_to(lambda number, frame: outer.append(number), signal.SIGTERM):
        with signals_to(lambda number, frame: taken.append(number), signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
    assert taken == [signal.SIGTERM, signal.SIGINT] and outer == [signal.SIGTERM]
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_an_error_inside_puts_them_back_too():
    before = signal.getsignal(signal.SIGTERM)

    def refuse(number: int, frame: object) -> None:
        raise InterruptedError(number)

    with pytest.raises(InterruptedError), signals_to(refuse, signal.SIGTERM):
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_in_a_thread_nothing_changes():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with signals_to(print, signal.SIGTERM):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_what_is_not_pythons_becomes_the_default():
    code = (
        "import ctypes, os, signal\nfrom colabkit.core.signals import signals_to\n"
        "handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda number: None)\n"
        "ctypes.CDLL(None).signal(15, handler)\n"
        "with signals_to(print, signal.SIGTERM): pass\n"
        "os.kill(os.getpid(), signal.SIGTERM)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGTERM, done.stderr
