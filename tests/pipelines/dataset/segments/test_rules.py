"""Rules by which recordings are cut into segments, and segments are kept."""

from __future__ import annotations

from colabkit.pipelines.dataset.segments.rules import Filters


def test_filters_that_cannot_be():
    assert list(Filters(max_clipped_fraction=2).faults()) and list(Filters(normalise_lufs=3).faults())
    assert not list(Filters(normalise_lufs=-23).faults())
