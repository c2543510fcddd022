"""A Teller prints what it is told, each thing on a line, or hands the lines to somebody else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from colabkit.core.progress import Progress
from colabkit.core.teller import Teller, signals_to


def test_it_prints_what_is_said_chosen_and_left_aside(capsys):
    teller = Teller()
    teller.say("3 recordings")
    assert teller.choose("train.workers", 4, "there are 5 cores") == 4
    teller.problem("a.wav", "it is empty")
    assert capsys.readouterr().out.splitlines() == [
        "3 recordings",
        "  choice: train.workers = 4, because there are 5 cores",
        "  left aside: a.wav: it is empty",
    ]


def test_its_lines_may_go_elsewhere(capsys):
    lines: list[str] = []
    teller = Teller(lines.append)
    teller.say("one")
    teller.choose("x", [1], "y")
    teller.problem("a", "b")
    assert lines == ["one", "  choice: x = [1], because y", "  left aside: a: b"] and capsys.readouterr().out == ""


def test_nobody_asks_it_to_stop_and_progress_is_shown(capsys):
    teller = Teller()
    assert not teller.stop_requested
    with teller.progress(10, "cut", done=4, unit="recordings") as progress:
        assert isinstance(progress, Progress)
        progress.update(6)
    shown = capsys.readouterr()
    assert "cut: 10/10" in shown.out + shown.err


def test_a_run_is_one_and_keeps_everything_in_its_report(toy):
    with toy.open() as run:
        assert isinstance(run, Teller)
        run.hold()
        assert run.choose("size", 7, "it fits") == 7
        run.problem("b.wav", "it does not open")
        run.say("done")
    assert run.report.data["choices"] == [{"name": "size", "value": 7, "reason": "it fits"}]
    assert run.report.data["problems"] == [{"item": "b.wav", "reason": "it does not open"}]
    assert toy.said[-3:] == ["  choice: size = 7, because it fits", "  left aside: b.wav: it does not open", "done"]


def test_a_handler_takes_signals_inside_and_no_longer():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    taken, outer = [], []
    with signals_to(lambda number, frame: outer.append(number), signal.SIGTERM):
        with signals_to(lambda number, frame: taken.append(number), signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
    assert taken == [signal.SIGTERM, signal.SIGINT] and outer == [signal.SIGTERM]
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_an_error_inside_puts_signals_back_too():
    before = signal.getsignal(signal.SIGTERM)

    def refuse(number: int, frame: object) -> None:
        raise InterruptedError(number)

    with pytest.raises(InterruptedError), signals_to(refuse, signal.SIGTERM):
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_in_a_thread_signals_stay_as_they_are():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with signals_to(print, signal.SIGTERM):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_a_handler_that_is_not_pythons_becomes_the_default():
    code = (
        "import ctypes, os, signal\nfrom colabkit.core.teller import signals_to\n"
        "handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda number: None)\n"
        "ctypes.CDLL(None).signal(15, handler)\n"
        "with signals_to(print, signal.SIGTERM): pass\n"
        "os.kill(os.getpid(), signal.SIGTERM)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGTERM, done.stderr
