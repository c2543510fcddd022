"""Which names are of a channel, fit a pattern, or are the first ones."""

from __future__ import annotations

import pyarrow as pa
import pytest

from colabkit.core.errors import UsageError
from colabkit.io.objects.channels import wanted_places

NAMES = ["Atheer/2.npz", "Atheer_1.npz", "AtheerTV/3.npz", "x/Atheer/4.npz", "Zad-TV.5.npz", "UPLOADED.parquet", "Zad-TV/6.txt",
         "Atheer.npz", "Atheer"]


def chosen(**more) -> list[str]:
    names = pa.array(NAMES, pa.string())
    return names.take(wanted_places(names, **more)).to_pylist()


def test_channels():
    assert chosen(channels=["Atheer"]) == ["Atheer/2.npz", "Atheer_1.npz", "Atheer.npz", "Atheer"]
    assert chosen(channels=["Zad-TV"]) == ["Zad-TV.5.npz", "Zad-TV/6.txt"]
    assert chosen(channels=["Zad-TV", "AtheerTV"]) == ["AtheerTV/3.npz", "Zad-TV.5.npz", "Zad-TV/6.txt"]
    assert chosen(channels=["second"], channel_of=lambda name: "second" if "4" in name else "") == ["x/Atheer/4.npz"]
    with pytest.raises(UsageError, match="No file is of these channels") as caught:
        chosen(channels=["Thmanyah"])
    assert "Atheer" in caught.value.expected
    with pytest.raises(UsageError):
        wanted_places(pa.array([], pa.string()), channels=["x"])


def test_patterns_and_limits():
    assert chosen() == [name for name in NAMES if name != "UPLOADED.parquet"]
    assert chosen(pattern="*.txt") == ["Zad-TV/6.txt"] and chosen(pattern="*/?.npz") == ["Atheer/2.npz", "AtheerTV/3.npz",
                                                                                         "x/Atheer/4.npz"]
    assert chosen(limit=2) == ["Atheer", "Atheer.npz"] and chosen(limit=0) == [] and len(chosen(limit=100)) == 8
    with pytest.raises(UsageError, match="negative"):
        chosen(limit=-1)
    assert wanted_places(pa.array([], pa.string())).tolist() == []
