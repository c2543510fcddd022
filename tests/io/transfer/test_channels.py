"""Which names are of a channel, fit a pattern, or are the first ones."""

from __future__ import annotations

import re

import pyarrow as pa
import pytest

from colabkit.core.errors import UsageError
from colabkit.io.transfer.channels import beginning_of, wanted_places

NAMES = [
    "Atheer/2.npz",
    "Atheer_1.npz",
    "AtheerTV/3.npz",
    "x/Atheer/4.npz",
    "Zad-TV.5.npz",
    "UPLOADED.parquet",
    "Zad-TV/6.txt",
    "Atheer.npz",
    "Atheer",
]


def chosen(**more) -> list[str]:
    names = pa.array(NAMES, pa.string())
    return names.take(wanted_places(names, **more)).to_pylist()


def test_channels():
    assert chosen(channels=["Atheer"]) == ["Atheer/2.npz", "Atheer_1.npz", "Atheer.npz", "Atheer"]
    assert chosen(channels=["Zad-TV"]) == ["Zad-TV.5.npz", "Zad-TV/6.txt"]
    assert chosen(channels=["Zad-TV", "AtheerTV"]) == ["AtheerTV/3.npz", "Zad-TV.5.npz", "Zad-TV/6.txt"]
    assert chosen(channels=["second"], channel_of=lambda name: "second" if "4" in name else "") == ["x/Atheer/4.npz"]
    with pytest.raises(UsageError, match="No file is of this channel") as caught:
        chosen(channels=["Thmanyah"])
    assert "Atheer" in caught.value.expected
    with pytest.raises(UsageError, match="No file is of this channel: got 'Zad_TV'"):
        chosen(channels=["Atheer", "Zad_TV"])
    with pytest.raises(UsageError, match="No file is of these channels: got 'x, z'"):
        chosen(channels=["x", "second", "z"], channel_of=lambda name: "second")
    with pytest.raises(UsageError):
        wanted_places(pa.array([], pa.string()), channels=["x"])


@pytest.mark.parametrize(
    "name, channels",
    [
        ("Radio-1_0001.npz", ["Radio-1"]),
        ("Radio-1/0001.npz", ["Radio-1"]),
        ("Radio_0001-a.npz", ["Radio"]),
        ("Radio-1.npz", ["Radio", "Radio-1"]),
        ("Radio_One__0001.npz", ["Radio_One"]),
        ("Radio_One_0001.npz", ["Radio", "Radio_One"]),
        ("Radio__0_1.npz", ["Radio"]),
        ("_Radio_1.npz", ["Radio"]),
        ("Radio 1.npz", ["Radio"]),
        ("Radio1_1.npz", []),
    ],
)
def test_a_name_is_of_its_whole_channel(name, channels):
    """By Arrow's expressions and by Python's."""
    for channel in ("Radio", "Radio-1", "Radio_One"):
        match = re.match(beginning_of([channel]), name)
        names = pa.array([name, f"{channel}/1.npz"])
        assert [bool(match), len(wanted_places(names, channels=[channel])) == 2] == [channel in channels] * 2, channel
        assert match is None or match[1] == channel


def test_patterns_and_limits():
    assert chosen() == [name for name in NAMES if name != "UPLOADED.parquet"]
    assert chosen(pattern="*.txt") == ["Zad-TV/6.txt"] and chosen(pattern="*/?.npz") == [
        "Atheer/2.npz",
        "AtheerTV/3.npz",
        "x/Atheer/4.npz",
    ]
    assert chosen(limit=2) == ["Atheer", "Atheer.npz"] and chosen(limit=0) == [] and len(chosen(limit=100)) == 8
    with pytest.raises(UsageError, match="negative"):
        chosen(limit=-1)
    assert wanted_places(pa.array([], pa.string())).tolist() == []
