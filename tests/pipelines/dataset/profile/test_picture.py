"""The picture of a profile: one PNG, the same each time, with names in any script."""

from __future__ import annotations

import pytest

from colabkit.pipelines.dataset.profile.picture import draw_profile
from colabkit.pipelines.dataset.profile.step import profile_segments
from tests.pipelines.dataset.profile.test_step import fill


@pytest.mark.filterwarnings("ignore:Glyph")  # what the machine's fonts lack is drawn as boxes
@pytest.mark.parametrize("names", [("Atheer",), ("قناة زاد", "日本"), tuple(f"c{i}" for i in range(20))])
def test_the_picture_is_drawn_the_same_each_time(tmp_path, names):
    pytest.importorskip("matplotlib")
    found = profile_segments(fill(tmp_path / "in", 24, channels=names))
    for name in "ab":
        draw_profile(found, tmp_path / f"{name}.png")
    content = (tmp_path / "a.png").read_bytes()
    assert content[:4] == b"\x89PNG" and content == (tmp_path / "b.png").read_bytes() and len(content) > 5_000
