"""Receive what widgets send while a cell still runs; a kernel hands it on only when the cell has ended.

Kernels differ: ipykernel 6 and 7.4 queue the messages of widgets behind the running cell, 7.0 to 7.3 may handle them in
a thread of their own (a subshell). Both are covered: messages that wait for the running thread are taken from its queue
here, and the caller sees the widget change, whoever changed it.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from colabkit.core.errors import StateError
from colabkit.core.versions.differences import hears_while_it_awaits, sender_of_request

_FOR_WIDGETS = {"comm_open", "comm_msg", "comm_close"}


class WidgetMessages:
    """While entered, `receive` hands widgets what was sent to them; all other requests are kept in order for later."""

    def __init__(self, kernel: Any):
        self._kernel = kernel
        self._stream = _stream_of_this_thread(kernel)
        if self._stream is None and not hears_while_it_awaits(kernel):
            raise StateError(
                "This kernel does not hear widgets while a thread of yours waits for them",
                expected="a call from the cell itself, or ipykernel 7",
                where="files.upload",
                fix="call files.upload() in a cell, outside of threads; or set COLABKIT_UPLOADS to the files' paths",
            )
        self._kept: list = []

    def __enter__(self) -> WidgetMessages:
        if self._stream is not None:
            self._callback, self._copy = self._stream._recv_callback, getattr(self._stream, "_recv_copy", False)
            self._stream.on_recv(self._take, copy=False)
        return self

    def __exit__(self, *_) -> None:
        if self._stream is None:
            return
        self._stream.on_recv(self._callback, copy=self._copy)
        # Cells that were sent meanwhile: queued now, before anything that is still in the socket.
        for frames in self._kept:
            result = self._callback(frames)
            if inspect.isawaitable(result):
                asyncio.ensure_future(result)

    def receive(self, seconds: float) -> None:
        """Hand on what has come, waiting at most `seconds` for something to come."""
        if self._stream is None:  # not the kernel's own thread: that one is free to do it
            time.sleep(seconds)
        elif self._stream.socket.poll(int(seconds * 1000)):
            import zmq

            self._stream.flush(zmq.POLLIN)

    def _take(self, frames: list) -> None:
        session = self._kernel.session
        identities, rest = session.feed_identities(frames, copy=False)
        # Only the header is read here: a whole message may be read once, by whoever handles it.
        kind = session.unpack(rest[1].bytes)["msg_type"] if len(rest) > 1 else ""
        if kind not in _FOR_WIDGETS:
            self._kept.append(frames)
            return
        message = session.deserialize(rest, content=True, copy=False)
        with self._answering(identities, message):
            self._kernel.shell_handlers[kind](self._stream, identities, message)

    @contextmanager
    def _answering(self, identities: list, message: dict) -> Iterator[None]:
        """Make what is sent meanwhile an answer to `message`: the front end tells its own changes by that."""
        kernel = self._kernel
        parent, identity = kernel.get_parent("shell"), sender_of_request(kernel)
        kernel.set_parent(identities, message, channel="shell")
        self._say("busy", message)
        try:
            yield
        finally:
            self._say("idle", message)  # widgets hold back their next change until this comes
            kernel.set_parent(identity, parent, channel="shell")
            self._say("busy", parent)  # the cell goes on

    def _say(self, state: str, parent: dict) -> None:
        self._kernel.session.send(self._kernel.iopub_socket, "status", {"execution_state": state}, parent=parent)


def _stream_of_this_thread(kernel: Any) -> Any:
    """Find the queue of requests to the thread that runs this cell; None when this is no thread of the kernel."""
    shell_channel = getattr(kernel, "shell_channel_thread", None)
    if shell_channel is None:
        return getattr(kernel, "shell_stream", None) if threading.current_thread() is threading.main_thread() else None
    try:
        subshell = shell_channel.manager.subshell_id_from_thread_id(threading.get_ident())
        return shell_channel.manager.get_shell_channel_to_subshell_pair(subshell).to_stream
    except RuntimeError:  # a thread that the user started
        return None
