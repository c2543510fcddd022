"""How a profile reads."""

from __future__ import annotations

from colabkit.pipelines.dataset.profile.step import Profile, profile_segments
from tests.pipelines.dataset.profile.test_step import fill


def test_the_table_says_what_was_found(tmp_path):
    text = str(profile_segments(fill(tmp_path)).table())
    for part in ("all headers", "exact", "24000 Hz", "float32", "Atheer (6), Zad (6)", "3, most: s0 (4)", "codes"):
        assert part in text


def test_a_profile_of_nothing_known_has_a_table():
    text = str(Profile(address="x", num_files=1, num_bytes=0, num_inspected=1, hours=None).table())
    assert "not known" in text and "none named" in text
