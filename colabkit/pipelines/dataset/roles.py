"""Roles of machines: one does all steps, or three share the work and meet in the store."""

from __future__ import annotations

from colabkit.core.errors import UsageError
from colabkit.pipelines.dataset.config import LOOPBACK, Config

_NAMES = {
    "segment": "that holds the recordings (preset gcp)",
    "encode": "with the GPU (preset h200)",
    "publish": "that publishes (preset hub)",
}


def left_to_others(config: Config, role: str) -> str:
    """Return why this machine leaves a step of a role to another one; "" when it is its own.

    Raises: UsageError when machines that share the work have no store in common.
    """
    mine, store = config.role.machine, config.store
    if mine not in ("all", role):
        return f"the machine {_NAMES[role]} does it"
    if mine != "all" and store.address in ("", LOOPBACK):
        raise UsageError(
            "Machines that share the work need a store that all of them reach",
            got=store.address or "none",
            expected="s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, hf://buckets/NAMESPACE/NAME or a shared folder",
            where="store.address",
            fix="--set store.address=s3://my-bucket/voices (in the notebook: STORE)",
        )
    return ""


def segmented_elsewhere(config: Config) -> str:
    """Return why steps up to the upload are not this machine's."""
    if reason := left_to_others(config, "segment"):
        return reason
    if config.segments.source:
        return ""
    if config.role.machine == "segment":
        raise UsageError(
            "Nothing says where the recordings or segments are",
            where="segments.source",
            expected="a folder, or an address with recordings",
            fix="--set segments.source=/my/segments (in the notebook: SOURCE)",
        )
    return "segments.source is empty, so they are in the store already"
