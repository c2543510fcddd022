"""Settings of the dataset pipeline: what cannot be is told by its name, and which machine a preset is for."""

from __future__ import annotations

import pytest

from colabkit.core.config import build, identity_settings, with_settings
from colabkit.core.errors import UsageError
from colabkit.pipelines.dataset.config import PRESETS, Config, demo


@pytest.mark.parametrize(
    "given, told",
    [
        ("segments.shard_mib=0", "segments.shard_mib: got 0.0, expected more than 0"),
        ("segments.kind=segments", "segments.kind: voices are recordings; name a folder of segments as source"),
        ("segments.num_channels=0", "segments.num_channels: got 0, expected at least 1"),
        ("segments.layout=zip", "segments.layout"),
        ("cut.min_seconds=9", "cut.min_seconds: got 9.0, expected at most half of max_seconds"),
        ("filter.max_clipped_fraction=2", "filter.max_clipped_fraction: got 2.0, expected 0 to 1"),
        ("encode.quota_gib=0", "encode.quota_gib: got 0.0, expected more than 0, or none"),
        ("encode.piece_mib=-1", "encode.piece_mib: got -1.0, expected more than 0"),
        ("encode.share=2/2", "encode.share: got 2/2, expected NUMBER/MACHINES with the number from 0"),
        ("encode.share=0/0", "encode.share: got 0/0"),
        ("encode.share=half", "encode.share: got half"),
        ("publish.test_fraction=0.9", "publish.test_fraction: with validation_fraction must lie between 0 and 0.9"),
        ("publish.shard_mb=0", "publish.shard_mb: got 0.0, expected more than 0"),
    ],
)
def test_what_cannot_be_is_told_by_its_name(given, told):
    with pytest.raises(UsageError) as caught:
        with_settings(demo(), [given])
    assert told in str(caught.value)


def test_shares_and_limits_that_can_be():
    config = with_settings(demo(), ["encode.share=11/12", "encode.quota_gib=none", "publish.validation_fraction=0.6"])
    assert (config.encode.share, config.encode.quota_gib, config.publish.validation_fraction) == ("11/12", None, 0.6)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_can_be_and_differ_by_their_machine(name):
    config = build(Config, {}, base=PRESETS[name]())
    machines = {"gcp": "segment", "h200": "encode", "hub": "publish"}
    assert config.role.machine == machines.get(name, "all")
    if name in machines:  # the same work, shared: what one machine made is another's input
        assert identity_settings(config) == identity_settings(PRESETS["full"]())


def test_where_and_how_fast_changes_no_result():
    """Else a step would be done again on another machine."""
    there = ["store.endpoint=https://s3.example", "encode.quota_gib=3", "encode.shared=yes", "encode.cluster_workers=4"]
    assert identity_settings(with_settings(demo(), there)) == identity_settings(demo())
    assert identity_settings(with_settings(demo(), ["codec.seed=1"])) != identity_settings(demo())
