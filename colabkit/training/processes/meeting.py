"""Exchange numbers between ranks in the middle of forward and backward, where one of them may run out of memory.

    meeting = Meeting(ranks, num_values=2 * channels + 1, device=device)
    told_RV = meeting.gather(values_V)         # in forward or backward, such as the sums of a batch norm
    worst = meeting.agree(code)                # at the end of the step, whatever happened in it

All exchanges are one kind of collective with one shape, a row of each rank that begins with where the rank stands. A
rank whose memory ran out does not know how many exchanges the others still make: it takes part in them with empty rows
until they, too, are at the end of the step. Nobody waits for ever, and on a GPU no exchange but the last one is waited
for on the host.

Axes: R rank, V value.
"""

from __future__ import annotations

from typing import Any

from colabkit.core.errors import StateError
from colabkit.training.processes.ranks import OUT_OF_MEMORY, Ranks

_UNDER_WAY = 0  # where a rank stands; at the end of a step it is 1 + its code


class Meeting:
    """Where all ranks exchange rows of at most `num_values` float32, in one order, over the default process group."""

    def __init__(self, ranks: Ranks, num_values: int, device: Any = "cpu"):
        import torch

        self.ranks, self.num_values = ranks, num_values
        # A rank whose memory ran out must be able to take part all the same.
        self._row = torch.zeros(1 + num_values, device=device)
        self._rows = torch.zeros(ranks.world, 1 + num_values, device=device)
        self.agree(0)  # the connection is made, and its buffers, while there is memory

    def gather(self, values_V: Any) -> Any:
        """Return the values of every rank (R, V), in float32; zeros for a rank whose memory ran out."""
        import torch

        row = torch.zeros_like(self._row)
        row[1 : 1 + len(values_V)] = values_V
        rows = torch.empty_like(self._rows)
        self._exchange(row, rows)
        if rows.device.type == "cpu":  # elsewhere looking costs time, and the others notice at their end
            self._ensure_alike(not set(rows[:, 0].tolist()) - {_UNDER_WAY, 1.0 + OUT_OF_MEMORY})
        return rows[:, 1 : 1 + len(values_V)]

    def agree(self, code: int) -> int:
        """Return the largest code of all ranks, when all are at the end of the step."""
        self._row.zero_()
        self._row[0] = 1 + code
        while True:
            self._exchange(self._row, self._rows)
            stands = [int(value) for value in self._rows[:, 0].tolist()]
            if _UNDER_WAY not in stands:
                return max(stands) - 1
            self._ensure_alike(code == OUT_OF_MEMORY)

    def _exchange(self, row: Any, rows: Any) -> None:
        import torch

        torch.distributed.all_gather(list(rows.unbind(0)), row)

    def _ensure_alike(self, true: bool) -> None:
        if not true:
            raise StateError(
                "The processes do different things in one step",
                got="unequal numbers of exchanges",
                expected="as many samples, of the same lengths, in each",
                where=f"process {self.ranks.rank}",
                fix="give every process as many samples of one length",
            )
