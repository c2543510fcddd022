"""One step in several processes: started through torchrun, watched, shown as one, and ended together.

Started from a notebook or a command the processes belong to it: they stop in good order when it is asked to, end with
it when it is killed, and a process that dies ends the step with one error. The holder of the run never touches a GPU
for it. Where torchrun or accelerate started this very process, its fellows take part in the steps that want several
processes, and wait in the others.
"""

from __future__ import annotations

import json
import math
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from colabkit.core import files
from colabkit.core.accelerators import count_gpus
from colabkit.core.errors import StateError, Stopped, UsageError
from colabkit.core.progress import Progress
from colabkit.runs.run import Run
from colabkit.runs.steps import Sections, Step
from colabkit.training.processes import ranks
from colabkit.training.processes.handoff import MARK, STOP, Handoff, error_of

MODULE = "colabkit.worker"
LOG_FOLDER = "logs"
LOG_HEAD = "--- begun "  # starts what each new process adds to its log
LAST_LINES = 20  # of a log, shown when its process failed
_LOOK_SECONDS = 0.2
_END_SECONDS = 10.0  # how long processes that were told to end may take
_CAUSES = {
    "SIGKILL": "the system ends processes this way when memory runs out",
    "SIGBUS": "a disk or /dev/shm may be full",
    "SIGSEGV": "a native library crashed",
    "SIGABRT": "a native library gave up",
    "SIGILL": "a library was built for another processor",
    "SIGFPE": "a native library crashed",
}


def carry_out(step: Step, sections: Sections, run: Run, identity: dict[str, Any]) -> dict | None:
    """Do the work of a step, here or in as many processes as its setting says; returns its metrics.

    Raises: what the step raises; Stopped; StateError when a process dies.
    """
    if not step.processes:
        return step.function(sections, run)
    if ranks.launched():
        return _with_fellows(step, sections, run, identity)
    num_processes = _num_processes(step, run)
    if num_processes == 1:
        return step.function(sections, run)
    return Team(step, run, identity, num_processes).work()


def asked_for(step: Step, config: Any) -> int:
    """Return the value of the setting that says how many processes a step wants; 0 means one a GPU."""
    section, _, name = step.processes.partition(".")
    return getattr(getattr(config, section), name)


def _num_processes(step: Step, run: Run) -> int:
    wanted = asked_for(step, run.config)
    if wanted == 1:
        return 1
    num_gpus = count_gpus(os.environ)
    if wanted == 0:
        return run.choose(step.processes, num_gpus, f"there are {num_gpus} GPUs") if num_gpus > 1 else 1
    if 0 < num_gpus < wanted:
        raise UsageError(
            "There are fewer GPUs than processes",
            got=f"{step.processes}={wanted}",
            expected=f"at most {num_gpus}",
            fix=f"--set {step.processes}=0, which takes one a GPU",
        )
    return wanted


def _with_fellows(step: Step, sections: Sections, run: Run, identity: dict[str, Any]) -> dict | None:
    """Do the first process's part of a step; the others, started by the same torchrun, do theirs."""
    team = ranks.join()
    handoff = Handoff.of(step, run, identity)
    team.from_first(lambda: handoff)
    run.say(f"  {team.world} processes work at it; what the others say is in {run.path / LOG_FOLDER}")
    try:
        with _interrupts_ask(run, "the processes save their work"):
            return step.function(sections, run)
    except RuntimeError as error:
        if not ranks.lost_another(error):
            raise
        raise StateError(
            f"Lost another process of {step.id}",
            got=str(error).splitlines()[0],
            where=run.path / LOG_FOLDER,
            fix="see the logs for why it ended; run the same again: it continues at the last checkpoint",
        ) from error


def dismiss_fellows() -> None:
    """Let the processes that torchrun started beside this one end, when all steps are done."""
    ranks.join().from_first(lambda: None)
    ranks.part()


class Team:
    """The processes of one step on this machine, from start to end; `work` may be called once."""

    def __init__(self, step: Step, run: Run, identity: dict[str, Any], num_processes: int):
        self.step, self.run, self.num_processes = step, run, num_processes
        self.logs = run.path / LOG_FOLDER
        self.exchange = run.scratch / "processes"
        shutil.rmtree(self.exchange, ignore_errors=True)  # of an earlier team, that is gone
        self.exchange.mkdir(parents=True)
        self.logs.mkdir(exist_ok=True)
        handoff = Handoff.of(
            step, run, identity, exchange=str(self.exchange), num_processes=num_processes, launcher_pid=os.getpid()
        )
        (self.exchange / "handoff.json").write_text(handoff.text(), encoding="utf-8")
        self._progress: Progress | None = None
        self._shown = ExitStack()
        self._asked = False
        self._reader: threading.Thread | None = None

    def work(self) -> dict | None:
        """Start the processes, show what the first tells, and wait for all. Returns the metrics."""
        self.run.say(f"  {self.num_processes} processes work at it; what the others say is in {self.logs}")
        with open(self.exchange / "launcher.log", "wb") as log:
            # A session of its own: a notebook's interrupt goes to the whole group of its kernel, and is for us alone.
            command = [sys.executable, "-m", MODULE, str(self.exchange / "handoff.json")]
            launcher = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=_environment(),
                start_new_session=True,
            )
        try:
            with self._shown, _interrupts_ask(self.run, "the processes save their work"):
                self._relay(launcher)
            launcher.wait()
        finally:
            self._end(launcher)
        return self._outcome(launcher.returncode)

    def _relay(self, launcher: subprocess.Popen) -> None:
        """Show what comes, until the processes are gone; pass on that they are asked to stop."""
        lines: queue.SimpleQueue = queue.SimpleQueue()

        def read() -> None:
            for line in launcher.stdout:
                lines.put(line.decode(errors="replace").rstrip("\r\n"))
            lines.put(None)

        self._reader = threading.Thread(target=read, daemon=True, name="output of processes")
        self._reader.start()
        is_over = False
        while True:
            if self.run.stop_requested and not self._asked:
                self._asked = True
                files.write_atomic(self.exchange / STOP, self.run.stop_requested)
            try:
                line = lines.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                self.run.run_folder.ensure_held()
                if is_over:
                    return  # something that they started holds their output open
                is_over = launcher.poll() is not None
                continue
            if line is None:
                return
            text, mark, event = line.partition(MARK)  # before it may stand what somebody printed without an end of line
            if text or not mark:
                self.run.say(text)
            if mark:
                self._take(json.loads(event))

    def _take(self, event: dict[str, Any]) -> None:
        if "choice" in event:
            self.run.choose(*event["choice"])
        elif "problem" in event:
            self.run.problem(*event["problem"])
        elif "progress" in event:
            now = event["progress"]
            if self._progress is None or self._progress.title != now["title"]:
                self._shown.close()
                self._progress = self._shown.enter_context(self.run.progress(**now))
            self._progress.total = now["total"]
            self._progress.update(now["done"] - self._progress.done, **event["values"])

    def _end(self, launcher: subprocess.Popen) -> None:
        """End whatever is still there: nobody may write to the run when its holder goes on."""
        if launcher.poll() is None:
            launcher.terminate()  # torchrun then ends its processes
            try:
                launcher.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                launcher.kill()  # the processes notice, and end
                launcher.wait()
        if self._reader is None or not self._reader.is_alive():
            launcher.stdout.close()
        until = time.monotonic() + _END_SECONDS
        while alive := [told["pid"] for told in self._records().values() if _is_alive(told["pid"])]:
            if time.monotonic() > until:
                for pid in alive:
                    os.kill(pid, signal.SIGKILL)
                until = math.inf
            time.sleep(0.05)

    def _records(self) -> dict[int, dict[str, Any]]:
        """Return what each process wrote of itself: its pid, and at its end how it ended."""
        found = {int(path.stem.partition("-")[2]): files.read_json(path) for path in self.exchange.glob("rank-*.json")}
        return dict(sorted(found.items()))

    def _outcome(self, exit_code: int) -> dict | None:
        records = self._records()
        if "metrics" in records.get(0, {}):
            return records[0]["metrics"]
        ended = sorted((told["seconds"], rank, told["error"]) for rank, told in records.items() if "error" in told)
        errors = [(rank, described, error_of(described)) for _, rank, described in ended]
        if self.run.stop_requested and any(isinstance(error, Stopped) for _, _, error in errors):
            raise self.run.stopped()
        for rank, _, error in errors:  # what a step says beats what its end did to the others
            if error is not None:
                if rank:  # what the first said is shown already
                    self._show_log(rank)
                raise error
        failures = self.exchange / "failures.json"
        codes = (
            {int(rank): code for rank, code in json.loads(failures.read_text()).items()} if failures.exists() else {}
        )
        for rank, code in codes.items():
            if code < 0 and code != -signal.SIGTERM:
                raise self._killed(rank, -code)
        for rank, described, _ in sorted(errors, key=lambda e: e[1].get("lost_another", False)):
            self._show_log(rank)
            raise StateError(
                f"Process {rank} of {self.num_processes} failed in {self.step.id}: {described['text']}",
                where=self._log(rank),
                fix=f"see the log; {self._again()}",
            )
        raise self._not_started(exit_code)

    def _killed(self, rank: int, number: int) -> StateError:
        self._show_log(rank)
        name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        cause = f" ({_CAUSES[name]})" if name in _CAUSES else ""
        return StateError(
            f"Process {rank} of {self.num_processes} was killed by {name} in {self.step.id}{cause}",
            where=self._log(rank),
            fix=self._again(),
        )

    def _not_started(self, exit_code: int) -> StateError:
        last = _last_lines(self.exchange / "launcher.log")
        for line in last:
            self.run.say(f"    {line}")
        return StateError(
            f"The processes of {self.step.id} did not work: their launcher ended with code {exit_code}",
            got=last[-1] if last else None,
            where=self.exchange / "launcher.log",
            fix=self._again(),
        )

    def _again(self) -> str:
        return (
            "run the same again: it continues at the last checkpoint; where memory is short, with fewer processes: "
            f"--set {self.step.processes}={max(1, self.num_processes // 2)}"
        )

    def _log(self, rank: int) -> Path:
        return self.logs / f"rank-{rank}.log"

    def _show_log(self, rank: int) -> None:
        if last := _last_lines(self._log(rank)):
            self.run.say(f"  process {rank} said last:")
            for line in last:
                self.run.say(f"    {line}")


@contextmanager
def _interrupts_ask(run: Run, what: str) -> Iterator[None]:
    """Turn the first interrupt into a request to stop in good order; a second one is a KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_interrupt(number: int, frame: object) -> None:
        if run.stop_requested:
            raise KeyboardInterrupt
        run.stop_requested = signal.Signals(number).name
        run.say(f"  stopping: {what}; interrupt again to end them at once")

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler if before is None else before)


def _environment() -> dict[str, str]:
    """Return what the processes start with: they import what this process would, and draw without a notebook."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("TORCHELASTIC_", "PET_"))}
    if sys.platform == "linux":
        env.setdefault("GLOO_SOCKET_IFNAME", "lo")  # they talk on this machine alone, whatever its name resolves to
    return env | {
        "PYTHONPATH": os.pathsep.join(os.path.abspath(p) for p in sys.path),
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
        "PYTHONIOENCODING": "utf-8",
        "MPLBACKEND": "Agg",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
    }


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        # a zombie writes no more
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (ProcessLookupError, PermissionError):  # the second: the number went to somebody else's process
        return False
    except OSError:
        return not os.path.isdir("/proc/self")  # where there is no /proc, the signal's answer has to do


def _last_lines(log: Path) -> list[str]:
    try:
        text = log.read_bytes()[-8000:].decode(errors="replace")
    except OSError:
        return []  # it ended before it could say anything
    _, head, text = text.rpartition(LOG_HEAD)
    return [line[:500] for line in text.splitlines()[bool(head) :] if line.strip()][-LAST_LINES:]
