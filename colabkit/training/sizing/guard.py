"""Go on when memory runs out: the same samples again in smaller parts, on all ranks, without a restart.

    guard = Guard(capacity, ranks=ranks, teller=run)
    guard.step(seconds, work, reset)        # work(numbers): forward and backward of these samples of this rank
    reduce_gradients(parameters, ranks)     # only now do ranks exchange gradients
    optimizer.step()

An optimizer step sees every sample's gradient exactly once, whatever happened before: gradients are summed over ranks
only after all ranks have said that their part went through.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from colabkit.core.errors import DataError
from colabkit.core.teller import Teller
from colabkit.training.processes.ranks import FINE, OUT_OF_MEMORY, TIGHT, Ranks
from colabkit.training.random_state import random_state, set_random_state
from colabkit.training.sizing.out_of_memory import clean_up, is_out_of_memory, release
from colabkit.training.sizing.partition import bucket_of, cut, edge_seconds
from colabkit.training.sizing.watch import MemoryWatch

KEPT_SHARE = 0.75  # of the samples that did not fit, how many are tried next
Work = Callable[[list[int]], object]


@dataclass(frozen=True, slots=True)
class _Event:
    """A part that did not fit (or hardly did): so many samples, padded to so many seconds."""

    kind: int
    seconds: float
    num_samples: int
    text: str = ""


class Guard:
    """Carries out the forward and backward passes of training steps, and learns how many samples go through at once.

    `capacity(seconds)`: how many samples of that length are expected to fit. `pass_seconds`: of audio, what a part
    costs beside its own (partition.cut). `watch`: a MemoryWatch; it is looked at after each
    step, and the allocator's retries, which collapse the speed, count as memory that ran out. `buffers_of`: modules
    whose buffers the forward pass changes (batch norms); they are put back before samples are done again.
    `advice(seconds)`: lines that tell what would help a sample that does not fit alone. `agree(code)`: how ranks learn
    the worst of their codes; another than `ranks.worst` where forward and backward themselves communicate
    (Meeting.agree). `name`: of a limit, as a choice. `device`: what the limits were learnt on.

    All ranks must make and call it alike. `events` counts what happened.
    """

    def __init__(
        self,
        capacity: Callable[[float], int],
        *,
        ranks: Ranks,
        teller: Teller,
        pass_seconds: float = math.inf,
        watch: MemoryWatch | None = None,
        buffers_of: Iterable[Any] = (),
        advice: Callable[[float], Sequence[str]] | None = None,
        agree: Callable[[int], int] | None = None,
        name: str = "limit up to {seconds:.3g} s",
        device: str = "",
    ):
        self.capacity, self.ranks, self.teller, self.watch = capacity, ranks, teller, watch
        self.pass_seconds = pass_seconds
        self.name, self._advice, self._agree = name, advice, agree or ranks.worst
        self.device = " + ".join(sorted(set(ranks.gather(device))))
        self.limits: dict[int, int] = {}  # bucket -> how many samples; longer ones may not be more
        self.events: Counter[str] = Counter()
        self._buffers = _Buffers(buffers_of)

    def limit(self, seconds: float) -> int:
        """Return how many samples of this length go through at once, as far as is known; at least 1."""
        learnt = [most for bucket, most in self.limits.items() if bucket <= bucket_of(seconds)]
        return max(1, min([self.capacity(seconds), *learnt]))

    def step(self, seconds: Sequence[float], work: Work, reset: Callable[[], object]) -> None:
        """Do forward and backward of this rank's samples of one optimizer step, whose lengths are `seconds`.

        `work(numbers)` adds the gradients of these samples, and does not wait for other ranks in it (but through a
        Meeting). `reset()` undoes all of it: gradients to None, sums of losses to what they were. Random generators and
        buffers are put back here. Raises: DataError, on all ranks, when one sample alone does not fit.
        """
        before, failed_alone = random_state(), set()
        self._buffers.keep()
        while True:
            event = self._attempt(seconds, work)
            worst = self._agree(event.kind if event else FINE)
            if worst != FINE:
                told = [(rank, found) for rank, found in enumerate(self.ranks.gather(event)) if found]
                self._learn(told, failed_alone)
            if worst != OUT_OF_MEMORY:
                break
            reset()
            self._buffers.put_back()
            set_random_state(before)
            clean_up(collect=event is None or event.kind != OUT_OF_MEMORY)  # else it is done
        if self.watch is not None:
            self.watch.look()

    def state(self) -> dict[str, Any]:
        """Return what was learnt, in JSON: a run that continues does not learn it by failing again."""
        return {"device": self.device, "limits": {str(bucket): most for bucket, most in sorted(self.limits.items())}}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up what was learnt on such a device; what another one could not hold says nothing about this one."""
        if not state:
            return
        if state["device"] != self.device:
            if state["limits"]:
                other = state["device"] or "another device"
                self.teller.say(f"  how many samples fit into {other} is not taken over to {self.device}")
            return
        self.limits = {int(bucket): int(most) for bucket, most in state["limits"].items()}

    def _attempt(self, seconds: Sequence[float], work: Work) -> _Event | None:
        """Do all parts; returns what ended it, or the worst that was noticed on the way."""
        tight = None
        for part in cut(seconds, self.limit, self.pass_seconds):
            longest, num_samples = max(seconds[i] for i in part), len(part)
            before = self._retries()
            if text := _failure(work, part):
                clean_up()  # before the others are met: it may take memory
                return _Event(OUT_OF_MEMORY, longest, num_samples, text)
            if self._retries() > before:
                tight = tight or _Event(TIGHT, longest, num_samples)
        return tight

    def _retries(self) -> int:
        return 0 if self.watch is None else self.watch.retries()

    def _learn(self, told: list[tuple[int, _Event]], failed_alone: set) -> None:
        """Lower the limits by what all ranks have met, the same on each; tell why."""
        for rank, event in told:
            where = f" in process {rank}" if self.ranks.world > 1 else ""
            samples = f"{event.num_samples} of {event.seconds:.3g} s"
            if event.kind == OUT_OF_MEMORY:
                self.events["out_of_memory"] += 1
                why = f"memory ran out with {samples} at once{where}; the same samples are done again"
                if event.num_samples == 1:
                    if (rank, event.seconds) in failed_alone:
                        raise self._hopeless(event, where)
                    failed_alone.add((rank, event.seconds))  # once more, now that memory is cleaned up
            else:
                self.events["tight"] += 1
                why = (
                    f"memory was so short with {samples} at once{where} that the allocator had to start over, "
                    "which is slow"
                )
            bucket = bucket_of(event.seconds)
            most = max(1, int(event.num_samples * KEPT_SHARE))
            if most < self.limits.get(bucket, most + 1):
                self.limits[bucket] = most
                self.teller.choose(self.name.format(seconds=edge_seconds(bucket)), most, why)
            elif event.kind == OUT_OF_MEMORY:
                self.teller.say(f"  {why}")

    def _hopeless(self, event: _Event, where: str) -> DataError:
        advice = (
            list(self._advice(event.seconds))
            if self._advice
            else [
                "gradient checkpointing",
                "an 8-bit optimizer",
                "freezing a part of the model",
                "cutting samples into shorter pieces",
                "a GPU with more memory",
            ]
        )
        memory = f" ({self.watch.describe()})" if self.watch is not None else ""
        return DataError(
            f"One sample of {event.seconds:.3g} s does not fit into memory alone{where}{memory}",
            got=event.text,
            expected="a sample, its gradients and the model to fit",
            fix="what helps: " + "; ".join(advice),
        )


def _failure(work: Work, part: list[int]) -> str:
    """Do a part; returns the text of the error when memory ran out, after letting go of all that the part held."""
    try:
        work(part)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return release(error)
    return ""


class _Buffers:
    """What a forward pass changes of modules: kept before a step, put back where it is done again."""

    def __init__(self, modules: Iterable[Any]):
        self._theirs = [buffer for module in modules for buffer in module.buffers()]
        self._ours: list[Any] = []

    def keep(self) -> None:
        if not self._ours:
            self._ours = [buffer.detach().clone() for buffer in self._theirs]
        _copy(self._theirs, self._ours)

    def put_back(self) -> None:
        _copy(self._ours, self._theirs)


def _copy(buffers: list[Any], into: list[Any]) -> None:
    if buffers:
        import torch

        with torch.no_grad():
            torch._foreach_copy_(into, buffers)
