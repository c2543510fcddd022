"""Real processes that are connected, for tests of what they do together."""

from __future__ import annotations

import gc
import multiprocessing
import os
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist

from colabkit.training.processes.ranks import Ranks


def ranks_here(rank: int, world: int, store: str) -> Ranks:
    dist.init_process_group("gloo", store=dist.FileStore(store, world), rank=rank, world_size=world)
    return Ranks(rank, world, world, dist.new_group(backend="gloo"))


def _main(rank: int, world: int, store: str, connection) -> None:
    torch.set_num_threads(1)
    ranks = ranks_here(rank, world, store)
    gc.freeze()  # what is imported need not be looked through each time memory runs out
    connection.send("here")
    while (task := connection.recv()) is not None:
        function, arguments = task
        try:
            connection.send(function(ranks, *arguments))
        except Exception as error:
            connection.send(error)
    dist.destroy_process_group()


class Processes:
    """Processes with a connection between them (gloo) that carry out one function after the other, all the same."""

    def __init__(self, world: int = 2):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        context = multiprocessing.get_context("spawn")
        self._folder = tempfile.TemporaryDirectory()
        self._started = []
        for rank in range(world):
            ours, theirs = context.Pipe()
            arguments = rank, world, str(Path(self._folder.name) / "store"), theirs
            process = context.Process(target=_main, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self._started.append((process, ours))
        self._collect(60.0)

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_) -> None:
        for process, connection in self._started:
            process.terminate()
            process.join()
            connection.close()
        self._folder.cleanup()

    def call(self, function, *arguments, timeout_seconds: float = 60.0) -> list:
        """Return function(ranks, *arguments) of each process; an error is returned as one.

        Raises: TimeoutError when one of them has not answered in time: they hang.
        """
        for _, connection in self._started:
            connection.send((function, arguments))
        return self._collect(timeout_seconds)

    def _collect(self, timeout_seconds: float) -> list:
        deadline, answers = time.monotonic() + timeout_seconds, []
        for rank, (_, connection) in enumerate(self._started):
            if not connection.poll(max(0.0, deadline - time.monotonic())):
                raise TimeoutError(f"process {rank} hangs")
            answers.append(connection.recv())
        return answers
