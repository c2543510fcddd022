"""What a terminal or log gets to see: titles, whole lines, progress now and then, no secrets, and never very much."""

from __future__ import annotations

import io

import pytest

from colabkit.headless import lines as module
from colabkit.headless.lines import MOST_LINES, Copies, Lines, titles
from tests.headless.conftest import book
from tests.headless.test_outputs import stream

SECRET = "hunter2hunter2"


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def said(clock):
    return []


@pytest.fixture
def shown(said):
    lines = Lines(book("a = 1", "b = 2"), said.append, (SECRET,))
    lines.cell_begins(2)
    said.clear()
    return lines


def out(text: str, name: str = "stdout"):
    return "stream", {"name": name, "text": text}


def bar(text: str, kind: str = "update_display_data"):
    return kind, {"data": {"text/plain": text, "text/html": "<b>"}, "transient": {"display_id": "1"}}


def test_titles():
    notebook = book("a = 1", "b = 2")
    assert titles(notebook) == ['TEXT = ""', "Part 1", "Part 1", "Part 2", "Part 2"]
    lines = Lines(notebook, print, ())
    assert [lines.title(i) for i in (0, 2, 4)] == ['[1/3] TEXT = ""', "[2/3] Part 1", "[3/3] Part 2"]


def test_lines_are_printed_when_they_are_whole(shown, said):
    for text in ("one\ntw", "o\n", "\n", "thr", "ee"):
        shown.message(*out(text))
    shown.message(*out("an error\n", "stderr"))
    assert said == ["  one", "  two", "  an error"]
    shown.cell_ends()
    assert said == ["  one", "  two", "  an error", "  three"]


def test_progress_at_most_one_line_in_ten_seconds(shown, said, clock):
    for second in range(100):
        for part in range(4):
            clock.now = 1000 + second + part / 4
            shown.message(
                *bar(f"train: {second}.{part}", "display_data" if second + part == 0 else "update_display_data")
            )
    shown.cell_ends()
    assert said[0] == "  train: 0.0" and said[-1] == "  train: 99.3" and len(said) == 11


def test_bars_that_draw_over_themselves(shown, said, clock):
    for percent in range(0, 101, 5):
        clock.now += 1
        shown.message(*out(f"\r{percent:3}%|###", "stderr"))
    shown.message(*out("\rall done\n", "stderr"))
    shown.cell_ends()
    assert said == ["    0%|###", "   50%|###", "  100%|###", "  all done"]


def test_a_bar_without_an_end_shows_its_last_state_once(shown, said):
    shown.message(*out("\r10%"))
    shown.message(*out("\r20%"))
    shown.message(*out("\r30%"))
    shown.cell_ends()
    assert said == ["  10%", "  30%"]


def test_displays(shown, said):
    shown.message("display_data", {"data": {"text/plain": "metric  value\n------  -----\nder     0.1"}})
    shown.message("execute_result", {"data": {"text/plain": "<IPython.core.display.Image object>"}})
    shown.message("display_data", {"data": {"text/plain": "IntProgress(children=())"}})
    shown.message("display_data", {"data": {"image/png": "aGk="}})
    shown.message("display_data", {"data": {"text/plain": "\n".join(map(str, range(100)))}})
    shown.message("status", {"execution_state": "busy"})
    assert said[:3] == ["  metric  value", "  ------  -----", "  der     0.1"]
    assert said[-1] == "  ... 60 more lines" and len(said) == 44


def test_much_output_stays_short(shown, said):
    for number in range(5000):
        shown.message(*out(f"line {number}\n"))
    shown.message(*out("x" * 100_000 + "\n"))
    shown.cell_ends()
    assert len(said) == MOST_LINES + 1 and "4801 more lines" in said[-1]
    assert max(map(len, said)) < 500


def test_no_secrets_and_no_colours(shown, said):
    shown.message(*out(f"a {SECRET[:5]}"))
    shown.message(*out(f"{SECRET[5:]} b\n\x1b[31mred\x1b[0m\x07 \x1b]0;title\n"))
    shown.message("display_data", {"data": {"text/plain": SECRET}})
    assert "hunter2" not in str(said) and "\x1b" not in str(said) and said[1].startswith("  red")


def test_copies_into_files():
    target = io.StringIO()
    copies = Copies({"stdout": target, "stderr": None}, (SECRET,))
    for text in ("one\nhunter2", "hunter2\n", "rest"):
        copies.take(stream("stdout", text))
    copies.take(stream("stderr", "not wanted"))
    assert target.getvalue() == "one\n[redacted]\n"
    copies.end()
    assert target.getvalue() == "one\n[redacted]\nrest"
