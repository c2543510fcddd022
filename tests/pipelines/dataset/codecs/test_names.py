"""Names of codecs, where their models are, and whether the installed transformers knows them; nothing is imported."""

from __future__ import annotations

import pytest

from colabkit.pipelines.dataset.codecs.names import HUB_IDS, kind_of


@pytest.mark.parametrize(
    "name, kind",
    [
        ("neucodec", "neucodec"),
        ("neuphonic/neucodec@main", "neucodec"),
        ("dac-16khz", "dac"),
        ("kyutai/mimi", "mimi"),
        ("kmeans-mel", ""),
        ("someone/else", ""),
        ("/a/folder", ""),
    ],
)
def test_the_kind_of_a_name(name, kind):
    assert kind_of(name) == kind
    assert all(kind_of(short) == kind_of(hub_id) for short, hub_id in HUB_IDS.items())
