"""Roles: which steps are this machine's, and what machines that share the work must have in common."""

from __future__ import annotations

import pytest

from colabkit.core.errors import UsageError
from colabkit.pipelines.dataset.config import LOOPBACK, PRESETS, Config, RoleConfig, SegmentsConfig, StoreConfig
from colabkit.pipelines.dataset.recipe import STEPS
from colabkit.pipelines.dataset.roles import left_to_others, segmented_elsewhere
from colabkit.runs.steps import Sections
from tests.pipelines.dataset.test_recipe import DONE


def test_steps_know_their_machine():
    for machine, mine in (
        ("segment", "01 02 03"),
        ("encode", "04 05"),
        ("publish", "06 07"),
        ("all", "01 02 03 04 05 06 07"),
    ):
        config = Config(
            role=RoleConfig(machine=machine),
            store=StoreConfig(address="s3://bucket/x"),
            segments=SegmentsConfig(source="/somewhere", kind="segments"),
        )
        done = [step.id[:2] for step in STEPS if not step.elsewhere(Sections(config, step))]
        assert done == mine.split(), machine
    nothing = Config(
        role=RoleConfig(machine="segment"),
        store=StoreConfig(address="s3://bucket/x"),
        segments=SegmentsConfig(source="", kind="segments"),
    )
    with pytest.raises(UsageError, match="Nothing says where"):
        STEPS[0].elsewhere(Sections(nothing, STEPS[0]))
    assert {"demo", "quick", "full", "gcp", "h200", "hub"} == set(PRESETS) and {s.id for s in STEPS} == DONE


@pytest.mark.parametrize("address", ["", LOOPBACK])
@pytest.mark.parametrize("machine", ["segment", "encode", "publish"])
def test_a_store_of_this_machine_alone_cannot_be_shared(machine, address):
    config = Config(role=RoleConfig(machine=machine), store=StoreConfig(address=address))
    with pytest.raises(UsageError, match="need a store that all of them reach") as caught:
        left_to_others(config, machine)
    assert "--set store.address=" in caught.value.fix and caught.value.got == (address or "none")
    alone = Config(store=StoreConfig(address=address))
    assert left_to_others(alone, machine) == "", "one machine that does all needs no store in common"


def test_the_reason_names_the_machine_that_does_it():
    config = Config(role=RoleConfig(machine="publish"), store=StoreConfig(address="s3://bucket/x"))
    assert left_to_others(config, "encode") == "the machine with the GPU (preset h200) does it"
    assert segmented_elsewhere(config) == "the machine that holds the recordings (preset gcp) does it"


def test_without_a_source_the_segments_are_in_the_store():
    config = Config(segments=SegmentsConfig(source="", kind="segments"))
    assert segmented_elsewhere(config) == "segments.source is empty, so they are in the store already"
    assert segmented_elsewhere(Config()) == ""
