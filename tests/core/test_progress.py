"""Tests of colabkit.core.progress: few lines in a log, one line in a terminal, one display in a notebook."""

from __future__ import annotations

import io
import math
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from colabkit.core import progress
from colabkit.core.progress import Progress


class Clock:
    now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    ticking = Clock()
    monkeypatch.setattr(progress, "time", ticking)
    return ticking


@pytest.fixture
def log(monkeypatch, clock):
    monkeypatch.setattr(progress, "_place", lambda: "log")
    return clock


@pytest.mark.parametrize("seconds", [0.01, 0.7, 3.0, 9.99, 25.0])
def test_a_log_gets_at_most_one_line_in_ten_seconds_and_one_at_the_end(log, capsys, seconds):
    times = []
    with Progress(100, "train") as bar:
        for _ in range(100):
            log.now += seconds
            bar.update()
            if capsys.readouterr().out:
                times.append(log.now)
    last = capsys.readouterr().out
    assert all(b - a >= progress.LOG_SECONDS for a, b in zip(times, times[1:], strict=False))
    assert len(times) >= 100 * seconds // (progress.LOG_SECONDS + seconds) and (times or seconds < 0.1)
    assert last.count("\n") == (0 if times and times[-1] == log.now else 1)
    if not times:
        assert last.startswith("train: 100/100")


def test_a_line_tells_values_speed_and_time_left(log):
    bar = Progress(100, "train", done=20, unit="windows")
    log.now += 10
    bar.update(20, loss=torch.tensor(0.123456), step=3, best=math.inf, worst=torch.tensor(math.nan), name="x",
               half=torch.tensor(0.5).half())
    assert bar.line() == "train: 40/100, loss 0.1235, step 3, name x, half 0.5, 2 windows/s, 0:30 left"
    log.now += 7190
    assert bar.line().endswith("0.00278 windows/s, 6:00:00 left")


def test_the_end_and_the_beginning_and_nothing_at_all(log, capsys):
    with Progress(5, "nothing"):
        pass
    with Progress(5, "resumed", done=5):
        pass
    assert capsys.readouterr().out == ""
    with Progress(0, "empty") as bar:
        bar.update()
    assert capsys.readouterr().out.startswith("empty: 1/0")
    assert "left" not in Progress(5, "start").line() and "left" not in Progress(5, "over", done=7).line()


def test_values_are_read_only_when_a_line_is_shown(log):
    reads = []

    class Value:
        def __float__(self):
            reads.append(1)
            return 1.0
    bar = Progress(1000, "train")
    for _ in range(1000):
        log.now += 0.0999
        bar.update(loss=Value())
    assert len(reads) == 9


def test_a_broken_value_does_not_hide_why_the_loop_broke(log):
    class Broken:
        def __float__(self):
            raise RuntimeError("device lost")
    with pytest.raises(KeyError, match="cause"), Progress(5, "train") as bar:
        bar.update(loss=Broken())
        raise KeyError("cause")


def test_a_terminal_gets_one_line_that_fits(clock, monkeypatch):
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", "30")
    with Progress(100, "train") as bar:
        for _ in range(100):
            clock.now += 0.1
            bar.update(loss=1.0, another_long_name=2.0)
    shown = screen.getvalue().split("\r\x1b[2K")[1:]
    assert 15 <= len(shown) <= 25 and all(len(line.rstrip("\n")) <= 29 for line in shown)
    assert shown[0].startswith("train: 1/100") and shown[-1].startswith("train: 100/100") and screen.getvalue().count("\n") == 1


class FakeIPython(ModuleType):
    """A kernel without widgets: display() with display ids is all it has."""

    def __init__(self):
        super().__init__("IPython")
        self.display = ModuleType("IPython.display")
        self.shown = []
        self.display.display = self._display

    @staticmethod
    def get_ipython():
        return SimpleNamespace(kernel=object())

    def _display(self, bundle, *, raw, display_id):
        assert raw and display_id
        self.shown.append(("new", bundle))
        return SimpleNamespace(update=lambda bundle, raw: self.shown.append(("again", bundle)))


def test_a_notebook_without_widgets_gets_one_display_that_is_renewed(clock, monkeypatch, capsys):
    fake = FakeIPython()
    monkeypatch.setitem(sys.modules, "IPython", fake)
    monkeypatch.setitem(sys.modules, "IPython.display", fake.display)
    assert progress.in_kernel()
    with Progress(10, "a < b") as bar:
        for _ in range(10):
            clock.now += 0.3
            bar.update(loss=torch.tensor(2.0), best=math.inf)
    kinds = [kind for kind, _ in fake.shown]
    assert kinds[0] == "new" and set(kinds[1:]) == {"again"} and 4 <= len(kinds) <= 11
    assert all(set(bundle) == {"text/plain", "text/html"} for _, bundle in fake.shown)
    assert fake.shown[-1][1]["text/plain"].startswith("a < b: 10/10, loss 2, ")
    assert "a &lt; b" in fake.shown[-1][1]["text/html"] and "value='100.0'" in fake.shown[-1][1]["text/html"]
    assert capsys.readouterr().out == ""


def test_where_we_are(monkeypatch):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert not progress.in_kernel()
    terminal = ModuleType("IPython")
    terminal.get_ipython = lambda: SimpleNamespace()
    monkeypatch.setitem(sys.modules, "IPython", terminal)
    assert not progress.in_kernel()
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert progress._place() == "log"
