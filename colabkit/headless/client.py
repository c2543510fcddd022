"""One kernel that runs the cells of a notebook in order, watched, saved as it goes, and stopped in good order."""

from __future__ import annotations

import asyncio
import os
import queue
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from jupyter_core.utils import run_sync
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

from colabkit.core.errors import ColabkitError, StateError, Stopped
from colabkit.core.runtime import detect
from colabkit.core.teller import signals_to
from colabkit.core.versions.differences import encrypt_transport
from colabkit.headless.deaths import explain_death, oom_kills
from colabkit.headless.failures import CellFailed, CellTooLong, KernelDied, KernelHung
from colabkit.headless.guardian import guardian
from colabkit.headless.lines import Lines
from colabkit.headless.outputs import settle_stream
from colabkit.headless.record import Record
from colabkit.headless.redaction import redact
from colabkit.headless.watchdog import Limits, Watchdog

# A step takes over SIGTERM while it works, and saves. At other times the signal would kill the kernel without a word:
# then it interrupts instead. A worker that was forked meanwhile ends by it, as it always did.
_KERNEL_STARTS = """exec('''
import os, signal
def interrupt(number, frame, kernel=os.getpid()):
    if os.getpid() == kernel:
        os.killpg(kernel, signal.SIGINT) if os.getpgrp() == kernel else os.kill(kernel, signal.SIGINT)
    else:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
    signal.signal(signal.SIGTERM, interrupt)
''', {})"""
_AUTOSAVE_LOOK_SECONDS = 1.0


class Client(NotebookClient):
    """Runs one notebook; what happened is in `record`, what is printed goes through `lines`."""

    coalesce_streams = False  # done as messages come: a long cell would fill the memory until it ends

    def __init__(
        self,
        record: Record,
        lines: Lines,
        limits: Limits,
        *,
        say: Callable[[str], None],
        take_output: Callable[[Any], None] = lambda output: None,
        **how: Any,
    ):
        super().__init__(record.notebook, raise_on_iopub_timeout=False, iopub_timeout=60, **how)
        self.record, self.lines, self.limits, self.say, self.take_output = record, lines, limits, say, take_output
        self.watchdog: Watchdog | None = None
        self.asked_by = ""  # the signal that asked us to stop
        self._oom_kills = oom_kills()

    def carry_out(self, **kernel: Any) -> None:
        """Carry out all cells. Raises: CellFailed at the first that fails, StateError, Stopped."""
        self.reset_execution_trackers()
        with self._stopping_in_good_order(), self._kernel(**kernel):
            for index, cell in enumerate(self.nb.cells):
                if self.asked_by:
                    raise self._stopped()
                self.record.cell_begins(cell)
                if cell.cell_type == "code" and cell.source.strip():
                    self._carry_out_cell(cell, index)
                else:
                    self.record.cell_ends(cell)
            self.set_widgets_metadata()

    def _carry_out_cell(self, cell: Any, index: int) -> None:
        self.lines.cell_begins(index)
        self.watchdog.cell_begins()
        try:
            self.execute_cell(cell, index)
            error = None
        except CellExecutionError as failed:
            error = CellFailed(self.lines.title(index), failed.ename, redact(failed.evalue, self.record.secrets))
        except DeadKernelError:
            self._take_last_messages(cell, index)
            error = self._death(index)
        except KeyboardInterrupt:  # in a thread or program of somebody else's, whose signals are not ours
            self.record.cell_ends(cell, "interrupted", kind="KeyboardInterrupt")
            raise
        self.watchdog.cell_ends()
        self.lines.cell_ends()
        error = self._verdict(error, index)
        self.record.cell_ends(cell, str(error) if error else "", kind=getattr(error, "name", type(error).__name__))
        if error:
            raise error

    def _verdict(self, error: ColabkitError | None, index: int) -> ColabkitError | None:
        """Return what to tell of a cell that ended, which may be our own doing."""
        verdict, title = self.watchdog.verdict, self.lines.title(index)
        if error is None and verdict != "stopped":
            self.watchdog.verdict = ""  # the cell came to its end all the same
        if error is None or not verdict:
            return error
        if verdict == "stopped":
            return self._stopped()
        if verdict == "hung":
            return KernelHung(
                f"The kernel hung in {title}: no message and no CPU time for "
                f"{self.watchdog.quiet_seconds / 60:.3g} minutes",
                where=self._where(),
                fix="run the same command again: it continues; if the cell only waits, give it more time: "
                "--hung-after MINUTES (with papermill: COLABKIT_HUNG_AFTER; 0: for ever)",
            )
        return CellTooLong(
            f"{title} ran longer than it may",
            expected=f"at most {self.limits.cell_seconds / 60:g} minutes",
            where=self._where(),
            fix="run the same command again: it continues; or raise --cell-timeout",
        )

    def _stopped(self) -> Stopped:
        return Stopped(
            f"Stopped by {self.asked_by or 'request'}; what is done is kept",
            where=self._where(),
            fix="run the same command again: it continues here",
        )

    def _death(self, index: int) -> KernelDied:
        process = getattr(self.km.provisioner, "process", None) if self.km else None
        with suppress(ProcessLookupError):
            os.killpg(self.watchdog.pid, signal.SIGKILL)  # workers that it started
        how, fix = explain_death(
            process.poll() if process else None,
            new_oom_kills=oom_kills() - self._oom_kills,
            used_bytes=self.watchdog.used_bytes,
            memory_gib=detect().memory_gib,
        )
        return KernelDied(f"The kernel died in {self.lines.title(index)}: {how}", where=self._where(), fix=fix)

    def _where(self) -> str:
        return self.record.place.address if self.record.place else ""

    @contextmanager
    def _kernel(self, **how: Any) -> Iterator[None]:
        """Start the kernel and have it watched and guarded; it is gone afterwards."""
        self.create_kernel_manager()
        encrypt_transport(self.km)  # what is sent stays between the two
        self.start_new_kernel(**how)
        with guardian(self.km.provisioner.pid):
            try:
                self._greet_kernel()
                self.watchdog = Watchdog(self.km.provisioner.pid, self.limits, self.say)
                self.watchdog.start()
                yield
            finally:
                if self.watchdog:
                    self.watchdog.close()
                if self.km:  # else it is gone already, because it did not start
                    self._cleanup_kernel()

    def _greet_kernel(self) -> None:
        try:
            self.start_new_kernel_client()
            self.wait_for_reply(self.kc.execute(_KERNEL_STARTS, silent=True, store_history=False))
            self.nb.metadata["language_info"] = self.wait_for_reply(self.kc.kernel_info())["content"]["language_info"]
        except RuntimeError as error:  # it died, or says nothing
            raise StateError(
                "The kernel did not start",
                got=str(error),
                where=self.kernel_name,
                fix="run the same command again; if it stays so, look at: python -m ipykernel --version",
            ) from error

    @contextmanager
    def _stopping_in_good_order(self) -> Iterator[None]:
        """Hand SIGTERM and Ctrl-C on to the kernel, so that the step at work saves what it has."""

        def on_signal(number: int, frame: Any) -> None:
            again, self.asked_by = bool(self.asked_by), signal.Signals(number).name
            if self.watchdog is None and again:
                raise KeyboardInterrupt
            self.say(
                f"{self.asked_by}: "
                + (
                    "the kernel is killed"
                    if again
                    else "the step at work saves what it has, then the notebook stops (once more: at once)"
                )
            )
            if self.watchdog is not None:
                self.watchdog.stop()

        with signals_to(on_signal, signal.SIGTERM, signal.SIGINT):
            yield

    async def async_execute_cell(self, *arguments: Any, **options: Any) -> Any:
        saving = asyncio.ensure_future(self._autosave())
        try:
            return await super().async_execute_cell(*arguments, **options)
        finally:
            saving.cancel()

    execute_cell = run_sync(async_execute_cell)

    async def _autosave(self) -> None:
        while True:
            await asyncio.sleep(_AUTOSAVE_LOOK_SECONDS)
            self.record.autosave()

    def process_message(self, msg: dict[str, Any], cell: Any, cell_index: int) -> Any:
        self.watchdog.heard()
        self.record.changed = True
        self.lines.message(msg["msg_type"], msg["content"])
        return super().process_message(msg, cell, cell_index)

    def output(self, outs: list[Any], msg: dict[str, Any], display_id: str | None, cell_index: int) -> Any:
        output = super().output(outs, msg, display_id, cell_index)
        if output is not None:
            self.take_output(output)
            if output.output_type == "stream":
                settle_stream(outs)
        return output

    def _take_last_messages(self, cell: Any, index: int) -> None:
        """Read what a dead kernel had still sent: its last lines often tell why."""

        async def read() -> None:
            while True:
                message = await self.kc.iopub_channel.get_msg(timeout=0.2)
                if message["msg_type"] in ("stream", "display_data", "update_display_data", "error"):
                    self.process_message(message, cell, index)

        with suppress(queue.Empty, RuntimeError):  # that was all
            run_sync(read)()
