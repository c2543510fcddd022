"""Keys and channels from names alone."""

from __future__ import annotations

import pytest

from colabkit.pipelines.dataset.segments.segment import channel_of, key_of, key_of_whole


@pytest.mark.parametrize(
    ("name", "channel"),
    [
        ("Atheer/2024/0001.npz", "Atheer"),
        ("Thmanyah__0001.npz", "Thmanyah"),
        ("ZadTVchannel_0001.npz", "ZadTVchannel"),
        ("Al_Arabiya__01_02.npz", "Al_Arabiya"),
        ("0001.npz", ""),
        ("000_111.npz", ""),
        ("a.npz", ""),
        ("قناة_٠٠١.npz", "قناة"),
        ("_x_1.npz", "x"),
        ("/A/b.npz", "A"),
        ("12_b/c.npz", "12_b"),
        ("", ""),
    ],
)
def test_channels(name, channel):
    assert channel_of(name) == channel


def test_keys():
    assert key_of_whole("a.b/c.d", (".npz",)) == "a.b/c.d" and key_of_whole("a.b.NPZ", (".npz",)) == "a.b"
    assert key_of("a/b.c.npz") == "a/b.c" and key_of("a.b/c") == "a.b/c" and key_of("日本.flac") == "日本"
