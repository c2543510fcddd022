"""How a profile reads, and its picture: one PNG, the same each time, with names in any script."""

from __future__ import annotations

import pytest

from colabkit.pipelines.dataset.profile.profile import draw_profile
from colabkit.pipelines.dataset.profile.step import Profile, profile_segments
from tests.pipelines.dataset.profile.test_step import fill


def test_the_table_says_what_was_found(tmp_path):
    text = str(profile_segments(fill(tmp_path)).table())
    for part in ("all headers", "exact", "24000 Hz", "float32", "Atheer (6), Zad (6)", "3, most: s0 (4)", "codes"):
        assert part in text


def test_a_profile_of_nothing_known_has_a_table():
    text = str(Profile(address="x", num_files=1, num_bytes=0, num_inspected=1, hours=None).table())
    assert "not known" in text and "none named" in text


@pytest.mark.filterwarnings("ignore:Glyph")  # what the machine's fonts lack is drawn as boxes
@pytest.mark.parametrize("names", [("Atheer",), ("قناة زاد", "日本"), tuple(f"c{i}" for i in range(20))])
def test_the_picture_is_drawn_the_same_each_time(tmp_path, names):
    pytest.importorskip("matplotlib")
    found = profile_segments(fill(tmp_path / "in", 24, channels=names))
    for name in "ab":
        draw_profile(found, tmp_path / f"{name}.png")
    content = (tmp_path / "a.png").read_bytes()
    assert content[:4] == b"\x89PNG" and content == (tmp_path / "b.png").read_bytes() and len(content) > 5_000
