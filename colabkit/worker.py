"""One of several processes that work at a step together: python -m colabkit.worker HANDOFF.json

Started plainly it is the launcher: it starts the others through torchrun and writes down how they failed. Started by
torchrun it is one of these. Nobody calls it by hand: `colabkit run` and notebooks start it, and `colabkit run
--print-launch` tells how to start `colabkit run` itself in several processes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from colabkit.core import files
from colabkit.core.errors import EXIT_DONE, EXIT_FAILED, ColabkitError
from colabkit.core.teller import signals_to
from colabkit.training.processes import ranks
from colabkit.training.processes.handoff import MARK, STOP, Handoff, told
from colabkit.training.processes.rank_run import RankRun
from colabkit.training.processes.team import LOG_FOLDER, LOG_HEAD, MODULE

_LOOK_SECONDS = 0.25
_LAUNCHER = "COLABKIT_LAUNCHER_PID"


def main() -> int:
    """Be the launcher, or one of those it launched; returns the exit code."""
    handoff = Handoff.read(sys.argv[1])
    if not ranks.launched():
        return _launch(handoff, sys.argv[1])
    return _work(handoff)


def follow(team: ranks.Ranks) -> int:
    """Take part in the steps of a run whose first process calls `colabkit run`, until it needs no one.

    Returns the exit code.
    """
    _end_with(os.getppid())
    while True:
        try:
            with ranks.ended_by_signals():
                handoff = team.from_first(lambda: None)
        except RuntimeError:
            return EXIT_FAILED  # the first process is gone, and has said why
        if handoff is None:
            ranks.part()
            return EXIT_DONE
        _say_into(handoff, team.rank)
        try:
            with _signals() as asked:
                RankRun(handoff, tell=None, asked=lambda said=asked: said[0] if said else "").work()
        except ColabkitError as error:
            print(error, flush=True)
            return error.exit_code


@contextmanager
def _signals() -> Iterator[list[str]]:
    """Gather the names of the signals that ask to stop; outside of a step they end this process."""
    asked: list[str] = []
    with signals_to(lambda number, frame: asked.append(signal.Signals(number).name), signal.SIGTERM, signal.SIGINT):
        yield asked


def _launch(handoff: Handoff, path: str) -> int:
    """Start the processes and wait for them; what became of those that failed goes into failures.json."""
    _end_with(handoff.launcher_pid)
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    os.environ[_LAUNCHER] = str(os.getpid())
    try:
        run(
            parse_args(
                [
                    "--standalone",
                    "--local-addr",
                    "127.0.0.1",
                    "--nproc-per-node",
                    str(handoff.num_processes),
                    "--module",
                    MODULE,
                    path,
                ]
            )
        )
    except ChildFailedError as error:
        codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        files.write_atomic(Path(handoff.exchange, "failures.json"), json.dumps(codes))
        return EXIT_FAILED
    except SignalException:  # the holder of the run wants an end
        return EXIT_FAILED
    return EXIT_DONE


def _work(handoff: Handoff) -> int:
    """Do one process's part of a step, and write down how it ended."""
    rank, record = int(os.environ["RANK"]), {"pid": os.getpid()}
    place = Path(handoff.exchange, f"rank-{rank}.json")
    files.write_atomic(place, json.dumps(record))
    _end_with(int(os.environ[_LAUNCHER]))
    out = _say_into(handoff, rank)
    stop = Path(handoff.exchange, STOP)
    try:
        run = RankRun(
            handoff, tell=_teller(out) if rank == 0 else None, asked=lambda: stop.read_text() if stop.exists() else ""
        )
        metrics = run.work()
        if rank == 0:
            record["metrics"] = files.plain(metrics)
        ranks.part()
        code = EXIT_DONE
    except BaseException as error:
        record["error"] = told(error) | {"lost_another": ranks.lost_another(error)}
        code = error.exit_code if isinstance(error, ColabkitError) else EXIT_FAILED
        print(error if isinstance(error, ColabkitError) else traceback.format_exc(), file=sys.stderr, flush=True)
    files.write_atomic(place, json.dumps(record | {"seconds": time.time()}))
    return code


def _say_into(handoff: Handoff, rank: int) -> Any:
    """Send what this process says to its log: all of it, but what the first process prints.

    Returns the stream for events.
    """
    log = Path(handoff.path, LOG_FOLDER, f"rank-{rank}.log")
    log.parent.mkdir(exist_ok=True)
    opened = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    os.write(opened, f"{LOG_HEAD}{now}: {handoff.step}, process {rank}, pid {os.getpid()}\n".encode())
    for number in (2,) if rank == 0 else (1, 2):
        os.dup2(opened, number)
    os.close(opened)
    return sys.stdout


def _teller(out: Any):
    guard = threading.Lock()  # problems are told by the threads that read

    def tell(event: dict[str, Any]) -> None:
        line = f"{MARK}{json.dumps(event, default=str)}\n"
        with guard:
            out.write(line)
            out.flush()

    return tell


def _end_with(pid: int) -> None:
    """End this process at once when its parent `pid` is gone, however that ended: nobody trains on for nobody."""

    def look() -> None:
        while os.getppid() == pid:
            time.sleep(_LOOK_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=look, daemon=True, name="parent's life").start()


if __name__ == "__main__":
    code = main()
    for thread in threading.enumerate():
        if not thread.daemon and thread is not threading.main_thread():
            thread.join()  # a checkpoint on its way to the disk
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # what libraries do at their end may wait for processes that are gone
