"""A process that has imported a pipeline whole and forks one child a command: a run then starts in milliseconds.

Orders come as JSON lines on standard input, answers go as JSON lines to standard output: one when a child has begun,
one when it has ended.
An order may name an event (a file made, moved or removed inside the watched folder) at which the child sends itself
a signal, just before or just after it; an instant after which it is killed from here; or a file to list its events in.
Nothing is computed before the fork: a thread pool of the parent would not exist in the child.
"""

from __future__ import annotations

import ast
import gc
import importlib
import json
import os
import pkgutil
import re
import select
import signal
import sys
import threading
import time

_PROCESS_NUMBER = re.compile(r"-\d+-[0-9a-f]{8}(?=\.tmp$)|\.\d+(?=\.partial$)")
_CHOSEN_BY_CHANCE = re.compile(r"(?<=generation-\d{9})-[0-9a-f]{6}")
_PATH_ARGUMENT = {"os.mkdir": 0, "os.rename": 1, "os.remove": 0, "os.rmdir": 0, "shutil.rmtree": 0}
# These start threads of their own, which a forked child lacks and waits for when it ends; or they are not there.
_NOT_BEFORE_FORK = {"google", "wandb", "IPython", "tensorboard", "onnxruntime", "obstore", "gcsfs", "fsspec", "pyarrow"}
# on first use
_ALSO = {"torch": ("torch._dynamo",), "matplotlib": ("matplotlib.figure", "matplotlib.backends.backend_agg")}
HUNG_SECONDS = 300.0


def serve(pipeline: str) -> int:
    """Answer orders until standard input ends."""
    import_whole(pipeline)
    if os.path.isdir("/proc/self/task") and len(os.listdir("/proc/self/task")) > 1:
        raise SystemExit("an import has started a thread: name its package in _NOT_BEFORE_FORK")
    gc.freeze()  # what is imported stays: children need not copy it to look through it
    answers = os.fdopen(os.dup(1), "w", buffering=1)  # a child's own output goes to its log
    answers.write(json.dumps({"ready": os.getpid()}) + "\n")
    while line := sys.stdin.readline():
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            answers.close()
            end(carry_out(order))
        answers.write(json.dumps({"pid": child}) + "\n")
        code, seconds = wait(child, order.get("kill_after_seconds"))
        answers.write(json.dumps({"code": code, "seconds": seconds}) + "\n")
    return 0


def import_whole(pipeline: str) -> None:
    """Import every module of the pipeline and of what lies below it, and whatever their functions import."""
    for package in (
        "colabkit.core",
        "colabkit.runs",
        "colabkit.training",
        "colabkit.io",
        f"colabkit.pipelines.{pipeline}",
    ):
        parent = importlib.import_module(package)
        for module in pkgutil.walk_packages(parent.__path__, package + "."):
            loaded = importlib.import_module(module.name)
            with open(loaded.__file__, encoding="utf-8") as source:
                tree = ast.parse(source.read())
            for name in {n for node in ast.walk(tree) for n in imported_names(node)}:
                if name.partition(".")[0] not in _NOT_BEFORE_FORK:
                    try:
                        importlib.import_module(name)
                    except ImportError:
                        pass  # a choice for another machine; the run itself says so if it is needed
    for name in (
        "colabkit.cli",
        "colabkit.launch",
        *(n for p, names in _ALSO.items() if p in sys.modules for n in names),
    ):
        importlib.import_module(name)


def imported_names(node: ast.AST) -> list[str]:
    """Return the absolute module names that an import statement names."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []


def wait(child: int, kill_after_seconds: float | None) -> tuple[int, float]:
    """Wait for the child, killing it at its instant, or when whoever gives the orders has gone."""
    began = time.monotonic()
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        seconds = time.monotonic() - began
        if ended:
            return os.waitstatus_to_exitcode(status), seconds
        # Not reaped yet, so the number is still this child's.
        if kill_after_seconds is not None and seconds >= kill_after_seconds:
            os.kill(child, signal.SIGKILL)
            kill_after_seconds = None
        if seconds > HUNG_SECONDS:
            os.kill(child, signal.SIGABRT)
        if select.select([0], [], [], 0.001)[0]:  # an order never comes while a child runs: this is the end of input
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os._exit(1)


def carry_out(order: dict) -> int:
    """Run one command of colabkit in this (forked) process, with its output in a log file."""
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for old, new in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(old, new)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w", buffering=1), open(2, "w", buffering=1)
    watch(order)
    from colabkit.cli import main

    return main(order["arguments"])


def end(code: int) -> None:
    """End a child as the interpreter would, without tidying up the memory that it shares with its parent."""
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def watch(order: dict) -> None:
    """Install the hook that lists events or sends the signal. Audit hooks run before what they announce."""
    folder = os.path.realpath(order["watched"]) + os.sep
    listing = os.open(order["listing"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666) if "listing" in order else None
    wanted, moment = tuple(order.get("event") or ()), order.get("moment", "before")
    number = getattr(signal, order.get("signal", "SIGKILL"))
    state = {"armed": None, "sent": False}

    def send() -> None:
        state["sent"], state["armed"] = True, None
        os.kill(os.getpid(), number)

    def hook(event: str, arguments: tuple) -> None:
        if state["armed"] == threading.get_ident() and not state["sent"]:
            send()  # the next announced thing in the same thread: the event itself has happened
        key = event_key(event, arguments, folder)
        if key is None:
            return
        if listing is not None:
            os.write(listing, (json.dumps(key) + "\n").encode())
        if key == wanted and not state["sent"]:
            if moment == "before":
                send()
            else:
                state["armed"] = threading.get_ident()

    sys.addaudithook(hook)


def event_key(event: str, arguments: tuple, folder: str) -> tuple[str, str] | None:
    """Return (kind, path relative to the folder) of what makes, moves or removes something there."""
    if event == "open":
        path, _, flags = arguments
        if not isinstance(flags, int) or not flags & (os.O_CREAT | os.O_TRUNC):
            return None
    elif event in _PATH_ARGUMENT:
        path = arguments[_PATH_ARGUMENT[event]]
    else:
        return None
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path).startswith(folder):
        return None
    relative = os.fspath(path)[len(folder) :]
    return event.rpartition(".")[2], _CHOSEN_BY_CHANCE.sub("", _PROCESS_NUMBER.sub("", relative))


if __name__ == "__main__":
    sys.exit(serve(sys.argv[1]))
