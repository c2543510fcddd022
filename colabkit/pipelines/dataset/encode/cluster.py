"""Encode on a Ray cluster: the same engine on several nodes, which share nothing but the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from colabkit.core.errors import StateError, UsageError, missing_extra
from colabkit.core.teller import Teller
from colabkit.io.places.place import Place
from colabkit.pipelines.dataset.codecs.codec import Codec
from colabkit.pipelines.dataset.encode.job import Encoded, Sharing, encode

_LOOK_SECONDS = 1.0
_MOST_RESTARTS = 10  # of one worker
_STOP_SECONDS = 60.0  # for workers to end in good order


@dataclass(frozen=True, kw_only=True)
class Worker:
    """What a worker does; all of it goes to another machine, so it pickles.

    The functions open the store and the codec there. `scratch` is a folder on each node's own disk, below which every
    worker has its own, with a quota of its own. `settings` are further ones of `encode`.
    """

    open_source: Callable[[], Place]
    open_output: Callable[[], Place]
    open_codec: Callable[[], Codec]
    scratch: Path
    sharing: Sharing = field(default_factory=Sharing)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def run(self, number: int) -> Encoded:
        """Work until every piece is committed, by whomever."""
        name = f"{self.sharing.worker or 'ray'}-{number}"
        sharing = replace(self.sharing, claims=True, worker=name)
        return encode(
            self.open_source(),
            self.open_output(),
            self.open_codec(),
            scratch=self.scratch / name,
            sharing=sharing,
            **self.settings,
        )


def encode_on_ray(
    worker: Worker,
    num_workers: int,
    *,
    address: str | None = None,
    num_gpus: float = 0.0,
    teller: Teller = Teller(),
) -> Encoded:
    """Run `num_workers` on the cluster at `address` ("auto" for the one this machine belongs to; None starts one here).

    A worker whose node dies is started again on another; its pieces are taken over when their leases end, or by itself
    at once.
    Raises: StateError without Ray, or when the cluster has no room for a worker; what a worker raises.
    """
    if num_workers < 1:
        raise UsageError(
            "Cannot encode without workers", got=num_workers, expected="1 or more", fix="set how many workers to run"
        )
    try:
        import ray
    except ModuleNotFoundError as error:
        raise missing_extra(error, "cluster") from error
    if not ray.is_initialized():
        ray.init(address=address, include_dashboard=False, log_to_driver=False)
    _check_room(ray.cluster_resources(), {"CPU": 1.0, "GPU": num_gpus})
    worker = replace(worker, settings={"teller": _WithFellows(num_workers), **worker.settings})
    task = ray.remote(num_cpus=1.0, num_gpus=num_gpus, max_retries=_MOST_RESTARTS)(Worker.run)
    teller.say(f"  {num_workers} workers on {sum(node['Alive'] for node in ray.nodes())} nodes")
    running = {task.remote(worker, number): number for number in range(num_workers)}
    results: list[Encoded] = []
    try:
        while running:
            ended, _ = ray.wait(list(running), timeout=_LOOK_SECONDS)
            for reference in ended:
                results.append(_result(ray, reference, running.pop(reference)))
            if teller.stop_requested:
                _stop(ray, running, teller)
                return _merged(results, stopped=True)
    except BaseException:
        _stop(ray, running, teller)
        raise
    return _merged(results, stopped=False)


class _WithFellows(Teller):
    """Leaves the other workers their share of the disk: all of them may be on one node."""

    def __init__(self, num_workers: int):
        super().__init__()
        self.num_workers = num_workers

    def choose(self, name: str, value: Any, reason: str) -> Any:
        return super().choose(name, value // self.num_workers if name == "quota_bytes" else value, reason)


def _check_room(resources: Mapping[str, float], needed: Mapping[str, float]) -> None:
    for name, wanted in needed.items():
        if resources.get(name, 0.0) < wanted:
            raise StateError(
                "The Ray cluster has no room for a worker",
                got=f"{resources.get(name, 0.0):g} {name}",
                expected=f"{wanted:g} {name} a worker",
                fix="start more nodes (ray start --address=...), or ask for less",
            )


def _result(ray: Any, reference: Any, number: int) -> Encoded:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, Exception) else error from None
    except ray.exceptions.RayError as error:
        raise StateError(
            f"Worker {number} died again and again",
            got=f"{type(error).__name__}: {error}".splitlines()[0],
            fix="look at the node's memory and disk, then run the same again: what is committed stays",
        ) from error


def _stop(ray: Any, running: Mapping[Any, int], teller: Teller) -> None:
    """Interrupt the workers; each keeps its journal, and what it has committed stays."""
    for reference in running:
        ray.cancel(reference, force=False, recursive=False)
    if running:
        _, left = ray.wait(list(running), num_returns=len(running), timeout=_STOP_SECONDS)
        if left:
            teller.say(
                f"  {len(left)} workers did not end in {_STOP_SECONDS:.0f} s; they are ended by force, at a batch each"
            )
        for reference in left:
            ray.cancel(reference, force=True)


def _merged(results: list[Encoded], *, stopped: bool) -> Encoded:
    """Add up what each worker did; of what lies in the store the last look counts."""
    summed = ("num_encoded", "num_left_aside", "num_changed", "num_batches", "num_bytes_read", "seconds_of_audio")
    largest = ("num_items", "num_pieces", "num_pieces_done", "num_done", "seconds", "most_bytes_used")
    firsts = [r.seconds_to_first for r in results if r.seconds_to_first is not None]
    finished = any(r.is_finished for r in results) and not stopped
    totals = {name: sum(getattr(r, name) for r in results) for name in summed}
    totals |= {name: max((getattr(r, name) for r in results), default=0) for name in largest}
    if finished:
        totals["num_done"] = totals["num_items"]
    return Encoded(**totals, seconds_to_first=min(firsts, default=None), is_finished=finished, stopped=stopped)
