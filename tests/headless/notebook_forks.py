"""A process that has imported papermill and a pipeline whole, and forks one papermill an order; that forks its kernel.

Both then start in a fraction of a second, and are processes of their own, as they always are: they can be killed apart
or together, at an instant or at a cell's boundary. Orders come as JSON lines, an answer goes back for each.

An order holds: `arguments` of papermill's command, `log`, `steps` (a file that each optimizer step is written into),
and perhaps `victims` ("kernel", "papermill" or both) with `cell` and `moment` ("before" it begins or "after" it ended),
with `kill_after_seconds`, or with `kill_at_step`; or `stop_at_step`: then papermill gets SIGTERM when this optimizer
step is done.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import select
import signal
import sys
import time
from typing import Any

from tests.contracts.forks import end, import_whole

HUNG_SECONDS = 300.0
_NOT_BEFORE_FORK = ("gcsfs", "boto3", "pyarrow.fs", "azure", "github", "tqdm.auto")  # papermill does without


def serve(pipeline: str) -> int:
    """Answer orders until standard input ends."""
    import_whole(pipeline)
    missing = [name for name in _NOT_BEFORE_FORK if name not in sys.modules]
    sys.modules.update(dict.fromkeys(missing))
    for name in (
        "papermill.cli",
        "papermill.engines",
        "nbclient",
        "ipykernel.kernelapp",
        "ipykernel.ipkernel",
        "psutil",
        "colabkit.headless.client",
        "colabkit.headless.record",
        "IPython.core.display",
        "matplotlib_inline.backend_inline",
    ):
        importlib.import_module(name)
    for name in missing:
        del sys.modules[name]
    if len(os.listdir("/proc/self/task")) > 1:
        raise SystemExit("an import has started a thread, which a forked child would lack")
    gc.freeze()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    answers.write(json.dumps({"ready": os.getpid()}) + "\n")
    while line := sys.stdin.readline():
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            answers.close()
            end(carry_out(order))
        answers.write(json.dumps(wait(child, order)) + "\n")
    return 0


def wait(child: int, order: dict) -> dict:
    """Wait for papermill to end, killing whom the order names at its instant."""
    began, pending = time.monotonic(), order.get("kill_after_seconds")
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        seconds = time.monotonic() - began
        if ended:
            return {"code": os.waitstatus_to_exitcode(status), "seconds": seconds}
        if pending is not None and seconds >= pending:
            kernel = kernel_of(order)
            if "kernel" in order["victims"] and kernel:
                _kill(kernel)
            if "papermill" in order["victims"] or not kernel:  # no kernel yet
                os.kill(child, signal.SIGKILL)
            pending = None
        if seconds > HUNG_SECONDS:
            os.kill(child, signal.SIGABRT)
        if select.select([0], [], [], 0.002)[0]:  # an order never comes while a child runs: this is the end of input
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os._exit(1)


def kernel_of(order: dict) -> int:
    """Return the number of the kernel's process, 0 when it has not started."""
    try:
        with open(order["log"] + ".kernel") as opened:
            return int(opened.read() or 0)
    except FileNotFoundError:
        return 0


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it has ended by itself


def carry_out(order: dict) -> int:
    """Run papermill's command in this (forked) process."""
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for old, new in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(old, new)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w", buffering=1), open(2, "w", buffering=1)
    from jupyter_client.provisioning import local_provisioner

    local_provisioner.launch_kernel = lambda cmd, **how: ForkedKernel(cmd, order, **how)
    if "cell" in order:
        _kill_at_boundary(order)
    from papermill.cli import papermill

    try:
        papermill(order["arguments"])
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else bool(ended.code)
    return 0


def _kill_at_boundary(order: dict) -> None:
    """Kill just before the wanted code cell is noted as begun, or just after it is noted as ended."""
    from colabkit.headless.record import Record

    plain_begins, plain_ends = Record.cell_begins, Record.cell_ends

    def strike(record: Any, cell: Any) -> None:
        cells = [c for c in record.notebook.cells if c.cell_type == "code"]
        if len(cells) > order["cell"] and cell is cells[order["cell"]]:
            if "kernel" in order["victims"]:
                os.kill(kernel_of(order), signal.SIGKILL)
            if "papermill" in order["victims"]:
                os.kill(os.getpid(), signal.SIGKILL)

    def begins(self, cell):
        if order["moment"] == "before":
            strike(self, cell)
        plain_begins(self, cell)

    def ends(self, cell, *arguments, **options):
        plain_ends(self, cell, *arguments, **options)
        if order["moment"] == "after":
            strike(self, cell)

    Record.cell_begins, Record.cell_ends = begins, ends


class ForkedKernel:
    """A kernel in a forked process, with what jupyter_client wants of a subprocess."""

    stdin = stdout = stderr = None

    def __init__(self, cmd: list[str], order: dict, *, env: dict[str, str], cwd: str | None = None, **_: Any):
        self.returncode: int | None = None
        ready, tell = os.pipe()
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(ready)
            os.setsid()
            os.close(tell)
            _run_kernel(cmd[cmd.index("-f") :], order, env, cwd, parent)
        os.close(tell)
        os.read(ready, 1)  # it leads its process group now
        os.close(ready)
        with open(order["log"] + ".kernel", "w") as opened:
            opened.write(str(self.pid))

    def poll(self) -> int | None:
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if ended else None
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        while self.poll() is None:
            time.sleep(0.01)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def _run_kernel(arguments: list[str], order: dict, env: dict[str, str], cwd: str | None, parent: int) -> None:
    """Be a kernel; never returns. What the forked papermill had begun is put back to a fresh process's state."""
    try:
        for number, handler in ((signal.SIGTERM, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
            signal.signal(number, handler)
        asyncio.events._set_running_loop(None)
        asyncio.set_event_loop(asyncio.new_event_loop())
        os.environ.update(env)
        os.chdir(cwd or ".")
        _write_down_steps(order)
        from ipykernel.kernelapp import IPKernelApp

        IPKernelApp.launch_instance(argv=[*arguments, f"--IPKernelApp.parent_handle={parent}"])
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(70)


def _write_down_steps(order: dict) -> None:
    """Write the number of each optimizer step that is done into the order's file; ask for a stop at the wanted one."""
    from colabkit.pipelines.diarization.train import loop

    target = os.open(order["steps"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    plain = loop.average_weights

    def average_weights(*arguments):
        plain(*arguments)
        os.write(target, b"%d\n" % arguments[3])
        if arguments[3] == order.get("kill_at_step"):
            if "papermill" in order["victims"]:
                os.kill(os.getppid(), signal.SIGKILL)
            if "kernel" in order["victims"]:
                os.kill(os.getpid(), signal.SIGKILL)
        if arguments[3] == order.get("stop_at_step"):
            os.kill(os.getppid(), signal.SIGTERM)
            time.sleep(0.3)  # it reaches us by papermill

    loop.average_weights = average_weights


if __name__ == "__main__":
    sys.exit(serve(sys.argv[1]))
