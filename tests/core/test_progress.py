"""Tests of core.progress: few lines in a log, one line in a terminal, one display in a page; little stays of a day."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import nbformat
import pytest
import torch
from jupyter_client.manager import start_new_kernel

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
    monkeypatch.setattr(progress, "place", lambda: "log")
    return clock


DAY_SECONDS = 86_400
MOST_BYTES = 1_000_000  # that a day of work leaves behind


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
    quiet = max(progress.LOG_SECONDS, 100 * seconds / 60) + seconds  # at most, at the end
    assert len(times) >= 100 * seconds // quiet and (times or seconds < 0.1)
    assert last.count("\n") == (0 if times and times[-1] == log.now else 1)
    if not times:
        assert last.startswith("train: 100/100")


def test_a_line_tells_values_speed_and_time_left(log):
    bar = Progress(100, "train", done=20, unit="windows")
    log.now += 10
    bar.update(
        20,
        loss=torch.tensor(0.123456),
        step=3,
        best=math.inf,
        worst=torch.tensor(math.nan),
        name="x",
        half=torch.tensor(0.5).half(),
    )
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


def test_a_broken_off_loop_says_where_it_stood(log, capsys):
    with pytest.raises(KeyboardInterrupt), Progress(50, "train") as bar:
        log.now += 65
        bar.update(7)
        raise KeyboardInterrupt
    assert capsys.readouterr().out.splitlines()[-1] == "train: 7/50, 0.108 steps/s, 6:39 left"
    with pytest.raises(KeyboardInterrupt), Progress(50, "train") as bar:
        log.now += 5
        bar.update(7)
        raise KeyboardInterrupt
    assert capsys.readouterr().out == "train: 7/50, stopped after 0:05\n"


@pytest.mark.parametrize("seconds", [0.5, 40.0])
def test_a_day_leaves_a_log_that_can_be_read(log, capsys, seconds):
    began, said = log.now, []
    with Progress(round(DAY_SECONDS / seconds), "train") as bar:
        for _ in range(bar.total):
            log.now += seconds
            bar.update(loss=1 / 3, best_der=0.123456)
            if out := capsys.readouterr().out:
                said.append((log.now, out))
    gaps = [b - a for (a, _), (b, _) in zip([(began, ""), *said], said, strict=False)]
    assert sum(len(out) for _, out in said) < MOST_BYTES / 20 and all(out.count("\n") == 1 for _, out in said)
    assert len(said) < 500 and max(gaps) <= 600 + seconds, "it says something every ten minutes to the end"
    assert max(gaps[:50]) <= max(11, 2 * seconds), "and often at the start, when people look"


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
    assert (
        shown[0].startswith("train: 1/100")
        and shown[-1].startswith("train: 100/100")
        and screen.getvalue().count("\n") == 1
    )


def test_a_day_in_a_terminal_that_is_recorded_stays_small(clock, monkeypatch):
    screen = io.StringIO()  # as behind `!colabkit run` in a notebook, whose output is kept
    screen.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", screen)
    with Progress(DAY_SECONDS, "train") as bar:
        for _ in range(DAY_SECONDS):
            clock.now += 1
            bar.update(loss=1 / 3, best_der=0.123456)
    assert len(screen.getvalue()) < MOST_BYTES


PAGES = {  # what the pages that renew displays send along with a cell
    "JupyterLab": {"deletedCells": [], "recordTiming": False, "cellId": "5b0a", "trusted": True},
    "Notebook 7": {"deletedCells": [], "cellId": "5b0a"},
    "VS Code": {"cellId": "vscode-notebook-cell:/a/01.ipynb#W0sZmlsZQ%3D%3D"},
    "Colab": {"colab": {"base_url": "https://colab.research.google.com", "cell_id": "cell-12"}},
}
BLOCKED = "import sys; sys.modules['ipywidgets'] = None"  # an import of it raises ModuleNotFoundError
LOOP = """
from colabkit.core import progress
class Clock:
    now = 0.0
    def monotonic(self):
        return self.now
progress.time = Clock()
with progress.Progress(NUM_STEPS, "a < b") as bar:
    for step in range(NUM_STEPS):
        progress.time.now += 0.5
        bar.update(loss=1 / (1 + step), best_der=0.123456)
        if step % 600 == 599:
            print(f"  validation at step {step + 1}: frame_loss 0.5012, speaker_loss 1.0204, der 0.1235")
"""
DAY = f"NUM_STEPS = {2 * DAY_SECONDS}" + LOOP
MINUTE = "NUM_STEPS = 120" + LOOP


class Kernel:
    """A real kernel without ipywidgets, and a client that sends what a page would send."""

    def __init__(self):
        self.manager, self.client = start_new_kernel(kernel_name="python3")
        self.run(BLOCKED, {})

    def run(self, code: str, metadata: dict, *, allow_stdin: bool = True) -> list[dict]:
        """Run a cell; returns all that was sent to the page, but for states."""
        sent: list[dict] = []
        self.client.session.metadata = metadata
        reply = self.client.execute_interactive(code, allow_stdin=allow_stdin, timeout=120, output_hook=sent.append)
        assert reply["content"]["status"] == "ok", reply["content"]
        return [m for m in sent if m["msg_type"] not in ("status", "execute_input")]

    def end(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def kernel():
    running = Kernel()
    yield running
    running.end()


@pytest.mark.parametrize("metadata", PAGES.values(), ids=PAGES)
def test_a_page_gets_one_display_that_is_renewed(kernel, metadata):
    sent = kernel.run(MINUTE, metadata)
    kinds = [m["msg_type"] for m in sent]
    assert kinds[0] == "display_data" and set(kinds[1:]) == {"update_display_data"}
    shown = [m["content"] for m in sent]
    assert len({c["transient"]["display_id"] for c in shown}) == 1
    assert 60 < len(shown) < 122 and all(set(c["data"]) == {"text/plain", "text/html"} for c in shown)
    last = shown[-1]["data"]
    assert last["text/plain"] == "a < b: 120/120, loss 0.008333, best_der 0.1235, 2 steps/s"
    assert "a &lt; b" in last["text/html"] and "<b" not in last["text/html"] and "value='100.0'" in last["text/html"]


def test_a_day_in_a_page_is_few_messages_of_which_little_stays(kernel):
    sent = kernel.run(DAY, PAGES["JupyterLab"])
    shown = [m["content"] for m in sent if m["msg_type"].endswith("display_data")]
    assert [m["msg_type"] for m in sent].count("display_data") == 1
    assert 8_000 < len(shown) < 10_000, "often enough to be seen to move, and one message in ten seconds"
    assert all(0 < len(c["data"]["text/html"]) < 500 for c in shown)
    lines = [m["content"] for m in sent if m["msg_type"] == "stream"]
    assert len(lines) + len(shown) == len(sent) and {c["name"] for c in lines} == {"stdout"}
    assert len(json.dumps(lines + shown[-1:])) < MOST_BYTES / 10, "this is what the saved notebook holds"


@pytest.mark.parametrize(
    ("metadata", "allow_stdin"),
    [({}, True), ({}, False), (PAGES["JupyterLab"], False)],
    ids=["console", "headless", "headless as if a page"],
)
def test_who_does_not_renew_displays_gets_lines(kernel, metadata, allow_stdin):
    sent = kernel.run(DAY, metadata, allow_stdin=allow_stdin)
    assert {m["msg_type"] for m in sent} == {"stream"} and {m["content"]["name"] for m in sent} == {"stdout"}
    text = "".join(m["content"]["text"] for m in sent)
    assert len(text) < MOST_BYTES / 10 and 300 < text.count("a < b: ") < 500


def test_papermill_tells_progress_in_its_log_and_keeps_little(tmp_path):
    cells = [nbformat.v4.new_code_cell(BLOCKED), nbformat.v4.new_code_cell(DAY)]
    kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernelspec}), tmp_path / "day.ipynb")
    done = subprocess.run(
        [sys.executable, "-m", "papermill", "day.ipynb", "done.ipynb", "--log-output", "--no-progress-bar"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert 300 < done.stderr.count("a < b: ") < 500 and len(done.stderr) < MOST_BYTES / 5
    assert (tmp_path / "done.ipynb").stat().st_size < MOST_BYTES / 5


def test_where_we_are(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert progress.place() == "log"
    terminal = ModuleType("IPython")
    terminal.get_ipython = lambda: SimpleNamespace()  # IPython's own prompt: no kernel
    monkeypatch.setitem(sys.modules, "IPython", terminal)
    assert progress.place() == "log"
    screen.isatty = lambda: True
    assert progress.place() == "terminal"
