"""A client of real kernels that does what a notebook's page does: answers questions, presses, uploads files."""

from __future__ import annotations

import os
import queue
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from jupyter_client.manager import KernelManager

ROOT = Path(__file__).resolve().parents[2]
ALL = (
    "from colabkit.colab import auth, data_table, drive, files, output, patches, runtime, snippets, syntax, userdata\n"
)
PAGE = {"cellId": "1f1c9b52"}  # what JupyterLab writes beside every cell it runs


@dataclass
class Ran:
    """What came of one cell."""

    text: str = ""  # stdout and stderr
    shown: list[dict] = field(default_factory=list)  # data of displays, as they were in the end
    error: str = ""
    error_text: str = ""
    seconds: float = 0.0
    widgets: dict[str, dict] = field(default_factory=dict)  # state by model id
    closed: list[str] = field(default_factory=list)
    asked: list[tuple[str, bool]] = field(default_factory=list)  # (prompt, whether it is a password)
    _displays: dict[str, int] = field(default_factory=dict)

    def find(self, model: str, **state) -> str:
        """Return the id of the widget of this model and state; "" while there is none."""
        return next(
            (
                id
                for id, has in self.widgets.items()
                if has.get("_model_name") == model and all(has.get(name) == value for name, value in state.items())
            ),
            "",
        )


class Kernel:
    """A running kernel; `allow_stdin` says whether its client answers questions."""

    def __init__(self, client, manager, *, allow_stdin: bool, metadata: dict):
        self.client, self.manager, self.allow_stdin, self.metadata = client, manager, allow_stdin, metadata
        self._outputs: dict[str, list[dict]] = {}  # not yet looked at, by the cell they belong to
        self._replied: set[str] = set()

    def send(self, code: str) -> str:
        """Send a cell without waiting for it."""
        content = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": self.allow_stdin,
            "stop_on_error": True,
        }
        message = self.client.session.msg("execute_request", content, metadata=self.metadata)
        self.client.shell_channel.send(message)
        return message["header"]["msg_id"]

    def run(
        self,
        code: str,
        *,
        answers: tuple[str, ...] = (),
        act: Callable[[Ran], bool] | None = None,
        timeout: float = 60.0,
    ) -> Ran:
        """Run a cell to its end; `act` is called after every message until it returns True."""
        return self.collect(self.send(code), answers=answers, act=act, timeout=timeout)

    def collect(self, id: str, *, answers: tuple[str, ...] = (), act=None, timeout: float = 60.0) -> Ran:
        """Wait for the end of a cell that was sent."""
        ran, began, left = Ran(), time.monotonic(), list(answers)
        idle = False
        while not (idle and id in self._replied):
            assert time.monotonic() - began < timeout, f"the cell runs for over {timeout} s: {ran}"
            self._receive(ran)
            waiting = self._outputs.setdefault(id, [])
            while waiting:
                idle = self._one_output(ran, waiting.pop(0)) or idle
            self._one_question(ran, left)
            if act is not None and act(ran):
                act = None
        ran.seconds = time.monotonic() - began
        return ran

    def widget(self, id: str, state: dict, buffer_paths=(), buffers=(), **header) -> None:
        """Send a widget's change of state as the page does."""
        data = {"method": "update", "state": state, "buffer_paths": [list(path) for path in buffer_paths]}
        self._to_widget(id, data, buffers, header)

    def press(self, id: str) -> None:
        """Press a button."""
        self._to_widget(id, {"method": "custom", "content": {"event": "click"}}, (), {})

    def _to_widget(self, id: str, data: dict, buffers, header: dict) -> None:
        session = self.client.session
        message = session.msg("comm_msg", {"comm_id": id, "data": data})
        message["header"].update(header)
        session.send(self.client.shell_channel.socket, message, buffers=list(buffers))

    def _receive(self, ran: Ran) -> None:
        try:
            message = self.client.get_iopub_msg(timeout=0.02)
            if message["msg_type"].startswith("comm_"):
                self._one_widget(ran, message["msg_type"], message["content"])
            self._outputs.setdefault(message["parent_header"].get("msg_id"), []).append(message)
        except queue.Empty:
            pass
        try:
            self._replied.add(self.client.get_shell_msg(timeout=0.005)["parent_header"].get("msg_id"))
        except queue.Empty:
            pass

    def _one_output(self, ran: Ran, message: dict) -> bool:
        """Take in one output of the cell; True when it says that the cell has ended."""
        kind, content = message["msg_type"], message["content"]
        if kind == "stream":
            ran.text += content["text"]
        elif kind in ("display_data", "execute_result", "update_display_data"):
            name = content.get("transient", {}).get("display_id")
            if kind == "update_display_data" and name in ran._displays:
                ran.shown[ran._displays[name]] = content["data"]
            else:
                ran._displays[name] = len(ran.shown)
                ran.shown.append(content["data"])
        elif kind == "error":
            ran.error, ran.error_text = content["ename"], content["evalue"]
        return kind == "status" and content["execution_state"] == "idle"

    def _one_widget(self, ran: Ran, kind: str, content: dict) -> None:
        id = content["comm_id"]
        if kind == "comm_open":
            ran.widgets[id] = dict(content["data"].get("state", {}))
        elif kind == "comm_msg" and id in ran.widgets:
            ran.widgets[id].update(content["data"].get("state", {}))
        elif kind == "comm_close":
            ran.closed.append(id)

    def _one_question(self, ran: Ran, left: list[str]) -> None:
        try:
            content = self.client.get_stdin_msg(timeout=0.005)["content"]
        except queue.Empty:
            return
        ran.asked.append((content["prompt"], content["password"]))
        assert left, f"asked {content['prompt']!r} and no answer is prepared"
        self.client.input(left.pop(0))


@contextmanager
def kernel(
    folder: Path, *, allow_stdin: bool, metadata: dict = PAGE, python: str = sys.executable, **env: str
) -> Iterator[Kernel]:
    """Start a kernel in `folder`; its client looks like JupyterLab, or as `metadata` says."""
    manager = KernelManager()
    manager.kernel_spec.argv[0] = python
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("COLAB", "GOOGLE", "JPY_"))
    }
    environment.update(PYTHONPATH=str(ROOT), PYTHON_KEYRING_BACKEND="keyring.backends.null.Keyring", HOME=str(folder))
    manager.start_kernel(cwd=str(folder), env=environment | env)
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        yield Kernel(client, manager, allow_stdin=allow_stdin, metadata=metadata)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
