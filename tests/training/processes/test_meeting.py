"""Exchanges in the middle of a step: they survive a rank whose memory ran out, and nobody waits for ever."""

from __future__ import annotations

import pytest
import torch

from colabkit.core.errors import StateError
from colabkit.training.processes.meeting import Meeting
from colabkit.training.processes.ranks import FINE, OUT_OF_MEMORY, TIGHT
from tests.training.processes.gloo_processes import Processes


def meet(ranks, stops, codes):
    """Exchange three times a step; a rank stops before exchange number stops[rank].

    Returns what was told and agreed.
    """
    meeting, told = Meeting(ranks, num_values=4), []
    for step in range(2):
        rows = []
        for number in range(3):
            if step == 0 and number == stops[ranks.rank]:
                break
            rows.append(meeting.gather(torch.tensor([ranks.rank + 1.0, number])).tolist())
        code = codes[ranks.rank] if step == 0 else FINE
        told.append((rows, meeting.agree(code)))
    return told


@pytest.mark.parametrize("stop", range(4))
def test_a_rank_that_stops_anywhere_leaves_nobody_waiting(two, stop):
    first, second = two.call(meet, (3, stop), (FINE, OUT_OF_MEMORY))
    assert first[0][1] == second[0][1] == OUT_OF_MEMORY
    assert first[0][0] == [[[1.0, n], [2.0, n] if n < stop else [0.0, 0.0]] for n in range(3)], (
        "zeros from the one that is out"
    )
    whole = [[[1.0, n], [2.0, n]] for n in range(3)]
    assert first[1] == second[1] == (whole, FINE), "the next step is as if nothing had been"


@pytest.mark.parametrize(
    "stops, codes, worst",
    [
        ((0, 0), (OUT_OF_MEMORY, OUT_OF_MEMORY), OUT_OF_MEMORY),
        ((1, 2), (OUT_OF_MEMORY, OUT_OF_MEMORY), OUT_OF_MEMORY),
        ((3, 3), (FINE, FINE), FINE),
        ((3, 3), (TIGHT, FINE), TIGHT),
    ],
)
def test_all_know_the_worst(two, stops, codes, worst):
    assert [told[0][1] for told in two.call(meet, stops, codes)] == [worst, worst]


def test_processes_that_do_different_things_are_an_error_and_not_a_hang():
    with Processes() as own:
        answers = own.call(meet, (3, 2), (FINE, FINE))
    assert all(isinstance(answer, StateError) and "as many samples" in str(answer) for answer in answers)
