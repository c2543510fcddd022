"""Tests of colabkit.runs.lifetime: ends that are known, told once each, before they come."""

from __future__ import annotations

import time

import pytest

from colabkit.core.errors import UsageError
from colabkit.runs.lifetime import End, Lifetime, known_ends


def in_minutes(env, **how):
    return [round((end.at - time.time()) / 60) for end in known_ends(env, **how)]


def test_nothing_is_known_of_a_machine_of_ones_own():
    assert known_ends({}) == [] and Lifetime([]).ending() is None


@pytest.mark.parametrize(("text", "minutes"), [("+90", 90), ("+0.5", 0), ("{}", 120)])
def test_what_the_user_says(text, minutes):
    assert in_minutes({"COLABKIT_ENDS_AT": text.format(time.time() + 7200)}) == [minutes]


def test_dates_and_what_is_past():
    assert known_ends({"COLABKIT_ENDS_AT": "2001-01-01T00:00"}) == []
    assert len(known_ends({"COLABKIT_ENDS_AT": "2999-01-01T00:00:00+02:00"})) == 1


@pytest.mark.parametrize("text", ["soon", "+", "12:00", "nan", "+nan", "-5"])
def test_what_cannot_be_read_is_told_with_an_example(text):
    with pytest.raises(UsageError, match="COLABKIT_ENDS_AT") as caught:
        known_ends({"COLABKIT_ENDS_AT": text})
    assert "date -d" in caught.value.fix


def test_slurm_and_colab(tmp_path):
    assert in_minutes({"SLURM_JOB_END_TIME": str(int(time.time()) + 600)}) == [10]
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/uptime").write_text(f"{3 * 3600}.5 9\n")
    assert in_minutes({}, on_colab_vm=True, root=tmp_path) == [9 * 60, 21 * 60]
    (tmp_path / "proc/uptime").write_text(f"{13 * 3600} 9\n")
    assert in_minutes({}, on_colab_vm=True, root=tmp_path) == [11 * 60]
    assert known_ends({}, on_colab_vm=True, root=tmp_path / "nowhere") == []


def test_every_end_is_told_once_when_it_is_near():
    now = time.time()
    lifetime = Lifetime([End(now + 100, "first"), End(now + 200, "second"), End(now + 5000, "later")])
    assert [end and end.reason for end in (lifetime.ending(), lifetime.ending(), lifetime.ending())] == [
        "first",
        "second",
        None,
    ]
