"""The processes that work at one step together: what they agree on, and how they meet (torchrun, accelerate)."""

from __future__ import annotations

import pytest

from colabkit.training.processes import ranks


def test_alone_every_question_answers_itself():
    alone = ranks.Ranks()
    assert (alone.any(0), alone.any("x"), alone.all(1)) == (False, True, True)
    assert (alone.gather(3), alone.from_first(lambda: 4)) == ([3], 4)
    assert alone.share([1, 2, 3], lambda items: [-i for i in items]) == [-1, -2, -3]


@pytest.mark.parametrize(
    "env, expected",
    [
        ({}, False),
        ({"WORLD_SIZE": "4", "RANK": "0"}, False),  # a cluster's own names, without torchrun
        ({"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "a"}, False),
        ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "a"}, True),
        ({"WORLD_SIZE": "two", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "a"}, False),
    ],
)
def test_torchrun_is_known_by_what_it_sets(monkeypatch, env, expected):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert ranks.launched() is expected
